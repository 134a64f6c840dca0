# SPDX-License-Identifier: Apache-2.0
"""Plots as SVG in the page: no script, colours from the page's style, a title behind each mark.

All text is escaped here, so templates take what these functions give as it is (``safe``).
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from markupsafe import escape

#: Colours of the page's style: classes f0 … f8.
COLOURS = 9
WIDTH = 1040


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of a bar: its length, colour and what it says when pointed at."""

    value: float
    colour: int
    title: str
    faint: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of parts, with a name before it and a figure behind it."""

    name: str
    slices: tuple[Slice, ...]
    end: str
    strong: bool = False

    @property
    def length(self) -> float:
        """All parts together."""
        return sum(part.value for part in self.slices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one colour, joined by a line or not."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    titles: tuple[str, ...] = ()
    line: bool = True
    dashed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis: what it shows, from where to where, linear or logarithmic."""

    label: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()

    def place(self, value: float) -> float:
        """Give where a value lies, 0 … 1 within the axis."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def number(value: float) -> str:
    """Write a value with three digits, without an exponent."""
    if value == 0:
        return "0"
    # Rounded first: 0.9996 has as many digits behind the point as 1.00.
    digits = max(0, 2 - math.floor(math.log10(float(f"{abs(value):.2e}"))))
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def short(value: float) -> str:
    """Write a round value, without zeros at its end."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def nice_ticks(high: float, most: int = 6) -> list[float]:
    """Give round values 0 … high, at most so many steps."""
    if high <= 0:
        return [0.0]
    raw = high / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999999)
    return [step * index for index in range(math.floor(high / step * 1.000001) + 1)]


def linear(label: str, high: float, *, most: int = 6) -> Axis:
    """Give a linear axis from 0 to a round value."""
    ticks = nice_ticks(high, most)
    if ticks[-1] < high:
        ticks.append(ticks[-1] + (ticks[1] if len(ticks) > 1 else high))
    return Axis(
        label=label, low=0.0, high=ticks[-1], ticks=tuple((tick, short(tick)) for tick in ticks)
    )


def logarithmic(label: str, values: Iterable[float]) -> Axis:
    """Give a logarithmic axis around values, from one of 1, 2, 5, 10, 20 … to another one."""
    values = list(values)
    power = math.floor(math.log10(min(values)))
    steps = [factor * 10.0**power for factor in (1, 2, 5)]
    while steps[-1] < max(values):
        steps.append(steps[-3] * 10)
    first = max(index for index, step in enumerate(steps) if step <= min(values) * 1.000001)
    steps = steps[first:]
    if len(steps) == 1:
        steps.append(2 * steps[0])
    last = next((i for i, step in enumerate(steps) if i and step >= max(values)), len(steps) - 1)
    steps = steps[: last + 1]
    # Over three decades, the powers of ten are enough.
    many = steps[-1] / steps[0] > 1000
    wanted = [step for step in steps if not many or _is_power(step)]
    return Axis(
        label=label,
        low=steps[0],
        high=steps[-1],
        log=True,
        ticks=tuple((step, short(step)) for step in wanted),
    )


def _is_power(value: float) -> bool:
    exponent = math.log10(value)
    return abs(exponent - round(exponent)) < 1e-6


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}"'
    return f"<text {where}>{escape(text)}</text>"


def _svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">'
    )
    return head + "".join(parts) + "</svg>"


def bars(rows: Sequence[Bar], *, label: str, unit: str) -> str:
    """Draw horizontal bars of parts, one below the other.

    Parameters
    ----------
    rows : sequence of Bar
    label : str
        For those who cannot see it.
    unit : str
        Of the lengths.
    """
    # Room for names on the left, for values on the right.
    line, height, names, ends = 30, 17, 258, 132
    axis = linear(unit, max((row.length for row in rows), default=0.0))
    room = WIDTH - names - ends
    bottom = line * len(rows) + 4
    parts = []
    for tick, text in axis.ticks:
        x = names + room * axis.place(tick)
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        parts.append(_text(x, bottom + 16, text, "tick", "middle"))
    parts.append(_text(names + room + 14, bottom + 16, unit, "tick"))
    for index, row in enumerate(rows):
        top = line * index + 6
        style = "name strong" if row.strong else "name"
        parts.append(_text(names - 12, top + 13, row.name, style, "end"))
        start = 0.0
        for part in row.slices:
            x, end = (names + room * axis.place(at) for at in (start, start + part.value))
            start += part.value
            if end - x < 0.05:
                continue
            faint = " faint" if part.faint else ""
            title = f"<title>{escape(part.title)}</title>"
            parts.append(
                f'<rect x="{x:.2f}" y="{top}" width="{end - x:.2f}" height="{height}" '
                f'class="f{part.colour % COLOURS}{faint}">{title}</rect>'
            )
        parts.append(_text(names + room * axis.place(start) + 8, top + 13, row.end, style))
    return _svg(WIDTH, bottom + 24, label, parts)


def chart(
    series: Sequence[Series],
    across: Axis,
    up: Axis,
    *,
    label: str,
    width: int = WIDTH,
    height: int = 300,
    marks: Sequence[float] = (),
) -> str:
    """Draw points and lines on two axes.

    Parameters
    ----------
    series : sequence of Series
    across, up : Axis
    label : str
        For those who cannot see it.
    width, height : int
    marks : sequence of float
        Levels that go all across.
    """
    left, right, top, bottom = 54, 14, 24, 42
    room, tall = width - left - right, height - top - bottom

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return left + room * across.place(point[0]), top + tall * (1 - up.place(point[1]))

    parts = [_text(4, 12, up.label, "tick")]
    for tick, text in up.ticks:
        y = top + tall * (1 - up.place(tick))
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{left + room}" y2="{y:.1f}" class="grid"/>'
        )
        parts.append(_text(left - 8, y + 4, text, "tick", "end"))
    for tick, text in across.ticks:
        x = left + room * across.place(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + tall}" class="grid"/>')
        parts.append(_text(x, top + tall + 16, text, "tick", "middle"))
    parts.append(_text(left + room / 2, height - 6, across.label, "tick", "middle"))
    for level in marks:
        y = top + tall * (1 - up.place(level))
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{left + room}" y2="{y:.1f}" class="mark"/>'
        )
    for one in series:
        places = [at(point) for point in one.points]
        colour = one.colour % COLOURS
        if one.line:
            way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            dashed = " dashed" if one.dashed else ""
            parts.append(f'<polyline points="{way}" class="l{colour}{dashed}"/>')
        if one.titles or not one.line:
            for (x, y), text in zip(places, one.titles or [one.name] * len(places), strict=True):
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="f{colour} dot">'
                    f"<title>{escape(text)}</title></circle>"
                )
    return _svg(width, height, label, parts)
