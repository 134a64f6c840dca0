# SPDX-License-Identifier: Apache-2.0
"""The record of a run as tables in the terminal."""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sim.report.model import LayerRecord, Report
from sim.report.page import percent


def share(part: int, whole: int) -> str:
    """Give a percentage, or nothing where there is nothing."""
    return percent(part / whole) if part else "·"


def layer_table(report: Report) -> Table:
    """Give one line a layer: shape, sparsity, comparison, cycles."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), show_footer=True)
    table.add_column("layer", "together", style="bold", no_wrap=True)
    table.add_column("output", style="dim", no_wrap=True)
    table.add_column("zero", percent(report.sparsity), justify="right", no_wrap=True)
    table.add_column("compared", f"{report.compared:,}", justify="right", no_wrap=True)
    table.add_column("differ", _count(report.mismatches), justify="right", no_wrap=True)
    table.add_column("cycles", f"{report.cycles:,}", justify="right", no_wrap=True)
    table.add_column("bound", f"{report.bound:,}", justify="right", no_wrap=True)
    table.add_column("of bound", percent(report.utilisation), justify="right", no_wrap=True)
    for layer in report.layers:
        table.add_row(
            Text(layer.name),
            "×".join(str(size) for size in layer.out_shape),
            percent(layer.sparsity),
            f"{layer.compared:,}",
            _count(layer.mismatches),
            f"{layer.cycles:,}",
            f"{layer.bound:,}",
            percent(layer.utilisation),
        )
    return table


def stall_table(report: Report) -> Table:
    """Give each layer's cycles by cause, in percent."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cycles spent", style="bold", no_wrap=True)
    table.add_column("busy", justify="right")
    for cause in report.causes:
        table.add_column(cause, justify="right")
    table.add_column("saturated sums", justify="right")
    for layer in report.layers:
        table.add_row(Text(layer.name), *_spent(layer, report.causes), f"{layer.saturations:,}")
    return table


def verdict(report: Report) -> RenderableType:
    """Give the answer in a box: equal or not, and how many images were right."""
    if report.exact:
        line = Text(f"{report.compared:,} output integers, all equal to the golden model")
        colour = "green"
    else:
        line = Text(f"{report.mismatches:,} of {report.compared:,} output integers differ")
        colour = "red"
        if report.mismatch:
            line.append(f"\n{report.mismatch}")
    line.stylize("bold")
    parts: list[RenderableType] = [line]
    if report.samples:
        images = len(report.samples)
        rtl = f"{report.rtl_correct} of {images} images right on the RTL, "
        golden = f"{report.golden_correct} of {images} in the golden model"
        parts.append(Text((rtl if report.complete else "images right: ") + golden))
    return Panel(Group(*parts), border_style=colour, expand=False, padding=(0, 2))


def show(console: Console, report: Report) -> None:
    """Print the whole record."""
    console.print(layer_table(report))
    console.print(stall_table(report))
    if report.host:
        nodes = ", ".join(f"{node.name} ({node.kind})" for node in report.host)
        console.print(Text(f"On the host, until the hardware does it: {nodes}", style="dim"))
    console.print(verdict(report))


def _count(mismatches: int) -> Text:
    return Text(f"{mismatches:,}", style="bold red" if mismatches else "green")


def _spent(layer: LayerRecord, causes: tuple[str, ...]) -> list[str]:
    spent = [layer.busy, *(layer.stalls.get(cause, 0) for cause in causes)]
    return [share(cycles, layer.cycles) for cycles in spent]
