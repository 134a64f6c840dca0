# SPDX-License-Identifier: Apache-2.0
"""The way from an untrained network to a file of integers, which all networks share.

Dense training, training with λ·R, pruning, fine-tuning under masks, quantisation. A network's own
script gives a :class:`Recipe` and its command line is :func:`main`.
"""

import argparse
import copy
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Network
from csp_algo.quantize import FloatNetwork, quantise, safe_shifts
from csp_algo.train import data, pruner, schedule
from csp_algo.train.checkpoint import Checkpoint
from csp_algo.train.evaluate import integer_accuracy
from csp_algo.train.export import to_float_network

#: Images at the end of the training set that are held back: λ and the targets are judged by them.
VALIDATION = 5000
#: Training images, the first ones, from which activation scales are taken.
CALIBRATION = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the result, on one machine.

    Attributes
    ----------
    targets : share of zeros for each pruned layer; layers without one are exempt
    seed : int
    cols, period : int
        Filters of a chunk and T.
    strength : float
        λ of the regularised stage.
    epochs : of the dense, the regularised and the fine-tuning stage
    validation : int
        Images at the end of the training set that are not trained on.
    threads : int
        The order of sums, and so the last bits of the weights, depend on it.
    """

    targets: dict[str, float]
    seed: int = 1
    cols: int = 8
    period: int = 16
    strength: float = 5e-4
    epochs: tuple[int, int, int] = (10, 5, 5)
    validation: int = VALIDATION
    threads: int = 1

    def stages(self) -> tuple[schedule.Stage, schedule.Stage, schedule.Stage]:
        """Give the three stages; each has its own seed."""
        dense, regularised, fine = self.epochs
        return (
            schedule.Stage(name="dense", epochs=dense, rate=0.05, seed=self.seed),
            schedule.Stage(
                name="regularised",
                epochs=regularised,
                rate=0.02,
                strength=self.strength,
                seed=self.seed + 1000,
            ),
            schedule.Stage(name="fine", epochs=fine, rate=0.02, seed=self.seed + 2000),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """What a network's own script says of it.

    Attributes
    ----------
    name : str
        Of the network, and of its script in ``csp_algo.train``.
    build : function
        Gives the untrained model: input float[N, 1, 28, 28] in 0 … 1, output float[N, 10].
    plan : Plan
        What the command line starts from.
    samples : int
        How many test images, the first ones, are kept beside the network; 0 for no such file.
    """

    name: str
    build: Callable[[], nn.Sequential]
    plan: Plan
    samples: int = 0

    @property
    def command(self) -> str:
        """The command line without its options."""
        return f"python -m {__package__}.{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What a run gives.

    Attributes
    ----------
    network : Network
    log : list of Row
    """

    network: Network
    log: list[schedule.Row]


def show(row: schedule.Row) -> None:
    """Print a row of the log as one line of progress."""
    filled = {name: value for name, value in dataclasses.asdict(row).items() if value is not None}
    words = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in filled.items()
    )
    print("  ".join(words), flush=True)


def run(
    recipe: Recipe,
    plan: Plan,
    training: data.Images,
    test: data.Images,
    *,
    work: Path | None = None,
) -> Result:
    """Do the whole flow.

    Parameters
    ----------
    recipe : Recipe
        Its plan does not matter here.
    plan : Plan
    training, test : Images of 28×28 pixels
    work : Path, optional
        Directory for the state after each epoch; a later run with the same plan starts from it.
    """
    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(plan.seed)
    model = recipe.build()
    split = len(training) - plan.validation
    if split < 1:
        raise CspError(f"{plan.validation} of {len(training)} images leave none to train on")
    learnt, held = data.to_tensor(training[:split]), data.to_tensor(training[split:])
    exempt = frozenset(schedule.weighted(model)) - frozenset(plan.targets)
    stages = plan.stages()
    log: list[schedule.Row] = []
    masks: dict[str, torch.Tensor] = {}
    # What a stage's saved state depends on grows from stage to stage.
    settings: dict[str, object] = {
        "network": recipe.name,
        "seed": plan.seed,
        "cols": plan.cols,
        "validation": plan.validation,
        "stages": [],
    }

    def note(row: schedule.Row) -> None:
        show(row)
        log.append(row)

    def stage(index: int) -> None:
        settings["stages"] = [dataclasses.asdict(done) for done in stages[: index + 1]]
        chosen = stages[index]
        checkpoint = None
        if work is not None:
            checkpoint = Checkpoint(path=work / f"{chosen.name}.pt", settings=dict(settings))
        rows = schedule.train(
            model,
            chosen,
            *learnt,
            cols=plan.cols,
            exempt=exempt,
            masks=masks,
            validation=held,
            report=show,
            checkpoint=checkpoint,
        )
        log.extend(rows)

    stage(0)
    dense = copy.deepcopy(model)
    stage(1)
    settings["targets"] = plan.targets
    for name, layer in pruner.prune(model, plan.targets, plan.cols).items():
        masks[name] = layer.mask
        print(f"{name}: q {layer.q:.4f}  sparsity {100 * layer.sparsity:.2f}", flush=True)
    note(
        schedule.Row(
            stage="pruned",
            epoch=0,
            validation=schedule.accuracy(model, *held),
            sparsity=schedule.sparsity(model),
        )
    )
    stage(2)
    network = quantised(recipe, plan, model, training[:CALIBRATION])
    share = zeros(network)
    held_accuracy = integer_accuracy(
        network, training.pixels[split:, ..., None], training.labels[split:]
    )
    note(schedule.Row(stage="int8", epoch=0, validation=held_accuracy, sparsity=share))
    # Test accuracies are for the log, at the very end: nothing is chosen by them.
    unseen = data.to_tensor(test)
    for name, tested in (("dense", dense), ("fine", model)):
        right, zero = schedule.accuracy(tested, *unseen), schedule.sparsity(tested)
        note(schedule.Row(stage=name, epoch=0, test=right, sparsity=zero))
    right = integer_accuracy(network, test.pixels[..., None], test.labels)
    note(schedule.Row(stage="int8", epoch=0, test=right, sparsity=share))
    return Result(network=network, log=log)


def zeros(network: Network) -> float:
    """Give the share of zeros in the weights of an integer network, in percent."""
    weights = [layer.weights() for layer in network.layers()]
    zero = sum(int((matrices == 0).sum()) for matrices in weights)
    return 100 * zero / sum(matrices.size for matrices in weights)


def float_network(recipe: Recipe, model: nn.Sequential) -> FloatNetwork:
    """Give the trained model as a float network of uint8 pixels with scale 1/255."""
    source = Input(name="image", shape=(28, 28, 1), dtype=ActDtype.UINT8, scale=1 / 255)
    return to_float_network(model, source, name=recipe.name)


def quantised(
    recipe: Recipe, plan: Plan, model: nn.Sequential, calibration: data.Images
) -> Network:
    """Give the integer network, in chunks and blocks of the plan."""
    return quantise(
        float_network(recipe, model),
        calibration.pixels[..., None],
        cols=plan.cols,
        period=plan.period,
        metadata={
            "dataset": "Fashion-MNIST, (c) 2017 Zalando SE, Expat licence",
            "trained_by": recipe.command,
            "plan": json.dumps(dataclasses.asdict(plan), sort_keys=True),
        },
    )


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe's command line; the result is the exit status."""
    usual = recipe.plan
    parser = argparse.ArgumentParser(prog=recipe.command)
    parser.add_argument("--data", type=Path, default=data.FASHION_MNIST_DIRECTORY)
    parser.add_argument("--out", type=Path, required=True, help="network.csp and its companions")
    parser.add_argument("--work", type=Path, help="keeps the state after each epoch, to go on from")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--cols", type=int, default=usual.cols)
    parser.add_argument("--period", type=int, default=usual.period)
    parser.add_argument("--strength", type=float, default=usual.strength, help="λ")
    parser.add_argument("--epochs", type=int, nargs=3, default=usual.epochs, metavar="N")
    parser.add_argument(
        "--validation", type=int, default=usual.validation, help="images that are not trained on"
    )
    parser.add_argument("--threads", type=int, default=usual.threads)
    parser.add_argument(
        "--target",
        action="append",
        metavar="LAYER=SHARE",
        help="share of zeros of a layer; layers without one are exempt (default: the plan's)",
    )
    chosen = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        plan = Plan(
            seed=chosen.seed,
            cols=chosen.cols,
            period=chosen.period,
            strength=chosen.strength,
            epochs=tuple(chosen.epochs),
            targets=dict(usual.targets) if chosen.target is None else _targets(chosen.target),
            validation=chosen.validation,
            threads=chosen.threads,
        )
        test = data.read_images(chosen.data, "t10k")
        training = data.read_images(chosen.data, "train")
        result = run(recipe, plan, training, test, work=chosen.work)
        chosen.out.mkdir(parents=True, exist_ok=True)
        container.save(result.network, chosen.out / "network.csp")
        schedule.write_log(result.log, chosen.out / "training.csv")
        if recipe.samples:
            save_samples(test[: recipe.samples], chosen.out / "images.npz")
    except CspError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"safe run shifts at 24 bits: {safe_shifts(result.network, 24)}")
    print(f"{chosen.out}: written after {time.monotonic() - start:.0f} s")
    return 0


def _targets(items: list[str]) -> dict[str, float]:
    targets = {}
    for item in items:
        name, _, share = item.partition("=")
        try:
            targets[name] = float(share)
        except ValueError:
            raise CspError(f"--target {item!r} is not LAYER=SHARE") from None
    return targets


def save_samples(images: data.Images, path: Path) -> None:
    """Write images uint8[N, 28, 28, 1] and labels uint8[N], compressed."""
    np.savez_compressed(path, images=images.pixels[..., None], labels=images.labels)
