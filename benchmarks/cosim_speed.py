# SPDX-License-Identifier: Apache-2.0
"""Speed of the co-simulation: clock cycles of the engine a second, with Python driving.

    python benchmarks/cosim_speed.py [--preset csp_8x8] [--simulator verilator] [--cycles 1000000]

One dense layer of the size of a small network's, 14 × 14 × 64 → 64 filters of 3 × 3, runs again
and again in one process, once with all streams flowing and once with random stalls on all of them.
What is told is the steady speed: from the first report of progress to the last, start-up left out.
Every result is compared with the golden model.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator

import numpy as np

from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Layer
from csp_hw.config import PRESETS, CspConfig, preset
from sim import golden
from sim.cosim.build import SIMULATORS, VERILATOR, build
from sim.cosim.jobs import Job
from sim.cosim.process import Progress, run_jobs
from sim.cosim.streams import Stress, job_of
from sim.schedule import Schedule

#: What csp_8x8 must reach on Verilator.
WANTED = 20_000
FILTERS, CHANNELS, SIDE = 64, 64, 14


def dense_layer(rng: np.random.Generator, config: CspConfig) -> Layer:
    """Give the layer: random weights, nothing pruned."""
    geometry = Geometry(
        in_shape=(SIDE, SIDE, CHANNELS), filters=FILTERS, kernel=(3, 3), padding=(1, 1, 1, 1)
    )
    weights = rng.integers(-127, 128, (FILTERS, geometry.taps)).astype(np.int8)
    return Layer(
        name="dense",
        input="input",
        geometry=geometry,
        matrices=(compress(weights, config.cols, min(8, config.max_period)),),
        acc_shift=0,
        bias=np.zeros(FILTERS, dtype=np.int32),
        mult=np.full(FILTERS, 40_000, dtype=np.uint16),
        shift=np.full(FILTERS, 28, dtype=np.uint8),
        relu=False,
        dtype=ActDtype.INT8,
        filter_order=np.arange(FILTERS, dtype=np.int32),
        scale=1.0,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="csp_8x8", choices=PRESETS)
    parser.add_argument("--simulator", default=VERILATOR, choices=SIMULATORS)
    parser.add_argument("--cycles", type=int, default=1_000_000, help="at least so many")
    options = parser.parse_args()

    config = preset(options.preset)
    rng = np.random.default_rng(0)
    layer = dense_layer(rng, config)
    inputs = rng.integers(0, 256, (1, SIDE, SIDE, CHANNELS)).astype(np.uint8)
    expected, _ = golden.layer_forward(layer, inputs, acc_bits=config.acc_bits)
    schedule = Schedule.make(layer, 0, config, 1)
    wanted = np.concatenate(list(schedule.results(expected)))

    start = time.monotonic()
    simulator = build(
        config,
        simulator=options.simulator,
        report=lambda what, share: print(f"  {100 * share:3.0f} %  {what}", file=sys.stderr),
    )
    print(
        f"{options.preset} on {options.simulator}, {platform.machine()}, "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    print(f"  ready after {time.monotonic() - start:.1f} s")

    slowest = float("inf")
    for name, stress in (("flowing", None), ("stalling", Stress.everywhere(0.2, 1))):
        job = job_of(schedule, inputs, stress)
        repeats = -(-options.cycles // schedule.bound().cycles)

        def jobs(job: Job = job, repeats: int = repeats) -> Iterator[Job]:
            return (job for _ in range(repeats))

        marks: list[tuple[float, int]] = []

        def note(progress: Progress, marks: list[tuple[float, int]] = marks) -> None:
            marks.append((time.monotonic(), progress.cycle))

        cycles = 0
        start = time.monotonic()
        for outcome in run_jobs(simulator, jobs(), progress=note):
            cycles += outcome.counters["cycles"]
            if not np.array_equal(outcome.words, wanted):
                raise CspError(f"{name}: the results are wrong")
        whole = time.monotonic() - start
        (first, low), (last, high) = marks[0], marks[-1]
        if last == first:
            raise CspError(f"{cycles} cycles are too few to measure: --cycles")
        speed = (high - low) / (last - first)
        slowest = min(slowest, speed)
        print(
            f"  {name:9} {speed:9,.0f} cycles/s steady; {cycles:,} cycles in {whole:.1f} s, "
            f"start-up and {repeats} layers' files included"
        )
    wanting = options.preset == "csp_8x8" and options.simulator == VERILATOR and slowest < WANTED
    if wanting:
        print(f"  less than {WANTED:,} cycles/s", file=sys.stderr)
    return int(wanting)


if __name__ == "__main__":
    sys.exit(main())
