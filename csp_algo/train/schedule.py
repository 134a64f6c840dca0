# SPDX-License-Identifier: Apache-2.0
"""Training stages: dense, regularised, and fine-tuning under masks.

Every stage draws its chances from its own seed, so a run that starts from a saved stage gives the
same weights as one that goes all the way (on one machine, with one number of threads).
"""

import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from csp_algo.train.data import augment
from csp_algo.train.regulariser import model_regulariser


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """How one stage trains.

    Attributes
    ----------
    epochs : int
    rate : float
        Peak learning rate; it rises linearly over a quarter of the steps and falls to zero.
    strength : float
        λ, the weight of the cascading regulariser in the loss; 0 leaves it out.
    seed : int
    """

    name: str
    epochs: int
    rate: float
    strength: float = 0.0
    batch: int = 64
    momentum: float = 0.9
    decay: float = 5e-4
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the accuracy log; accuracies and sparsity in percent, empty where unknown."""

    stage: str
    epoch: int
    loss: float | None = None
    regulariser: float | None = None
    training: float | None = None
    validation: float | None = None
    test: float | None = None
    sparsity: float | None = None
    seconds: float | None = None


def write_log(rows: list[Row], path: Path) -> None:
    """Write the accuracy log as CSV with a header line."""
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = dataclasses.asdict(row)
        decimals = {"loss": 4, "regulariser": 2, "seconds": 0}
        writer.writerow(
            {
                name: f"{value:.{decimals.get(name, 2)}f}" if isinstance(value, float) else value
                for name, value in values.items()
            }
        )
    path.write_text(text.getvalue(), encoding="utf-8")


def weighted(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Give the layers with weights by name, in order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def sparsity(model: nn.Module) -> float:
    """Give the share of zeros in the weights of convolutions and linear layers, in percent."""
    layers = weighted(model).values()
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    return 100 * zeros / sum(layer.weight.numel() for layer in layers)


@torch.inference_mode()
def accuracy(
    model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, *, batch: int = 500
) -> float:
    """Give the share of right answers in evaluation mode, in percent."""
    model.eval()
    right = 0
    for part in range(0, len(labels), batch):
        answers = model(_channels_last(pixels[part : part + batch])).argmax(1)
        right += int((answers == labels[part : part + batch]).sum())
    return 100 * right / len(labels)


def _channels_last(pixels: torch.Tensor) -> torch.Tensor:
    # Twice as fast on CPUs as the default layout for these small maps.
    return pixels.contiguous(memory_format=torch.channels_last)


def train(
    model: nn.Module,
    stage: Stage,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    cols: int,
    exempt: frozenset[str] = frozenset(),
    masks: Mapping[str, torch.Tensor] | None = None,
    validation: tuple[torch.Tensor, torch.Tensor] | None = None,
    report: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Train in place with cross entropy, plus λ·R where the stage asks for it.

    Parameters
    ----------
    pixels, labels : float[N, 1, H, W], int64[N]
    exempt : names of layers that R leaves alone
    masks : boolean, of each weight's shape; weights outside stay zero
    validation : evaluated after every epoch if given
    report : called with each epoch's row
    """
    generator = torch.Generator().manual_seed(stage.seed)
    torch.manual_seed(stage.seed)
    layers = weighted(model)
    regularised = [layer for name, layer in layers.items() if name not in exempt]
    groups = [layer.groups if isinstance(layer, nn.Conv2d) else 1 for layer in regularised]
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=stage.rate,
        momentum=stage.momentum,
        weight_decay=stage.decay,
        nesterov=True,
    )
    # A last batch of one image would break batch normalisation: steps are whole batches.
    steps = max(1, len(labels) // stage.batch)
    total = stage.epochs * steps
    rise = max(1, total // 4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: (step + 1) / rise if step < rise else (total - step) / max(1, total - rise),
    )
    rows = []
    for epoch in range(1, stage.epochs + 1):
        start = time.monotonic()
        model.train()
        order = torch.randperm(len(labels), generator=generator)
        losses, penalties, right, seen = 0.0, 0.0, 0, 0
        for step in range(steps):
            chosen = order[step * stage.batch : (step + 1) * stage.batch]
            answers = model(_channels_last(augment(pixels[chosen], generator)))
            loss = nn.functional.cross_entropy(answers, labels[chosen])
            losses += float(loss.detach())
            if stage.strength:
                penalty = model_regulariser(
                    [layer.weight for layer in regularised], cols, groups=groups
                )
                penalties += float(penalty.detach())
                loss = loss + stage.strength * penalty
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            scheduler.step()
            if masks is not None:
                # Momentum and decay move masked weights too: put them back to zero.
                with torch.no_grad():
                    for name, mask in masks.items():
                        layers[name].weight.mul_(mask)
            right += int((answers.argmax(1) == labels[chosen]).sum())
            seen += len(chosen)
        if not math.isfinite(losses):
            raise FloatingPointError(f"{stage.name}: the loss of epoch {epoch} is not finite")
        row = Row(
            stage=stage.name,
            epoch=epoch,
            loss=losses / steps,
            regulariser=penalties / steps if stage.strength else None,
            training=100 * right / seen,
            validation=accuracy(model, *validation) if validation is not None else None,
            sparsity=sparsity(model),
            seconds=time.monotonic() - start,
        )
        if report is not None:
            report(row)
        rows.append(row)
    return rows
