# SPDX-License-Identifier: Apache-2.0
"""What pruning keeps: rules and orders of filters beside each other, on real weights.

    python benchmarks/pruning.py [--networks nsfw] [--targets 0.5,0.8] [--no-outputs]

For each target sparsity, order and rule: the share of the L1 and L2 norm of the pruned layers'
weights that is kept, and how far the outputs are from those of the network before, on real images:
‖after − before‖ / ‖before‖ of each pruned layer alone, which reads what it did before (the mean of
these layers), and of the logits of the whole. Nothing is trained.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from csp_algo import container, reorder
from csp_algo.dequantise import dequantise
from csp_algo.errors import CspError
from csp_algo.prefix import kept_norm
from csp_algo.prune import Rule, prunable, prune, prune_whole
from csp_algo.quantize import FloatNetwork
from sim.demo import EXAMPLE
from sim.workloads import photo, resnet50

Images = npt.NDArray[np.integer]

#: Orders of the filters: as they are, sorted by norm, and then exchanged between chunks.
ORDERS = ("as trained", "sorted", "exchanged")


def nsfw() -> tuple[FloatNetwork, Images, int]:
    pictures = [photo.photograph(resnet50.SIDE, file) for file in (photo.PHOTO, photo.FLOWER)]
    return resnet50.load(), np.concatenate(pictures), 32


def example(name: str) -> Callable[[], tuple[FloatNetwork, Images, int]]:
    def load() -> tuple[FloatNetwork, Images, int]:
        network = container.load(EXAMPLE.parent / name / "network.csp")
        with np.load(EXAMPLE / "images.npz") as file:
            return dequantise(network), file["images"], network.cols

    return load


NETWORKS = {
    "nsfw": nsfw,
    "fashion_mnist": example("fashion_mnist"),
    "fashion_mnist_resnet8": example("fashion_mnist_resnet8"),
}


def ordered(network: FloatNetwork, order: str, target: float, cols: int) -> FloatNetwork:
    if order == ORDERS[0]:
        return network
    targets = dict.fromkeys(prunable(network), target)
    orders = reorder.orders_for(network, targets, cols, refine=order == ORDERS[2])
    return reorder.reorder_floats(network, orders)


def pruned(network: FloatNetwork, rule: Rule, target: float, cols: int) -> FloatNetwork:
    names = prunable(network)
    if rule is Rule.WHOLE:
        return prune_whole(network, names, target, cols)
    return prune(network, dict.fromkeys(names, target), cols, rule=rule)


def norms(before: FloatNetwork, after: FloatNetwork) -> tuple[float, float, float]:
    """Give the share of zeros, of the L1 and of the L2 norm of the pruned layers."""
    names = prunable(before)
    full, kept = (
        np.concatenate([layer.weights.ravel() for layer in net.layers() if layer.name in names])
        for net in (before, after)
    )
    return (
        1 - np.count_nonzero(kept) / kept.size,
        kept_norm(full, kept, 1),
        kept_norm(full, kept, 2),
    )


def distance(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def table(name: str, targets: list[float], *, outputs: bool) -> None:
    network, images, cols = NETWORKS[name]()
    logits = network.nodes[-1].name
    for target in targets:
        for order in ORDERS:
            start = time.perf_counter()
            moved = ordered(network, order, target, cols)
            took = time.perf_counter() - start
            dense = moved.forward(images) if outputs else {}
            for rule in Rule:
                try:
                    after = pruned(moved, rule, target, cols)
                except CspError as error:
                    print(f"| {name} | {order} | {rule} | {error} |", flush=True)
                    continue
                share, first, second = norms(moved, after)
                cells = [name, f"{target:.0%}", order, rule, f"{share:.2%}"]
                cells += [f"{first:.2%}", f"{second:.2%}"]
                if outputs:
                    cells.append(f"{alone(after, dense):.3f}")
                    cells.append(f"{distance(after.forward(images)[logits], dense[logits]):.3f}")
                print("| " + " | ".join(cells) + f" | {took:.1f} |", flush=True)


def alone(after: FloatNetwork, dense: Mapping[str, npt.NDArray[np.float64]]) -> float:
    """Give the mean of the pruned layers' errors, each given what the network before gives it."""
    names = prunable(after)
    layers = [layer for layer in after.layers() if layer.name in names]
    errors = [
        distance(layer.forward(*(dense[name] for name in layer.sources)), dense[layer.name])
        for layer in layers
    ]
    return float(np.mean(errors))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--targets", default="0.5,0.8")
    parser.add_argument("--no-outputs", action="store_true", help="norms only: seconds")
    arguments = parser.parse_args()
    headings = ["network", "target", "order", "rule", "sparsity", "L1 kept", "L2 kept"]
    headings += [] if arguments.no_outputs else ["layers alone", "logits"]
    print("| " + " | ".join([*headings, "ordering, s"]) + " |")
    print("|" + " --- |" * (len(headings) + 1))
    for name in arguments.networks.split(","):
        table(
            name,
            [float(each) for each in arguments.targets.split(",")],
            outputs=not arguments.no_outputs,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
