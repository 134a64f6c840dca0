# SPDX-License-Identifier: Apache-2.0
"""What pruning keeps: rules and orders of filters beside each other, on real weights.

    python benchmarks/pruning.py [--networks nsfw] [--targets 0.5,0.8]

For each target sparsity, order and rule: the share of the L1 and L2 norm of the pruned layers'
weights that is kept, and how far the outputs are from those of the network before, on real images:
‖after − before‖ / ‖before‖ of each pruned layer alone, which reads what it did before (the mean of
these layers), and of the logits of the whole. Nothing is trained. Rules marked ·a weigh taps with
the squares of the activations that they meet, on images other than those of the comparison.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo import container, reorder
from csp_algo.dequantise import dequantise
from csp_algo.prefix import kept_norm
from csp_algo.prune import Rule, prunable, prune, prune_whole, tap_moments
from csp_algo.quantize import FloatNetwork
from sim.demo import EXAMPLE
from sim.workloads import photo, resnet50

Images = npt.NDArray[np.integer]
Moments = Mapping[str, npt.NDArray[np.float64]]

#: Orders of the filters: as they are, sorted by norm, and then exchanged between chunks.
ORDERS = ("as trained", "sorted", "exchanged", "exchanged·a")
#: Rules, and whether taps are weighed.
RULES = (*((rule, False) for rule in Rule), (Rule.PREFIX, True), (Rule.WHOLE, True))


class Subject(NamedTuple):
    """A network, images for the moments, images for the comparison, columns of the array."""

    network: FloatNetwork
    samples: Images
    images: Images
    cols: int


def nsfw() -> Subject:
    side = resnet50.SIDE
    samples, images = photo.photograph(side, photo.PHOTO), photo.photograph(side, photo.FLOWER)
    return Subject(resnet50.load(), samples, images, 32)


def example(name: str) -> Callable[[], Subject]:
    def load() -> Subject:
        network = container.load(EXAMPLE.parent / name / "network.csp")
        with np.load(EXAMPLE / "images.npz") as file:
            samples, images = np.split(file["images"], 2)
        return Subject(dequantise(network), samples, images, network.cols)

    return load


NETWORKS = {
    "nsfw": nsfw,
    "fashion_mnist": example("fashion_mnist"),
    "fashion_mnist_resnet8": example("fashion_mnist_resnet8"),
}


def orders(
    network: FloatNetwork, order: str, target: float, cols: int, moments: Moments
) -> reorder.Orders:
    targets = {} if order == ORDERS[0] else dict.fromkeys(prunable(network), target)
    return reorder.orders_for(
        network,
        targets,
        cols,
        refine=order != ORDERS[1],
        moments=moments if order == ORDERS[3] else None,
    )


def pruned(
    network: FloatNetwork, rule: Rule, target: float, cols: int, moments: Moments | None
) -> FloatNetwork:
    names = prunable(network)
    if rule is Rule.WHOLE:
        return prune_whole(network, names, target, cols, moments=moments)
    return prune(network, dict.fromkeys(names, target), cols, rule=rule, moments=moments)


def norms(before: FloatNetwork, after: FloatNetwork) -> tuple[float, float, float]:
    """Give the share of zeros, of the L1 and of the L2 norm of the pruned layers."""
    names = prunable(before)
    full, kept = (
        np.concatenate([layer.weights.ravel() for layer in net.layers() if layer.name in names])
        for net in (before, after)
    )
    zeros = 1 - np.count_nonzero(kept) / kept.size
    return zeros, kept_norm(full, kept, 1), kept_norm(full, kept, 2)


def distance(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def alone(after: FloatNetwork, dense: Moments) -> float:
    """Give the mean of the pruned layers' errors, each given what the network before gives it."""
    names = prunable(after)
    layers = [layer for layer in after.layers() if layer.name in names]
    errors = [
        distance(layer.forward(*(dense[name] for name in layer.sources)), dense[layer.name])
        for layer in layers
    ]
    return float(np.mean(errors))


def table(name: str, targets: list[float]) -> None:
    network, samples, images, cols = NETWORKS[name]()
    logits = network.nodes[-1].name
    moments = tap_moments(network, samples)
    for target in targets:
        for order in ORDERS:
            start = time.perf_counter()
            chosen = orders(network, order, target, cols, moments)
            took = time.perf_counter() - start
            moved = reorder.reorder_floats(network, chosen)
            weights = reorder.reorder_moments(network, moments, chosen)
            dense = moved.forward(images)
            for rule, weighed in RULES:
                after = pruned(moved, rule, target, cols, weights if weighed else None)
                shares = [f"{share:.2%}" for share in norms(moved, after)]
                found = after.forward(images)[logits]
                errors = [alone(after, dense), distance(found, dense[logits])]
                cells = [name, f"{target:.0%}", order, rule + ("·a" if weighed else ""), *shares]
                cells += [f"{error:.3f}" for error in errors]
                print("| " + " | ".join([*cells, f"{took:.1f}"]) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--targets", default="0.5,0.8")
    arguments = parser.parse_args()
    names = arguments.networks.split(",")
    if strangers := set(names) - NETWORKS.keys():
        parser.error(f"no network {min(strangers)!r}; there are {', '.join(NETWORKS)}")
    headings = ["network", "target", "order", "rule", "sparsity", "L1 kept", "L2 kept"]
    headings += ["layers alone", "logits", "ordering, s"]
    print("| " + " | ".join(headings) + " |")
    print("|" + " --- |" * len(headings))
    for name in names:
        table(name, [float(each) for each in arguments.targets.split(",")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
