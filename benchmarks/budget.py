# SPDX-License-Identifier: Apache-2.0
"""Targets for each layer under a budget, beside the same target for all of them.

    python benchmarks/budget.py [--networks fashion_mnist] [--of cycles] [--budgets 0.1,0.15]

For each budget, a share of what the dense network costs: what is reached, the error
‖after − before‖ / ‖before‖ of the logits on images that were not used to choose, and, where there
are labels, the accuracy. *Uniform*: all layers keep the largest same share that meets the budget;
*whole*: one price λ for all layers, as `csp prune --target` does; *automatic*: as
`csp prune --budget`. All choose chunks by norm times activations, in the same order of filters.
Nothing is trained.
"""

import argparse
import dataclasses
import gzip
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo import container, reorder
from csp_algo.cascade import Counts
from csp_algo.dequantise import dequantise
from csp_algo.errors import CspError
from csp_algo.prefix import counts_for_shares, price_for_sparsity
from csp_algo.prune import keep, kept, prunable, tap_moments
from csp_algo.quantize import FloatNetwork
from csp_algo.sensitivity import MEASURED, SHARES, interpolated, losses
from csp_hw.config import preset
from sim.costs import Of
from sim.demo import EXAMPLE
from sim.targets import Measured, measure
from sim.workloads import photo, resnet50

Images = npt.NDArray[np.integer]
Moments = Mapping[str, npt.NDArray[np.float64]]
Chosen = dict[str, Counts]

#: Debian's dataset-fashion-mnist: the 10,000 test images.
DATA = Path("/usr/share/datasets/fashion-mnist")
#: Samples to choose with and, behind them, images to compare on.
SAMPLES, COMPARED = 32, 500
#: Shares that are tried for a budget.
ROUNDS = 8


class Subject(NamedTuple):
    """A network, samples to choose with, images to compare on, their labels if there are any."""

    network: FloatNetwork
    samples: Images
    images: Images
    labels: Images | None
    preset: str


def nsfw() -> Subject:
    side = resnet50.SIDE
    samples, images = photo.photograph(side, photo.PHOTO), photo.photograph(side, photo.FLOWER)
    return Subject(resnet50.load(), samples, images, None, "csp_h_32x32")


def example(name: str) -> Callable[[], Subject]:
    def load() -> Subject:
        network = container.load(EXAMPLE.parent / name / "network.csp")
        samples = _idx("train-images-idx3-ubyte")[:SAMPLES, ..., None]
        images = _idx("t10k-images-idx3-ubyte")[:COMPARED, ..., None]
        labels = _idx("t10k-labels-idx1-ubyte")[:COMPARED]
        return Subject(dequantise(network), samples, images, labels, "csp_8x8")

    return load


def _idx(name: str) -> Images:
    """Read a file of the MNIST family: a type, extents as int32, bytes."""
    with gzip.open(DATA / f"{name}.gz") as file:
        data = file.read()
    sizes = np.frombuffer(data, dtype=">i4", count=data[3], offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


NETWORKS = {
    "nsfw": nsfw,
    "fashion_mnist": example("fashion_mnist"),
    "fashion_mnist_resnet8": example("fashion_mnist_resnet8"),
}


def uniform(network: FloatNetwork, found: Measured, moments: Moments, share: float) -> Chosen:
    """All layers keep the same share."""
    cols = found.skeleton.cols
    return {
        layer.name: counts_for_shares(layer.matrices, cols, [share], moments=moments[layer.name])[0]
        for layer in network.layers()
        if layer.name in found.ladders
    }


def whole(network: FloatNetwork, found: Measured, moments: Moments, share: float) -> Chosen:
    """One price for all, at a share of the weights that are not zero."""
    layers = [layer for layer in network.layers() if layer.name in found.ladders]
    matrices = [layer.matrices for layer in layers]
    zeros = 1 - sum(map(np.count_nonzero, matrices)) / sum(each.size for each in matrices)
    _, counts = price_for_sparsity(
        matrices,
        found.skeleton.cols,
        1 - share * (1 - zeros),
        moments=[moments[layer.name] for layer in layers],
        relative=True,
    )
    return dict(zip([layer.name for layer in layers], counts, strict=True))


def largest(
    way: Callable[[float], Chosen], found: Measured, budget: float
) -> tuple[Chosen, float] | None:
    """Give the counts of the largest share found that meets a budget, and their cost.

    False position, since costs are nearly linear in the share, and halving in turns.
    """
    whole_cost, best = sum(found.whole.values()), None
    low, high = 0.0, 1.0
    least, most = sum(found.fixed.values()) / whole_cost, given(found)
    for number in range(ROUNDS):
        guess = max(0.01, min(0.999, (budget - least) / (most - least)))
        share = low + (0.5 if number % 2 else guess) * (high - low)
        counts = way(share)
        cost = sum(found.costs_of(counts).values()) / whole_cost
        if cost <= budget:
            best, low, least = (counts, cost), share, cost
        else:
            high, most = share, cost
        if high - low < 1e-3 or 0 <= budget - cost < 1e-3:
            break
    return best


def given(found: Measured) -> float:
    """Give what the network costs before it is pruned, as a share of what the dense one does."""
    return sum(found.meter.nodes(found.skeleton).values()) / sum(found.whole.values())


def alone(network: FloatNetwork, found: Measured, moments: Moments, values: Moments) -> Measured:
    """Give what was measured with the errors of each layer's own map instead."""
    measured = [SHARES.index(share) for share in MEASURED]
    cols, errors = found.skeleton.cols, {}
    lost = losses(network, found.ladders, cols, moments=moments)
    for layer in network.layers():
        if layer.name in found.ladders:
            sources, expected = [values[name] for name in layer.sources], values[layer.name]
            errors[layer.name] = interpolated(
                np.array(
                    [
                        distance(
                            kept(layer, found.ladders[layer.name][level], cols).forward(*sources),
                            expected,
                        )
                        for level in measured
                    ]
                ),
                lost[layer.name],
            )
    return dataclasses.replace(found, errors=errors)


def distance(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def accuracy(logits: npt.NDArray[np.float64], labels: Images | None) -> str:
    if labels is None:
        return "–"
    return f"{np.mean(logits.reshape(len(labels), -1).argmax(axis=1) == labels):.1%}"


def table(name: str, of: Of, budgets: list[float]) -> None:
    subject = NETWORKS[name]()
    config = preset(subject.preset)
    network, names = subject.network, prunable(subject.network)
    moments = tap_moments(network, subject.samples)
    zeros = {layer.name: float(np.mean(layer.weights == 0)) for layer in network.layers()}
    orders = reorder.orders_for(
        network, {name: max(0.5, zeros[name]) for name in names}, config.cols, moments=moments
    )
    network = reorder.reorder_floats(network, orders)
    moments = reorder.reorder_moments(network, moments, orders)
    start = time.perf_counter()
    found = measure(network, names, subject.samples, of=of, config=config, moments=moments)
    took = time.perf_counter() - start
    print(f"{name}: measured in {took:.0f} s", file=sys.stderr)
    for layer in names:
        cells = [f"{each:.3f}" for each in found.errors[layer]]
        print(layer, found.whole[layer], *cells, file=sys.stderr)
    own = alone(network, found, moments, network.forward(subject.samples))
    logits = network.nodes[-1].name
    before = network.forward(subject.images)[logits]
    row(name, "as given", "", given(found), 0.0, accuracy(before, subject.labels))
    ways: dict[str, Callable[[float], tuple[Chosen, float] | None]] = {
        "uniform": lambda b: largest(lambda s: uniform(network, found, moments, s), found, b),
        "whole": lambda b: largest(lambda s: whole(network, found, moments, s), found, b),
        "automatic, own map": lambda b: priced(own, b),
        "automatic": lambda b: priced(found, b),
    }
    for budget in budgets:
        for way, choose in ways.items():
            try:
                chosen = choose(budget)
            except CspError as error:
                print(f"{name}, {way}, {budget:g}: {error}", file=sys.stderr)
                continue
            if chosen is not None:
                counts, cost = chosen
                after = keep(network, counts, config.cols).forward(subject.images)[logits]
                right = accuracy(after, subject.labels)
                row(name, way, f"{budget:.1%}", cost, distance(after, before), right)


def priced(found: Measured, budget: float) -> tuple[Chosen, float]:
    counts = found.counts(found.choose(budget))
    return counts, sum(found.costs_of(counts).values()) / sum(found.whole.values())


def row(name: str, way: str, budget: str, cost: float, error: float, right: str) -> None:
    cells = [name, budget, way, f"{cost:.2%}", f"{error:.3f}", right]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--of", default="cycles", choices=list(Of), type=Of)
    parser.add_argument("--budgets", default="0.5,0.3")
    arguments = parser.parse_args()
    names = arguments.networks.split(",")
    if strangers := set(names) - NETWORKS.keys():
        parser.error(f"no network {min(strangers)!r}; there are {', '.join(NETWORKS)}")
    headings = ["network", "budget", "targets", f"{arguments.of} reached", "error", "accuracy"]
    print("| " + " | ".join(headings) + " |")
    print("|" + " --- |" * len(headings))
    for name in names:
        table(name, arguments.of, [float(each) for each in arguments.budgets.split(",")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
