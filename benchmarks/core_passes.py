# SPDX-License-Identifier: Apache-2.0
"""Whole networks on the core, pass by pass, with memories of several rates.

    python benchmarks/core_passes.py examples/fashion_mnist/network.csp [--images 16]
        [--rates 8,4,2] [--preset csp_8x8] [--json FILE]
    python benchmarks/core_passes.py resnet50 --preset csp_h_32x32 --rates 32

The network is a file, which gets the test images; or ``resnet50`` or ``vgg16`` of sim/workloads
with one photograph, pruned to ``--sparsity``: ``make soak`` installs them, or ``python
tools/environment.py .venv models``.

For each rate (bytes a cycle of each port of the memory) every pass runs once. The first table has
cycles and share of the bound at each rate; the second, where the cycles went that a rate costs
beyond the first one: by the engine's counters, largest first, and what passes before and after the
engine is at work (outside). All integers are compared with the golden model, at each rate.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.network import Layer
from csp_hw.config import PRESETS, CspConfig, preset
from csp_hw.counters import CYCLES, SPENT
from sim import demo, execute
from sim.cosim.core.build import CoreBuild
from sim.cosim.core.jobs import Timing
from sim.execute import PassRun, Task
from sim.model.bound import pass_bound
from sim.report.passes import broken_promises
from sim.workloads.integers import pruned_integers
from sim.workloads.photo import photograph

#: Modules of sim/workloads, imported when asked for: they need more than a network from a file.
WORKLOADS = ("resnet50", "vgg16")
SIDE = 224
#: What the engine does not count: a pass begins before it is at work, and ends after.
OUTSIDE = "outside"
#: Counters of stalls, then what is outside of the engine's time.
CAUSES = (*SPENT[1:], OUTSIDE)
#: Share of the additional cycles from which on a cause is told.
LEAST = 0.1


class Record(NamedTuple):
    """What is told of a pass: its names, what bounds it, and numbers that add up."""

    title: str
    limit: str
    numbers: dict[str, int]


def record(task: Task, run: PassRun, timing: Timing) -> Record:
    """Give what is told of a pass."""
    bound = pass_bound(run.step, timing)
    registers = run.registers
    numbers = {
        "cycles": run.cycles,
        "bound": bound.cycles,
        "compared": run.compared,
        "different": run.different or 0,
        "again": run.step.again,
    }
    if run.step.schedule is None:  # the engine's counters are still those of the pass before
        numbers |= dict.fromkeys((*SPENT, "saturations", "useful", "gated"), 0)
        numbers[OUTSIDE] = run.cycles
    else:
        numbers |= {name: registers[name.upper()] for name in (*SPENT, "saturations")}
        for name in ("useful", "gated"):
            low, high = (registers[f"{name.upper()}_MACS_{part}"] for part in ("LOW", "HIGH"))
            numbers[name] = low | high << 32
        numbers[OUTSIDE] = run.cycles - registers[CYCLES.upper()]
    weights = [
        layer.weights() for layer in task.program.network.layers() if layer.name in run.step.nodes
    ]
    numbers["weights"] = sum(values.size for values in weights)
    numbers["zeros"] = sum(values.size - np.count_nonzero(values) for values in weights)
    return Record("+".join(run.step.nodes), bound.limit, numbers)


def total(records: list[Record], name: str) -> int:
    """Add up one number of some passes."""
    return sum(one.numbers[name] for one in records)


def measure(task: Task, built: CoreBuild, timing: Timing) -> list[Record]:
    """Run all passes; nothing may differ from the golden model."""
    records = []
    for run in execute.run(task, built, timing=timing):
        records.append(record(task, run, timing))
        if run.different:
            raise CspError(f"{run.step.title}: {run.different} integers differ")
        for line in broken_promises([run]):
            raise CspError(line)
    return records


def share(part: int, whole: int) -> str:
    """Write a percentage."""
    return f"{100 * part / whole:.1f} %" if whole else "·"


def utilisation(runs: dict[int, list[Record]]) -> list[list[str]]:
    """Give the lines of the first table."""
    first = next(iter(runs.values()))
    table = []
    for number, one in enumerate([*first, None]):
        chosen = slice(None) if one is None else slice(number, number + 1)
        here = first[chosen]
        line = ["**together**" if one is None else f"`{one.title}`"]
        line.append(share(total(here, "zeros"), total(here, "weights")))
        line.append(share(total(here, "gated"), total(here, "useful")))
        for records in runs.values():
            here = records[chosen]
            cycles = total(here, "cycles")
            limit = "" if one is None else f", {here[0].limit}"
            line += [f"{cycles:,}", share(total(here, "bound"), cycles) + limit]
        table.append(line)
    return table


def causes(runs: dict[int, list[Record]]) -> list[list[str]]:
    """Give the lines of the second table: cycles beyond those of the first rate, and why."""
    (_, first), *others = runs.items()
    table = []
    for number, one in enumerate([*first, None]):
        chosen = slice(None) if one is None else slice(number, number + 1)
        line = ["**together**" if one is None else f"`{one.title}`"]
        for _, records in others:
            more = {
                name: total(records[chosen], name) - total(first[chosen], name)
                for name in ("cycles", *CAUSES)
            }
            cycles = more.pop("cycles")
            largest = sorted(more, key=more.__getitem__, reverse=True)
            parts = [f"{name} {more[name]:,}" for name in largest if more[name] >= cycles * LEAST]
            line.append(f"{cycles:+,}: {', '.join(parts)}")
        table.append(line)
    return table


def show(titles: list[str], table: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"| {' | '.join(titles)} |")
    print(f"| --- |{' ---: |' * (len(titles) - 1)}")
    for line in table:
        print(f"| {' | '.join(line)} |")
    print()


def task_of(options: argparse.Namespace, config: CspConfig) -> tuple[Task, str]:
    """Give what is to be run, and a line about it."""
    if options.network in WORKLOADS:
        image = photograph(SIDE)
        network = pruned_integers(
            importlib.import_module(f"sim.workloads.{options.network}").load(),
            image,
            sparsity=options.sparsity,
            cols=config.cols,
            period=config.max_period,
        )
        macs = sum(node.geometry.macs for node in network.nodes if isinstance(node, Layer))
        return Task.make(network, config, image), f"a photograph, {macs:,} dense products"
    network = demo.fitted(container.load(Path(options.network)), config)
    images = demo.load_images(demo.IMAGES, options.images, network.input)
    task = Task.make(network, config, images.pixels)
    classes = task.values[task.output].reshape(options.images, -1).argmax(axis=1)
    right = int(np.count_nonzero(classes == images.labels))
    return task, f"{options.images} images, {right} of them right, on the core as in golden"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", help=f"a file, or one of {', '.join(WORKLOADS)}")
    parser.add_argument("--images", type=int, default=16, help="of a network from a file")
    parser.add_argument("--sparsity", type=float, default=0.7, help="of a network by its name")
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
    task, what = task_of(options, config)
    start = time.monotonic()
    built = execute.build(config)
    print(f"{what}; simulator ready after {time.monotonic() - start:.0f} s\n", flush=True)
    runs = {}
    for rate in rates:
        timing = Timing(
            read_latency=options.latency,
            write_latency=options.latency,
            read_rate=rate,
            write_rate=rate,
        )
        start = time.monotonic()
        runs[rate] = records = measure(task, built, timing)
        cycles, seconds = total(records, "cycles"), time.monotonic() - start
        print(
            f"- {rate} bytes a cycle: {total(records, 'compared'):,} integers compared, "
            f"{total(records, 'different')} differ; {total(records, 'saturations'):,} saturations; "
            f"{total(records, 'again'):,} beats of maps read again; {cycles:,} cycles in "
            f"{seconds:.0f} s, {cycles / seconds:,.0f} a second",
            flush=True,
        )
    print()
    titles = [text for rate in rates for text in (f"cycles at {rate} B", "of bound, binds")]
    show(["pass", "weights 0", "products 0", *titles], utilisation(runs))
    if len(rates) > 1:
        show(["pass", *(f"more at {rate} B: why" for rate in rates[1:])], causes(runs))
    if options.json:
        told = {rate: [one._asdict() for one in records] for rate, records in runs.items()}
        options.json.write_text(json.dumps(told, indent=1, default=int))
    return 0


if __name__ == "__main__":
    sys.exit(main())
