# SPDX-License-Identifier: Apache-2.0
"""Cycles of ResNet-50's layers on the core, by the model, and how long that takes.

    python benchmarks/core_cycles.py [--preset csp_h_32x32] [--density 0.3] [--latency 20]
        [--rate 32] [--only conv2_1] [--against CHECKOUT]

Each shape is a network of its own, with counts drawn at random; the time is that of one processor,
the least of three runs. ``--against`` names a folder with another version of this project, which
computes the same passes in turns; both must give the same cycles.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sim
from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Layer, Network
from csp_hw.config import PRESETS, CspConfig, preset
from sim.cosim.core.jobs import Timing
from sim.model.bound import pass_bound
from sim.model.core.passes import pass_cycles
from sim.program.compiler import compile_network
from sim.program.passes import Pass
from sim.workloads.draw import cascade_counts, cascade_mask, generator
from sim.workloads.shapes.layer import LayerShape
from sim.workloads.shapes.resnet50 import resnet50

RUNS = 3
#: What a pass may take, s.
WANTED = 0.02


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


def measure(step: Pass, timing: Timing) -> tuple[int, float]:
    """Give the cycles of a pass, and how long it takes to tell them, s."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        cycles = pass_cycles(step, timing).cycles
        times.append(time.process_time() - start)
    return cycles, min(times)


def passes(shape: LayerShape, options: argparse.Namespace) -> list[Pass]:
    """Give the passes of a layer on its own."""
    config = preset(options.preset)
    return list(compile_network(network(shape, config, options.density), config, 1).passes)


def timing_of(options: argparse.Namespace) -> Timing:
    """Give the memory."""
    rate = options.rate or preset(options.preset).cols
    return Timing(
        read_latency=options.latency,
        write_latency=options.latency,
        read_rate=rate,
        write_rate=rate,
    )


class Other:
    """Another version of the project, which measures in a process of its own."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        folder = folder.resolve()
        if not (folder / "sim").is_dir():
            raise CspError(f"{folder}: there is no sim, so it is no checkout of this project")
        paths = [str(folder), str(Path(__file__).resolve().parent)]
        words = ["preset", "density", "latency", *(["rate"] if options.rate else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import core_cycles; core_cycles.serve()"]
            + [f"--{word}={getattr(options, word)}" for word in words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        used = self._answer()
        if not Path(used).is_relative_to(folder):
            raise CspError(f"{folder}: not this version would be measured, but {used}")

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CspError("the other version ended early; what it said is above")
        return json.loads(line)

    def measure(self, name: str) -> list[tuple[int, float]]:
        """Give what :func:`measure` gives there for the passes of a layer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        return [(int(cycles), float(seconds)) for cycles, seconds in self._answer()]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Tell which version this is, and measure the layers whose names come on standard input."""
    options = arguments()
    shapes = {shape.name: shape for shape in resnet50()}
    print(json.dumps(sim.__file__), flush=True)
    for line in sys.stdin:
        steps = passes(shapes[line.strip()], options)
        print(json.dumps([measure(step, timing_of(options)) for step in steps]), flush=True)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Give a line for each pass, and one that sums them up."""
    timing = timing_of(options)
    other = Other(options.against, options) if options.against else None
    more = " there, ms | ratio |" if other else ""
    yield "| pass | cycles | of them bound | ms |" + more
    yield "| --- | ---: | ---: | ---: |" + (" ---: | ---: |" if other else "")
    took: list[float] = []
    before: list[float] = []
    for shape in resnet50():
        if options.only not in shape.name:
            continue
        steps = passes(shape, options)
        there = other.measure(shape.name) if other else [(0, 0.0)] * len(steps)
        for step, (same, then) in zip(steps, there, strict=True):
            cycles, seconds = measure(step, timing)
            took.append(seconds)
            share = pass_bound(step, timing).cycles / cycles
            line = f"| `{shape.name}` | {cycles:,} | {share:.1%} | {1000 * seconds:.0f} |"
            if other:
                if same != cycles:
                    raise CspError(f"{shape.name}: {cycles} cycles here, {same} there")
                before.append(then)
                line += f" {1000 * then:.0f} | {then / seconds:.2f} |"
            yield line
    if not took:
        raise CspError(f"no layer of ResNet-50 has {options.only!r} in its name")
    quick = sum(seconds < WANTED for seconds in took)
    middle, most = 1000 * float(np.median(took)), 1000 * max(took)
    yield (
        f"\n{len(took)} passes, {quick} of them below {1000 * WANTED:.0f} ms; "
        f"median {middle:.1f} ms, most {most:.1f} ms"
    )
    if other:
        yield f"{sum(before) / sum(took):.2f} × as quick as there, all together"
        other.close()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="csp_h_32x32", choices=PRESETS)
    parser.add_argument("--density", type=float, default=0.3, help="of weights")
    parser.add_argument("--latency", type=int, default=20, help="of the memory, in cycles")
    parser.add_argument("--rate", type=int, help="bytes a cycle; whole beats if not given")
    parser.add_argument("--only", default="", help="layers with this in their names")
    parser.add_argument("--against", type=Path, help="folder of another version to compare with")
    return parser.parse_args()


def main() -> int:
    try:
        for line in lines(arguments()):
            print(line, flush=True)
    except CspError as error:
        print(f"csp: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
