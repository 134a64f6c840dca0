# SPDX-License-Identifier: Apache-2.0
"""Train, prune, quantise and save the project's Fashion-MNIST network.

``python -m csp_algo.train.fashion_mnist --out examples/fashion_mnist`` does the whole flow: dense
training, training with λ·R, pruning, fine-tuning under masks, quantisation.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections import OrderedDict
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
from csp_algo.train.evaluate import integer_accuracy
from csp_algo.train.export import to_float_network

#: Share of zeros for each pruned layer. The thin first convolution and the last layer are exempt.
TARGETS = {"conv2": 0.45, "conv3": 0.6, "conv4": 0.7, "conv5": 0.8, "linear6": 0.86}
#: Images at the end of the training set that are held back: λ and the targets are judged by them.
VALIDATION = 5000
#: Training images, the first ones, from which activation scales are taken.
CALIBRATION = 256
#: Test images that are kept beside the network, the first ones.
SAMPLES = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the result, on one machine.

    Attributes
    ----------
    seed : int
    cols, period : int
        Filters of a chunk and T.
    strength : float
        λ of the regularised stage.
    epochs : of the dense, the regularised and the fine-tuning stage
    targets : share of zeros for each pruned layer
    validation : int
        Images at the end of the training set that are not trained on.
    threads : int
        The order of sums, and so the last bits of the weights, depend on it.
    """

    seed: int = 1
    cols: int = 8
    period: int = 16
    strength: float = 5e-4
    epochs: tuple[int, int, int] = (10, 5, 5)
    targets: dict[str, float] = dataclasses.field(default_factory=lambda: dict(TARGETS))
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


def build_model() -> nn.Sequential:
    """Give the untrained network: five 3×3 convolutions, three pools, two linear layers.

    201,568 weights of convolutions and linear layers, 8 million multiply-accumulates an image.
    Input float[N, 1, 28, 28] in 0 … 1, output float[N, 10].
    """
    parts: list[tuple[str, nn.Module]] = []

    def convolution(index: int, inputs: int, filters: int) -> None:
        conv = nn.Conv2d(inputs, filters, 3, padding=1, bias=False)
        parts.append((f"conv{index}", conv))
        parts.append((f"norm{index}", nn.BatchNorm2d(filters)))
        parts.append((f"relu{index}", nn.ReLU(inplace=True)))

    convolution(1, 1, 16)
    parts.append(("pool1", nn.MaxPool2d(2)))  # 28 → 14
    convolution(2, 16, 32)
    convolution(3, 32, 32)
    convolution(4, 32, 64)
    parts.append(("pool4", nn.MaxPool2d(2)))  # 14 → 7
    convolution(5, 64, 64)
    parts.append(("pool5", nn.MaxPool2d(2, ceil_mode=True)))  # 7 → 4
    parts.append(("flatten", nn.Flatten()))
    parts.append(("linear6", nn.Linear(4 * 4 * 64, 128, bias=False)))
    parts.append(("norm6", nn.BatchNorm1d(128)))
    parts.append(("relu6", nn.ReLU(inplace=True)))
    parts.append(("linear7", nn.Linear(128, 10)))
    return nn.Sequential(OrderedDict(parts)).to(memory_format=torch.channels_last)


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


def run_stage(
    model: nn.Module,
    settings: dict[str, object],
    path: Path | None,
    work: Callable[[], list[schedule.Row]],
) -> list[schedule.Row]:
    """Run a stage, or take it from ``path`` if that holds one made with the same settings."""
    key = json.dumps(settings, sort_keys=True)
    if path is not None and path.exists():
        saved = torch.load(path, weights_only=True)
        if saved["settings"] == key:
            model.load_state_dict(saved["state"])
            print(f"{path}: taken as it is", flush=True)
            return [schedule.Row(**row) for row in saved["rows"]]
    rows = work()
    if path is not None:
        state = {
            "settings": key,
            "state": model.state_dict(),
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
    return rows


def show(row: schedule.Row) -> None:
    """Print a row of the log as one line of progress."""
    filled = {name: value for name, value in dataclasses.asdict(row).items() if value is not None}
    words = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in filled.items()
    )
    print("  ".join(words), flush=True)


def run(
    plan: Plan,
    training: data.Images,
    test: data.Images,
    *,
    work: Path | None = None,
) -> Result:
    """Do the whole flow.

    Parameters
    ----------
    training, test : Images of 28×28 pixels
    work : Path, optional
        Directory for the state after each stage; a later run with the same plan starts from it.
    """
    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(plan.seed)
    model = build_model()
    split = len(training) - plan.validation
    if split < 1:
        raise CspError(f"{plan.validation} of {len(training)} images leave none to train on")
    learnt, held = data.to_tensor(training[:split]), data.to_tensor(training[split:])
    unseen = data.to_tensor(test)
    exempt = frozenset(schedule.weighted(model)) - frozenset(plan.targets)
    stages = plan.stages()
    log: list[schedule.Row] = []
    tests: list[schedule.Row] = []
    masks: dict[str, torch.Tensor] = {}
    # What a stage's saved state depends on grows from stage to stage.
    settings: dict[str, object] = {
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
        path = None if work is None else work / f"{chosen.name}.pt"

        def train() -> list[schedule.Row]:
            return schedule.train(
                model,
                chosen,
                *learnt,
                cols=plan.cols,
                exempt=exempt,
                masks=masks,
                validation=held,
                report=show,
            )

        log.extend(run_stage(model, dict(settings), path, train))

    def tested(name: str) -> None:
        tests.append(
            schedule.Row(
                stage=name,
                epoch=0,
                test=schedule.accuracy(model, *unseen),
                sparsity=schedule.sparsity(model),
            )
        )

    stage(0)
    tested("dense")
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
    tested("fine")
    network = quantised(model, training[:CALIBRATION], plan)
    zeros = sum(int((layer.weights() == 0).sum()) for layer in network.layers())
    share = 100 * zeros / sum(layer.weights().size for layer in network.layers())
    note(
        schedule.Row(
            stage="int8",
            epoch=0,
            validation=integer_accuracy(
                network, training.pixels[split:, ..., None], training.labels[split:]
            ),
            sparsity=share,
        )
    )
    # Test accuracies are for the log: nothing is chosen by them.
    tests.append(
        schedule.Row(
            stage="int8",
            epoch=0,
            test=integer_accuracy(network, test.pixels[..., None], test.labels),
            sparsity=share,
        )
    )
    for row in tests:
        note(row)
    return Result(network=network, log=log)


def float_network(model: nn.Sequential) -> FloatNetwork:
    """Give the trained model as a float network of uint8 pixels with scale 1/255."""
    source = Input(name="image", shape=(28, 28, 1), dtype=ActDtype.UINT8, scale=1 / 255)
    return to_float_network(model, source, name="fashion_mnist")


def quantised(model: nn.Sequential, calibration: data.Images, plan: Plan) -> Network:
    """Give the integer network, in chunks and blocks of the plan."""
    return quantise(
        float_network(model),
        calibration.pixels[..., None],
        cols=plan.cols,
        period=plan.period,
        metadata={
            "dataset": "Fashion-MNIST, (c) 2017 Zalando SE, Expat licence",
            "trained_by": "python -m csp_algo.train.fashion_mnist",
            "plan": json.dumps(dataclasses.asdict(plan), sort_keys=True),
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m csp_algo.train.fashion_mnist")
    parser.add_argument("--data", type=Path, default=data.FASHION_MNIST_DIRECTORY)
    parser.add_argument("--out", type=Path, required=True, help="network.csp and its companions")
    parser.add_argument("--work", type=Path, help="keeps the state after each stage, to go on from")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--cols", type=int, default=Plan.cols)
    parser.add_argument("--period", type=int, default=Plan.period)
    parser.add_argument("--strength", type=float, default=Plan.strength, help="λ")
    parser.add_argument("--epochs", type=int, nargs=3, default=Plan.epochs, metavar="N")
    parser.add_argument(
        "--validation", type=int, default=Plan.validation, help="images that are not trained on"
    )
    parser.add_argument("--threads", type=int, default=Plan.threads)
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
            targets=dict(TARGETS) if chosen.target is None else _targets(chosen.target),
            validation=chosen.validation,
            threads=chosen.threads,
        )
        test = data.read_images(chosen.data, "t10k")
        result = run(plan, data.read_images(chosen.data, "train"), test, work=chosen.work)
        chosen.out.mkdir(parents=True, exist_ok=True)
        container.save(result.network, chosen.out / "network.csp")
        schedule.write_log(result.log, chosen.out / "training.csv")
        save_samples(test[:SAMPLES], chosen.out / "images.npz")
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


if __name__ == "__main__":
    sys.exit(main())
