# SPDX-License-Identifier: Apache-2.0
"""What the passes of a core did, as a table in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from csp_hw.counters import SPENT
from sim.execute import PassRun
from sim.model.bound import PassBound
from sim.program.program import Program
from sim.report.page import percent

#: Counters of beats, and what a pass promises.
BEATS = {
    "ACTIVATION_BEATS": "input_beats",
    "WEIGHT_PORT_BEATS": "weight_beats",
    "RESIDUAL_BEATS": "residual_beats",
    "RESULT_BEATS": "result_beats",
}


def pass_table(runs: Sequence[PassRun], bounds: Sequence[PassBound]) -> Table:
    """Give one line a pass: comparison, cycles, what bounds them, beats of each port."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("pass", style="bold", no_wrap=True)
    for name in ("differ", "cycles", "of bound", "binds", "in", "tables", "added", "out"):
        table.add_column(name, justify="right", no_wrap=True)
    for run, bound in zip(runs, bounds, strict=True):
        moved = [f"{run.registers[name]:,}" for name in BEATS]
        table.add_row(
            Text(run.step.title if run.step.is_copy else "+".join(run.step.nodes)),
            _different(run),
            f"{run.cycles:,}",
            percent(bound.cycles / run.cycles),
            bound.limit,
            *moved,
        )
    return table


def place_table(program: Program) -> Table:
    """Give one line a map: where it lies, its bytes, the first and the last pass that use it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("map", style="bold", no_wrap=True)
    for name in ("lies", "from", "bytes", "passes"):
        table.add_column(name, justify="right", no_wrap=True)
    for place in program.places():
        users = "·" if place.passes is None else f"{place.passes[0]} … {place.passes[1]}"
        lies = "on the chip" if place.on_chip else "in memory"
        table.add_row(Text(place.name), lies, f"{place.offset:#x}", f"{place.bytes:,}", users)
    return table


def not_compared(program: Program) -> list[str]:
    """Give the maps that are on the chip only."""
    return [name for name in program.maps if name not in program.shown]


def stall_table(runs: Sequence[PassRun]) -> Table:
    """Give each convolution's cycles by cause, and its products with a zero, in percent."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("% of cycles", style="bold", no_wrap=True)
    for name in SPENT:
        table.add_column(name.removeprefix("stalled_"), justify="right", no_wrap=True)
    table.add_column("zeros", justify="right", no_wrap=True)
    for run in runs:
        registers = run.registers
        if run.step.schedule is None:
            continue
        useful = registers["USEFUL_MACS_LOW"] | registers["USEFUL_MACS_HIGH"] << 32
        gated = registers["GATED_MACS_LOW"] | registers["GATED_MACS_HIGH"] << 32
        table.add_row(
            Text("+".join(run.step.nodes)),
            *(_percent(registers[name.upper()], registers["CYCLES"]) for name in SPENT),
            _percent(gated, useful),
        )
    return table


def broken_promises(runs: Sequence[PassRun]) -> list[str]:
    """Give a line for each counter that differs from what the pass promises."""
    return [
        f"{run.step.title}: {name} is {run.registers[name]}, not {getattr(run.step, promise)}"
        for run in runs
        for name, promise in BEATS.items()
        if run.registers[name] != getattr(run.step, promise)
    ]


def show(
    console: Console,
    runs: Sequence[PassRun],
    bounds: Sequence[PassBound],
    *,
    hidden: Sequence[str] = (),
) -> bool:
    """Print the tables and the verdict; say whether all that was compared is equal.

    Parameters
    ----------
    console : Console
    runs : sequence of PassRun
    bounds : sequence of PassBound
    hidden : sequence of str
        Maps that were not compared.
    """
    console.print(pass_table(runs, bounds))
    console.print(stall_table(runs))
    compared = sum(run.compared for run in runs)
    different = sum(run.different or 0 for run in runs)
    broken = broken_promises(runs)
    lines = [f"{different:,} of {compared:,} output integers differ", *broken]
    exact = not different and not broken
    if exact:
        cycles, bound = sum(run.cycles for run in runs), sum(bound.cycles for bound in bounds)
        lines = [f"{compared:,} output integers in memory, all equal to the golden model"]
        if runs:  # none if all of a network is another view of its input
            lines.append(f"{cycles:,} cycles, {percent(bound / cycles)} of the bound")
        lines.append("each port moved as many beats as planned")
        kept = sum(run.step.kept_beats for run in runs)
        if kept:
            lines.append(f"{kept:,} beats of maps stayed on the chip")
    if hidden:
        lines.append(f"on the chip only, not compared: {', '.join(hidden)}")
    colour = "green" if exact else "red"
    console.print(Panel(Text("\n".join(lines)), border_style=colour, expand=False, padding=(0, 2)))
    return exact


def _different(run: PassRun) -> Text:
    if run.different is None:
        return Text("·", style="dim")
    return Text(f"{run.different:,}", style="bold red" if run.different else "green")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if part else "·"
