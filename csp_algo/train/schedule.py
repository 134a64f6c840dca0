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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from csp_algo.train.checkpoint import Checkpoint
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
    checkpoint: Checkpoint | None = None,
) -> list[Row]:
    """Train in place with cross entropy, plus λ·R where the stage asks for it.

    Parameters
    ----------
    pixels, labels : float[N, 1, H, W], int64[N]
    exempt : names of layers that R leaves alone
    masks : boolean, of each weight's shape; weights outside stay zero
    validation : evaluated after every epoch if given
    report : called with each new epoch's row
    checkpoint : keeps the state after every epoch; what it already holds is not done again
    """
    generator = torch.Generator().manual_seed(stage.seed)
    torch.manual_seed(stage.seed)
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
    rows: list[Row] = []
    saved = None if checkpoint is None else checkpoint.load()
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        scheduler.load_state_dict(saved["scheduler"])
        generator.set_state(saved["generator"])
        torch.set_rng_state(saved["chance"])
        rows = [Row(**row) for row in saved["rows"]]
        done = "as it is" if len(rows) == stage.epochs else f"up to epoch {len(rows)}"
        print(f"{stage.name}: taken {done}", flush=True)
    for epoch in range(len(rows) + 1, stage.epochs + 1):
        start = time.monotonic()
        order = torch.randperm(len(labels), generator=generator)[: steps * stage.batch]
        batches = (
            (augment(pixels[chosen], generator), labels[chosen])
            for chosen in order.split(stage.batch)
        )
        row = _epoch(model, stage, batches, optimiser, scheduler, cols, exempt, masks or {})
        row = dataclasses.replace(
            row,
            epoch=epoch,
            validation=accuracy(model, *validation) if validation is not None else None,
            sparsity=sparsity(model),
            seconds=time.monotonic() - start,
        )
        if row.loss is None or not math.isfinite(row.loss):
            raise FloatingPointError(f"{stage.name}: the loss of epoch {epoch} is not finite")
        rows.append(row)
        if report is not None:
            report(row)
        if checkpoint is not None:
            checkpoint.save(
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "generator": generator.get_state(),
                    "chance": torch.get_rng_state(),
                    "rows": [dataclasses.asdict(row) for row in rows],
                }
            )
    return rows


def _epoch(
    model: nn.Module,
    stage: Stage,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    cols: int,
    exempt: frozenset[str],
    masks: Mapping[str, torch.Tensor],
) -> Row:
    """Take one step for each batch and give the means, epoch 0 in the row."""
    layers = weighted(model)
    regularised = [layer for name, layer in layers.items() if name not in exempt]
    groups = [layer.groups if isinstance(layer, nn.Conv2d) else 1 for layer in regularised]
    losses, penalties, right, seen, steps = 0.0, 0.0, 0, 0, 0
    model.train()
    for pixels, labels in batches:
        answers = model(_channels_last(pixels))
        loss = nn.functional.cross_entropy(answers, labels)
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
        # Momentum and decay move masked weights too: put them back to zero.
        with torch.no_grad():
            for name, mask in masks.items():
                layers[name].weight.mul_(mask)
        right += int((answers.argmax(1) == labels).sum())
        seen += len(labels)
        steps += 1
    return Row(
        stage=stage.name,
        epoch=0,
        loss=losses / steps,
        regulariser=penalties / steps if stage.strength else None,
        training=100 * right / seen,
    )
