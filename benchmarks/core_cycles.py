# SPDX-License-Identifier: Apache-2.0
"""Cycles of ResNet-50's layers on the core, by the model, and how long that takes.

    python benchmarks/core_cycles.py [--preset csp_h_32x32] [--density 0.3] [--latency 20]
        [--rate 32] [--only conv2_1]

Each shape is a network of its own, with counts drawn at random; the time is that of one processor,
the least of three runs.
"""

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np

from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Layer, Network
from csp_hw.config import PRESETS, CspConfig, preset
from sim.cosim.core.jobs import Timing
from sim.model.bound import pass_bound
from sim.model.core.passes import pass_cycles
from sim.program.compiler import compile_network
from sim.workloads.draw import cascade_counts, cascade_mask, generator
from sim.workloads.shapes.layer import LayerShape
from sim.workloads.shapes.resnet50 import resnet50

RUNS = 3


def network(shape: LayerShape, config: CspConfig, density: float) -> Network:
    """Give a network of one layer."""
    geometry, rng = shape.geometry, generator(shape.name)
    filters = geometry.filters
    counts = cascade_counts(
        rng, filters=filters, taps=geometry.taps, cols=config.cols, density=density
    )
    mask = cascade_mask(counts, filters=filters, cols=config.cols)
    weights = np.where(mask, rng.choice([-1, 1], mask.shape), 0).astype(np.int8)
    matrix = compress(weights, config.cols, config.max_period, counts=counts.astype(np.uint8))
    layer = Layer(
        name=shape.name,
        input="input",
        geometry=geometry,
        matrices=(matrix,),
        acc_shift=0,
        bias=np.zeros(filters, dtype=np.int32),
        mult=np.full(filters, 1 << 15, dtype=np.uint16),
        shift=np.full(filters, 20, dtype=np.uint8),
        relu=True,
        dtype=ActDtype.UINT8,
        filter_order=np.arange(filters, dtype=np.int32),
        scale=1.0,
    )
    source = Input(name="input", shape=geometry.in_shape, dtype=ActDtype.UINT8, scale=1.0)
    return Network(
        name=shape.name,
        input=source,
        nodes=(layer,),
        cols=config.cols,
        period=config.max_period,
    )


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Give a line for each pass."""
    config = preset(options.preset)
    rate = options.rate or config.cols
    timing = Timing(
        read_latency=options.latency,
        write_latency=options.latency,
        read_rate=rate,
        write_rate=rate,
    )
    for shape in resnet50():
        if options.only not in shape.name:
            continue
        for step in compile_network(network(shape, config, options.density), config, 1).passes:
            times = []
            for _ in range(RUNS):
                start = time.process_time()
                cycles = pass_cycles(step, timing).cycles
                times.append(time.process_time() - start)
            share = pass_bound(step, timing).cycles / cycles
            yield f"| `{shape.name}` | {cycles:,} | {share:.1%} | {1000 * min(times):.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="csp_h_32x32", choices=PRESETS)
    parser.add_argument("--density", type=float, default=0.3, help="of weights")
    parser.add_argument("--latency", type=int, default=20, help="of the memory, in cycles")
    parser.add_argument("--rate", type=int, help="bytes a cycle; whole beats if not given")
    parser.add_argument("--only", default="", help="layers with this in their names")
    options = parser.parse_args()
    print("| pass | cycles | of them bound | ms |\n| --- | ---: | ---: | ---: |")
    try:
        for line in lines(options):
            print(line, flush=True)
    except CspError as error:
        print(f"csp: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
