# SPDX-License-Identifier: Apache-2.0
"""Bits for each weight that is not zero: CSP's format beside others, on the same int8 weights.

    python benchmarks/compression.py [--sparsity 0.8]

Each format is packed to the bit and holds the same values, 8 bits each. CSP: counts of 8 bits a tap
and words of `cols` weights, zeros among them stored. CSR: for each weight its tap, ⌈log₂ J⌉ bits,
and for each filter where it begins. Bit mask: a bit for every weight. Run length: the zeros before
each weight, in the number of bits (2 … 8) that is best for the layer; longer runs take weights
of 0. Networks of packages are pruned without training (rule `prefix`, filters re-ordered); those in
examples/ are as they are.
"""

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from csp_algo import container, reorder
from csp_algo.compress import CompressedMatrix, compress
from csp_algo.errors import CspError
from csp_algo.prune import Rule, prunable, prune
from csp_algo.quantize import FloatNetwork, quantise_weights
from sim.demo import EXAMPLE
from sim.workloads import resnet50, vgg16

#: Columns and period of the networks of packages: those of csp_h_32x32.
COLS, PERIOD = 32, 32
VALUE_BITS = 8
RUN_BITS = range(2, 9)


def csp(matrix: CompressedMatrix) -> int:
    return 8 * (matrix.words.size + matrix.counts.size)


def csr(weights: npt.NDArray[np.int8]) -> int:
    filters, taps = weights.shape
    stored = int(np.count_nonzero(weights))
    return stored * (VALUE_BITS + bits(taps)) + (filters + 1) * bits(stored + 1)


def mask(weights: npt.NDArray[np.int8]) -> int:
    return weights.size + VALUE_BITS * int(np.count_nonzero(weights))


def run_length(weights: npt.NDArray[np.int8]) -> int:
    """Filter after filter; zeros at the end of all are not stored."""
    places = np.flatnonzero(weights)
    runs = np.diff(places, prepend=-1) - 1
    return min(
        (len(runs) + int((runs >> width).sum())) * (VALUE_BITS + width) for width in RUN_BITS
    )


def bits(values: int) -> int:
    return math.ceil(math.log2(values)) if values > 1 else 1


FORMATS = ("CSP", "CSR", "bit mask", "run length")


def sizes(matrix: CompressedMatrix) -> npt.NDArray[np.int64]:
    weights = matrix.decompress()
    found = [csp(matrix), csr(weights), mask(weights), run_length(weights)]
    return np.array([int(np.count_nonzero(weights)), weights.size, *found])


def of_example(name: str) -> Iterator[CompressedMatrix]:
    for layer in container.load(EXAMPLE.parent / name / "network.csp").layers():
        yield from layer.matrices


def of_floats(network: FloatNetwork, sparsity: float) -> Iterator[CompressedMatrix]:
    """Give the pruned layers' int8 weights; their scales are those of each filter."""
    names = prunable(network)
    targets = dict.fromkeys(names, sparsity)
    moved = reorder.reorder_floats(network, reorder.orders_for(network, targets, COLS))
    after = prune(moved, targets, COLS, rule=Rule.PREFIX)
    for layer in after.layers():
        if layer.name in names:
            for matrix in layer.matrices:
                scales = np.abs(matrix).max(axis=1) / 127
                yield compress(quantise_weights(matrix, scales), COLS, PERIOD)


def line(name: str, matrices: Iterator[CompressedMatrix]) -> None:
    nonzero, weights, *found = sum((sizes(each) for each in matrices), np.zeros(6, dtype=np.int64))
    cells = [name, f"{weights:,}", f"{1 - nonzero / weights:.1%}"]
    cells += [f"{size / nonzero:.2f}" for size in found]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sparsity", default="0.5,0.8", help="of the networks of packages")
    arguments = parser.parse_args()
    print("| weights | number | zero | " + " | ".join(f"{name}, bits" for name in FORMATS) + " |")
    print("|" + " --- |" * (3 + len(FORMATS)))
    for name in ("fashion_mnist", "fashion_mnist_resnet8"):
        line(name, of_example(name))
    for label, load in (("nsfw", resnet50.load), ("vgg16", vgg16.load)):
        try:
            network = load()
        except CspError as error:
            print(f"{label}: {error}", file=sys.stderr)
            continue
        for sparsity in arguments.sparsity.split(","):
            line(label, of_floats(network, float(sparsity)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
