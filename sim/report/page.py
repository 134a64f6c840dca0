# SPDX-License-Identifier: Apache-2.0
"""The HTML page of a run: one file, no script, nothing loaded from elsewhere."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from csp_algo.container import write_atomically
from sim.report import png
from sim.report.model import LayerRecord, Report

#: A cascade with more taps than this is drawn with several taps a column.
CASCADE_COLUMNS = 1024
#: Pictures of classified images on the page.
SAMPLES_SHOWN = 32
#: Red, green, blue of a kept chunk: readable on light and on dark paper.
CASCADE_COLOUR = (13, 148, 136)


@dataclasses.dataclass(frozen=True)
class Slice:
    """One part of a stacked bar, in percent of its whole length."""

    cause: str
    style: int
    start: float
    width: float
    cycles: int


def slices(layer: LayerRecord, causes: tuple[str, ...]) -> list[Slice]:
    """Give the parts of a layer's bar: busy cycles, then the stalls by cause."""
    parts = [("busy", layer.busy), *((cause, layer.stalls.get(cause, 0)) for cause in causes)]
    total = max(1, layer.cycles)
    result: list[Slice] = []
    start = 0.0
    for style, (cause, cycles) in enumerate(parts):
        width = 100 * cycles / total
        if cycles > 0:
            result.append(Slice(cause, style, start, width, cycles))
        start += width
    return result


def cascade_url(cascade: NDArray[np.uint8]) -> str:
    """Give the picture of a cascade (uint8[K, J]) as a URL; wide ones are averaged."""
    chunks, taps = cascade.shape
    levels = cascade.astype(np.float64)
    if taps > CASCADE_COLUMNS:
        edges = np.linspace(0, taps, CASCADE_COLUMNS, endpoint=False).astype(np.int64)
        sizes = np.diff(np.append(edges, taps))
        levels = np.add.reduceat(levels, edges, axis=1) / sizes
    pixels = np.zeros((chunks, levels.shape[1], 4), np.uint8)
    pixels[..., :3] = CASCADE_COLOUR
    # A kept chunk with few non-zero weights must still be seen: alpha starts at 1/4.
    pixels[..., 3] = np.where(levels > 0, 64 + levels * (191 / 255), 0).astype(np.uint8)
    return png.data_url(pixels)


def dimensions(shape: Iterable[int]) -> str:
    """Write a shape as 28 × 28 × 1."""
    return " × ".join(str(size) for size in shape)


def grouped(value: int) -> str:
    """Write an integer with thin spaces between groups of three digits."""
    return f"{value:,}".replace(",", "\u202f")


def percent(share: float) -> str:
    """Write a share as a percentage; what is not all never rounds up to 100."""
    text = f"{100 * share:.1f}"
    if share < 1 and text == "100.0":
        text = "99.9"
    return text + "\u202f%"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"grouped": grouped, "percent": percent, "dimensions": dimensions}
    environment.globals |= {
        "cascade_url": cascade_url,
        "picture_url": png.data_url,
        "slices": slices,
    }
    return environment


def render(report: Report) -> str:
    """Give the page as text; everything from the network or the user is escaped."""
    template = _environment().get_template("page.html.j2")
    return template.render(
        report=report, samples=report.samples[:SAMPLES_SHOWN], causes=report.causes
    )


def write(report: Report, path: Path) -> None:
    """Write the page, whole or not at all; its folder is made if need be.

    Raises
    ------
    CspError, OSError
        It could not be written; what was at ``path`` before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(report).encode())
