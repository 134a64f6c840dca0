# SPDX-License-Identifier: Apache-2.0
"""Whole networks on the core, pass by pass, with memories of several rates.

    python benchmarks/core_memory.py examples/fashion_mnist/network.csp [--images 16]
        [--rates 8,4,2] [--preset csp_8x8] [--json FILE]

For each rate (bytes a cycle of each port of the memory) every pass runs once. The first table has
cycles and share of the bound at each rate; the second, where the cycles went that a rate costs
beyond the first one: by the engine's counters, and what passes before and after the engine is at
work. All integers are compared with the golden model, at each rate.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from csp_algo import container
from csp_algo.errors import CspError
from csp_hw.config import PRESETS, preset
from csp_hw.counters import CYCLES, SPENT
from sim import demo, execute
from sim.cosim.core.jobs import Timing
from sim.execute import PassRun, Task
from sim.model.bound import pass_bound
from sim.report.passes import broken_promises

#: What the engine does not count: a pass begins before it is at work, and ends after.
OUTSIDE = "outside"
#: Counters of stalls, then what is outside of the engine's time.
CAUSES = (*SPENT[1:], OUTSIDE)


def record(task: Task, run: PassRun, timing: Timing) -> dict[str, object]:
    """Give what is told of a pass."""
    bound = pass_bound(run.step, timing)
    spent = {name: run.registers[name.upper()] for name in SPENT}
    engine = run.registers[CYCLES.upper()] if run.step.schedule is not None else 0
    if engine == 0:
        spent = dict.fromkeys(SPENT, 0)
    return {
        "pass": "+".join(run.step.nodes),
        "cycles": run.cycles,
        "bound": bound.cycles,
        "limit": bound.limit,
        "first": bound.first,
        "last": bound.last,
        "compared": run.compared,
        "different": run.different or 0,
        "output": run.step.node == task.output,
        **spent,
        OUTSIDE: run.cycles - engine,
    }


def measure(task: Task, built: execute.CoreBuild, timing: Timing) -> list[dict[str, object]]:
    """Run all passes; nothing may differ from the golden model."""
    runs = []
    records = []
    for run in execute.run(task, built, timing=timing):
        runs.append(run)
        records.append(record(task, run, timing))
        if run.different:
            raise CspError(f"{run.step.title}: {run.different} integers differ")
    if broken := broken_promises(runs):
        raise CspError(broken[0])
    return records


def total(records: list[dict[str, object]], name: str) -> int:
    """Add up one number of all passes."""
    return sum(int(str(one[name])) for one in records)


def rows(rates: list[int], records: dict[int, list[dict[str, object]]]) -> list[list[str]]:
    """Give the lines of the first table: cycles and share of the bound at each rate."""
    first = records[rates[0]]
    table = []
    for number, one in enumerate([*first, None]):
        line = ["**together**" if one is None else f"`{one['pass']}`"]
        for rate in rates:
            these = records[rate] if one is None else [records[rate][number]]
            cycles, bound = total(these, "cycles"), total(these, "bound")
            limit = "" if one is None else f", {these[0]['limit']}"
            line += [f"{cycles:,}", f"{100 * bound / cycles:.1f} %{limit}"]
        table.append(line)
    return table


def causes(rates: list[int], records: dict[int, list[dict[str, object]]]) -> list[list[str]]:
    """Give the lines of the second table: cycles beyond the first rate, by cause."""
    first = records[rates[0]]
    table = []
    for number, one in enumerate([*first, None]):
        for rate in rates[1:]:
            pairs = (
                list(zip(first, records[rate], strict=True))
                if one is None
                else [(one, records[rate][number])]
            )
            line = ["**together**" if one is None else f"`{one['pass']}`", str(rate)]
            before, after = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            for name in ("cycles", *CAUSES):
                more = total(after, name) - total(before, name)
                line.append(f"{more:+,}" if more else "·")
            table.append(line)
    return table


def show(titles: list[str], table: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"| {' | '.join(titles)} |")
    print(f"| --- |{' ---: |' * (len(titles) - 1)}")
    for line in table:
        print(f"| {' | '.join(line)} |")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--preset", default="csp_8x8", choices=PRESETS)
    parser.add_argument("--rates", default="8,4,2", help="bytes a cycle of each port, in a list")
    parser.add_argument("--latency", type=int, default=20, help="of the memory, in cycles")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    options = parser.parse_args()
    try:
        return report(options)
    except CspError as error:
        print(f"csp: {error}", file=sys.stderr)
        return 2


def report(options: argparse.Namespace) -> int:
    """Run and print; give the exit code."""
    config = preset(options.preset)
    rates = [int(rate) for rate in options.rates.split(",")]
    for rate in rates:
        if rate < 1 or config.cols % rate:
            raise CspError(f"a rate must divide {config.cols} bytes, not {rate}")
    network = demo.fitted(container.load(options.network), config)
    images = demo.load_images(demo.IMAGES, options.images, network.input)
    task = Task.make(network, config, images.pixels)
    built = execute.build(config)
    records = {}
    for rate in rates:
        timing = Timing(
            read_latency=options.latency,
            write_latency=options.latency,
            read_rate=rate,
            write_rate=rate,
        )
        start = time.monotonic()
        records[rate] = measure(task, built, timing)
        cycles, seconds = total(records[rate], "cycles"), time.monotonic() - start
        print(
            f"{rate} bytes a cycle: {total(records[rate], 'compared'):,} integers compared, "
            f"{total(records[rate], 'different')} differ, {cycles:,} cycles in {seconds:.0f} s",
            file=sys.stderr,
        )
    classes = task.values[task.output].reshape(options.images, -1).argmax(axis=1)
    right = int(np.count_nonzero(classes == images.labels))
    print(f"{options.images} images, {right} of them right, on the core as in the golden model\n")
    titles = [text for rate in rates for text in (f"cycles at {rate} B", "of bound, binds")]
    show(["pass", *titles], rows(rates, records))
    if len(rates) > 1:
        names = [name.removeprefix("stalled_") for name in CAUSES]
        show(["pass", "rate", "cycles", *names], causes(rates, records))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
