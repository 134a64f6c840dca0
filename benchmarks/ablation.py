# SPDX-License-Identifier: Apache-2.0
"""Plots of an ablation: accuracy and stored words over each field that was varied.

    python -m csp_algo.train ablate fashion_mnist --vary cols=4,8,16 … --out build/ablation.csv
    python benchmarks/ablation.py build/ablation.csv --out build/ablation.svg

The CSV is that of `python -m csp_algo.train ablate`; this needs no torch.
"""

import argparse
import csv
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from csp_algo.errors import CspError
from sim.report.comparison import svg

Row = dict[str, str]

#: What each field of a plan is called.
TITLES = {
    "cols": "filters of a chunk",
    "q": "strength q",
    "keep": "kept, relative to the plan",
    "strength": "λ",
    "period": "truncation period T",
    "acc_bits": "bits of a partial sum",
}
#: What is drawn on the left: column, name, colour.
ACCURACIES = (("int8", "after quantisation", 0), ("aware", "after aware fine-tuning", 2))
#: And on the right.
SHARES = (("words", "chunks stored", 4), ("sparsity", "zero weights", 1))
#: Size of a chart, and the room between two.
WIDTH, HEIGHT, GAP = 512, 250, 16
#: Height of the line that says which colour is what, and the width of a name in it.
LEGEND, NAME = 32, 190
STYLE = """
svg { font-family: system-ui, sans-serif; }
text.tick { font-size: 11.5px; fill: #5d6964; }
.grid { stroke: #e3e1da; stroke-width: 1; }
.dashed { stroke-dasharray: 6 4; }
.dot { stroke: #ffffff; stroke-width: 1; }
"""
COLOURS = {0: "#0d9488", 1: "#f2b544", 2: "#e07a5f", 4: "#5b8fd6"}


def read(path: Path) -> list[Row]:
    """Read an ablation's table.

    Raises
    ------
    CspError
        It cannot be read, or it is another table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise CspError(f"{path}: cannot be read: {error}") from error
    wanted = {"axis", "value", "int8", "aware", "words", "sparsity"}
    if not rows or not wanted <= rows[0].keys():
        raise CspError(f"{path}: is no table of an ablation, or an empty one")
    return rows


def axis_around(label: str, values: Sequence[float]) -> svg.Axis:
    """Give an axis of percent around values, with four to eight round steps."""
    span = max(values) - min(values)
    step = next((step for step in (0.5, 1, 2, 5, 10, 20) if span <= 6 * step), 20)
    low = max(0.0, math.floor(min(values) / step) * step)
    count = max(2, math.ceil((max(values) - low) / step))
    ticks = [low + step * index for index in range(count + 1)]
    return svg.Axis(
        label=label, low=low, high=ticks[-1], ticks=tuple((tick, f"{tick:g}") for tick in ticks)
    )


def chart(axis: str, rows: Sequence[Row], columns: Sequence[tuple[str, str, int]]) -> str:
    """Draw some columns over the values of one field, which stand at equal distances."""
    series = []
    for column, name, colour in columns:
        points = [
            (float(place), float(row[column])) for place, row in enumerate(rows) if row[column]
        ]
        if points:
            titles = [f"{rows[int(x)]['value']}: {name} {y:g} %" for x, y in points]
            series.append(
                svg.Series(name=name, points=tuple(points), colour=colour, titles=tuple(titles))
            )
    heights = [y for one in series for _, y in one.points]
    if not heights:
        raise CspError(f"{axis}: no trial has figures")
    names = ", ".join(one.name for one in series)
    across = svg.Axis(
        label=TITLES.get(axis, axis),
        low=-0.5,
        high=len(rows) - 0.5,
        ticks=tuple((float(place), row["value"]) for place, row in enumerate(rows)),
    )
    up = axis_around(f"%: {names}", heights)
    return svg.chart(series, across, up, label=f"{names} over {axis}", width=WIDTH, height=HEIGHT)


def draw(rows: Sequence[Row]) -> str:
    """Give one SVG with two charts for each field that was varied."""
    fields = [(axis, list(group)) for axis, group in itertools.groupby(rows, lambda r: r["axis"])]
    width, height = 2 * WIDTH + GAP, LEGEND + len(fields) * (HEIGHT + GAP)
    style = STYLE + "".join(
        f".f{number} {{ fill: {colour}; }}\n"
        f".l{number} {{ stroke: {colour}; fill: none; stroke-width: 2; }}\n"
        for number, colour in COLOURS.items()
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        f"<style>{style}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *(
            f'<circle cx="{side * (WIDTH + GAP) + place * NAME + 14}" cy="14" r="5" '
            f'class="f{colour}"/><text x="{side * (WIDTH + GAP) + place * NAME + 26}" y="18" '
            f'class="tick">{name}</text>'
            for side, columns in enumerate((ACCURACIES, SHARES))
            for place, (_, name, colour) in enumerate(columns)
        ),
    ]
    for number, (axis, group) in enumerate(fields):
        for side, columns in enumerate((ACCURACIES, SHARES)):
            place = (
                f'<svg x="{side * (WIDTH + GAP)}" y="{LEGEND + number * (HEIGHT + GAP)}" '
                f'width="{WIDTH}" height="{HEIGHT}"'
            )
            parts.append(chart(axis, group, columns).replace("<svg", place, 1))
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("table", type=Path, help="the CSV of an ablation")
    parser.add_argument("--out", type=Path, required=True, help="the SVG")
    chosen = parser.parse_args(arguments)
    try:
        picture = draw(read(chosen.table))
    except CspError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(picture, encoding="utf-8")
    print(f"{chosen.out}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
