# SPDX-License-Identifier: Apache-2.0
"""Training stages: dense, regularised, fine-tuning under masks, quantisation-aware fine-tuning.

Every stage draws its chances from its own seed, so a run that starts from a saved stage gives the
same weights as one that goes all the way (on one machine, with one number of threads).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from csp_algo.errors import CspError
from csp_algo.train import tables
from csp_algo.train.checkpoint import Checkpoint
from csp_algo.train.data import augment
from csp_algo.train.distributed import Group, synchronise
from csp_algo.train.layers import prunable
from csp_algo.train.progress import steps_shown
from csp_algo.train.regulariser import Penalty, cascade_regulariser, model_regulariser


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """How one stage trains.

    Attributes
    ----------
    epochs : int
    rate : float
        Peak learning rate; it rises linearly over a quarter of the steps and falls to zero.
    strength : float
        λ, the weight of the penalty in the loss; 0 leaves it out.
    bfloat16 : bool
        Layers compute in bfloat16, from weights, and with steps, in float32.
    shift : int
        Images are shifted by up to so many pixels each way.
    seed : int
    """

    name: str
    epochs: int
    rate: float
    strength: float = 0.0
    batch: int = 64
    momentum: float = 0.9
    decay: float = 5e-4
    bfloat16: bool = False
    shift: int = 2
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
    decimals = {"loss": 4, "seconds": 0}
    cells = [
        [
            f"{value:.{decimals.get(name, 2)}f}" if isinstance(value, float) else value
            for name, value in dataclasses.asdict(row).items()
        ]
        for row in rows
    ]
    tables.write([field.name for field in dataclasses.fields(Row)], cells, path)


def sparsity(model: nn.Module) -> float:
    """Give the share of zeros in the weights that can be pruned, in percent."""
    weights = [layer.weight for layer in prunable(model).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return 100 * zeros / sum(weight.numel() for weight in weights)


@torch.inference_mode()
def accuracy(
    model: nn.Module,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    batch: int = 500,
    group: Group | None = None,
) -> float:
    """Give the share of right answers in evaluation mode, in percent.

    With a group, each process looks at its part of the images.
    """
    group = group or Group()
    model.eval()
    right = 0
    mine, wanted = group.part(pixels), group.part(labels)
    for part in range(0, len(wanted), batch):
        answers = model(_channels_last(mine[part : part + batch])).argmax(1)
        right += int((answers == wanted[part : part + batch]).sum())
    return 100 * group.total(right)[0] / len(labels)


def _channels_last(pixels: torch.Tensor) -> torch.Tensor:
    # Twice as fast on CPUs as the default layout for these small maps.
    return pixels.contiguous(memory_format=torch.channels_last)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """What λ multiplies.

    Attributes
    ----------
    penalty : Penalty
    cols : int
        Filters of a chunk.
    exempt : names of layers that it leaves alone
    """

    penalty: Penalty = cascade_regulariser
    cols: int
    exempt: frozenset[str] = frozenset()

    def of(self, model: nn.Module) -> torch.Tensor:
        """Give the sum over the layers of a model."""
        layers = prunable(model).items()
        pulled = [layer for name, layer in layers if name not in self.exempt]
        return model_regulariser(pulled, self.cols, self.penalty)


def train(
    model: nn.Module,
    stage: Stage,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    pull: Pull | None = None,
    measure: Callable[[nn.Module], float] = sparsity,
    validation: tuple[torch.Tensor, torch.Tensor] | None = None,
    report: Callable[[Row], None] | None = None,
    checkpoint: Checkpoint | None = None,
    group: Group | None = None,
) -> list[Row]:
    """Train in place with cross entropy, plus λ times a penalty where the stage asks for it.

    Parameters
    ----------
    pixels, labels : float[N, 1, H, W], int64[N]
    pull : what λ multiplies; needed if the stage has a λ
    measure : gives the sparsity of a model in percent, for the log
    validation : evaluated after every epoch if given
    report : called with each new epoch's row, in the first process of a group
    checkpoint : keeps the state after every epoch; what it already holds is not done again
    group : processes that train together; one if not given

    Raises
    ------
    CspError
        There is a λ and nothing that it multiplies, or a batch cannot be shared evenly.
    FloatingPointError
        The loss is not finite.
    """
    group = group or Group()
    group.check_batch(min(stage.batch, len(labels)))
    if stage.strength and pull is None:
        raise CspError(f"{stage.name}: λ is {stage.strength:g}, but there is no penalty")
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
    # Nobody may write what another has not read yet.
    group.wait()
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        scheduler.load_state_dict(saved["scheduler"])
        generator.set_state(saved["generator"])
        torch.set_rng_state(saved["chance"])
        rows = [Row(**row) for row in saved["rows"]]
        done = "as it is" if len(rows) == stage.epochs else f"up to epoch {len(rows)}"
        if group.first:
            print(f"{stage.name}: taken {done}", flush=True)
    synchronise(model, group)
    trained = group.wrap(model)
    for epoch in range(len(rows) + 1, stage.epochs + 1):
        start = time.monotonic()
        order = torch.randperm(len(labels), generator=generator)[: steps * stage.batch]
        # Every process draws for the whole batch, so that all have the same generator.
        batches = (
            (
                group.part(augment(pixels[chosen], generator, shift=stage.shift)),
                group.part(labels[chosen]),
            )
            for chosen in order.split(stage.batch)
        )
        title = f"{stage.name} {epoch}/{stage.epochs}"
        shown = steps_shown(batches, steps, title) if group.first else batches
        row = _epoch(model, trained, stage, shown, optimiser, scheduler, pull, group)
        row = dataclasses.replace(
            row,
            epoch=epoch,
            validation=None if validation is None else accuracy(model, *validation, group=group),
            sparsity=measure(model),
            seconds=time.monotonic() - start,
        )
        if row.loss is None or not math.isfinite(row.loss):
            raise FloatingPointError(f"{stage.name}: the loss of epoch {epoch} is not finite")
        rows.append(row)
        if report is not None and group.first:
            report(row)
        if checkpoint is not None and group.first:
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
    trained: nn.Module,
    stage: Stage,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    pull: Pull | None,
    group: Group,
) -> Row:
    """Take one step for each batch and give the means, epoch 0 in the row."""
    losses, penalties, right, seen, steps = 0.0, 0.0, 0, 0, 0
    model.train()
    for pixels, labels in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=stage.bfloat16):
            answers = trained(_channels_last(pixels)).float()
        loss = nn.functional.cross_entropy(answers, labels)
        losses += float(loss.detach())
        if stage.strength and pull is not None:
            penalty = pull.of(model)
            penalties += float(penalty.detach())
            loss = loss + stage.strength * penalty
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        scheduler.step()
        right += int((answers.argmax(1) == labels).sum())
        seen += len(labels)
        steps += 1
    losses, correct, all_seen = group.total(losses, right, seen)
    return Row(
        stage=stage.name,
        epoch=0,
        loss=losses / (steps * group.size),
        regulariser=penalties / steps if stage.strength else None,
        training=100 * correct / all_seen,
    )
