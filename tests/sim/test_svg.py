# SPDX-License-Identifier: Apache-2.0
"""Plots of the comparison: where marks lie, and that text cannot become a tag."""

import pytest

from sim.report.comparison import svg
from sim.report.comparison.svg import Axis, Bar, Series, Slice
from tests.sim.pages import parse


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1.00"),
        (0.9996, "1.00"),
        (0.04567, "0.0457"),
        (12.345, "12.3"),
        (999.6, "1\u202f000"),
        (1234567, "1\u202f234\u202f567"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers(value, text):
    assert svg.number(value) == text


def test_short_numbers():
    assert [svg.short(value) for value in (0, 0.5, 20, 100, 2.5)] == [
        "0",
        "0.5",
        "20",
        "100",
        "2.5",
    ]


@pytest.mark.parametrize(
    ("high", "last"), [(1, 1), (6.93, 8), (0.03, 0.03), (999, 1000), (1.2, 1.2)]
)
def test_linear_axes_end_at_round_values(high, last):
    axis = svg.linear("x", high)
    assert axis.high == pytest.approx(last)
    assert axis.ticks[0] == (0.0, "0")
    assert 3 <= len(axis.ticks) <= 8
    assert axis.place(axis.high) == 1


def test_an_empty_axis():
    assert svg.linear("x", 0.0).ticks[0] == (0.0, "0")


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([3, 900], 2, 1000), ([1, 1], 1, 2), ([0.02, 0.9], 0.02, 1), ([30, 70], 20, 100)],
)
def test_logarithmic_axes_enclose_the_values(values, low, high):
    axis = svg.logarithmic("x", values)
    assert (axis.low, axis.high) == (pytest.approx(low), pytest.approx(high))
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == pytest.approx(1)
    assert axis.place((axis.low * axis.high) ** 0.5) == pytest.approx(0.5)


def test_wide_logarithmic_axes_have_powers_of_ten_only():
    ticks = [text for _, text in svg.logarithmic("x", [0.5, 20_000]).ticks]
    assert ticks == ["1", "10", "100", "1\u202f000", "10\u202f000"]


def test_bars_are_in_proportion_and_follow_each_other():
    row = Bar(
        name="<i>",
        slices=(
            Slice(value=2, colour=0, title="a & b"),
            Slice(value=0, colour=1, title="none"),
            Slice(value=6, colour=2, title="c", faint=True),
        ),
        end="8",
    )
    tags = parse(svg.bars([row], label="<b>", unit="mJ"))
    first, second = [a for tag, a in tags.found if tag == "rect"]
    assert float(second["width"]) == pytest.approx(3 * float(first["width"]), abs=0.02)
    assert float(second["x"]) == pytest.approx(float(first["x"]) + float(first["width"]), abs=0.02)
    assert (first["class"], second["class"]) == ("f0", "f2 faint")
    assert {"<i>", "a & b", "8", "mJ"} <= set(tags.text)
    assert not {"i", "b"} & {tag for tag, _ in tags.found}


def test_points_lie_where_their_values_are():
    axis = Axis(label="x", low=0, high=10, ticks=((0, "0"), (10, "10")))
    series = Series(name="s", points=((0, 0), (5, 10)), colour=3, titles=("one", "two"))
    tags = parse(svg.chart([series], axis, axis, label="l", width=468, height=266, marks=(5.0,)))
    circles = [a for tag, a in tags.found if tag == "circle"]
    # 54 and 14 pixels beside, 24 above and 42 below the axes.
    assert [(float(a["cx"]), float(a["cy"])) for a in circles] == [(54, 224), (254, 24)]
    (line,) = [a["points"] for tag, a in tags.found if tag == "polyline"]
    assert line == "54.0,224.0 254.0,24.0"
    (mark,) = [a for tag, a in tags.found if a.get("class") == "mark"]
    assert float(mark["y1"]) == 124
    assert {"one", "two"} <= set(tags.text)
