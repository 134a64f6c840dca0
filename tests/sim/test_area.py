# SPDX-License-Identifier: Apache-2.0
"""Area of an element: the constants are what was measured, and cells are counted as they stand."""

import json
import sys
from pathlib import Path

import pytest

from sim.model import area
from sim.model.area import BANKS, ELEMENT, MEMORY_ELEMENT, Part
from sim.model.constants import Setting

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "benchmarks" / "results" / "area.json"


def parts_of(way, node):
    document = json.loads(MEASURED.read_text(encoding="utf-8"))[way]
    return {Part(name): sum(part[node].values()) for name, part in document.items()}


@pytest.mark.parametrize(
    ("setting", "way", "node"),
    [
        (Setting.LOW, "gated", "um2_180"),
        (Setting.MID, "gated", "um2_45"),
        (Setting.HIGH, "multiplexed", "um2_45"),
    ],
)
def test_constants_are_those_measured(setting, way, node):
    parts = parts_of(way, node)
    if node == "um2_180":
        parts = {part: area.ideal(value) for part, value in parts.items()}
    whole = sum(parts.values())
    assert ELEMENT.at(setting) == pytest.approx(whole, abs=1)
    without = whole - parts[Part.ACCUMULATOR]
    assert MEMORY_ELEMENT.at(setting) == pytest.approx(without + BANKS.mid, abs=1)


def test_areas_follow_from_the_cells():
    document = json.loads(MEASURED.read_text(encoding="utf-8"))
    for way in ("gated", "multiplexed"):
        for part in document[way].values():
            registers, others = area.split(part["cells"])
            assert sum(registers.values()) == part["registers"]
            assert sum(others.values()) == part["gates"]
            assert area.cells_area(registers) == pytest.approx(part["um2_45"]["registers"], abs=0.1)
            assert area.cells_area(others) == pytest.approx(part["um2_45"]["logic"], abs=0.1)
    # 128 sums of 24 bits, and a register for the word that each bank gives.
    registers = document["gated"][Part.ACCUMULATOR]["registers"]
    assert registers == 128 * 24 + 2 * 24


def test_cells_by_hand():
    registers, others = area.split({"DFFPOSX1": 2, "NAND2X1": 3, "LATCH": 1})
    assert registers == {"DFFPOSX1": 2}
    assert others == {"NAND2X1": 3, "LATCH": 1}
    assert area.cells_area(registers) == pytest.approx(2 * 2.66 * 2.47)
    assert area.cells_area(others, {"NAND2X1": 10, "LATCH": 5}) == 35
    assert area.ideal(16) == 1


def test_equal_area():
    assert area.sparten_unit(32) == 766_000
    assert area.equal_elements(1024) == pytest.approx(1024 * 766_000 / 32 / 35300)
    assert area.equal_elements(1024, Setting.LOW) > area.equal_elements(1024, Setting.HIGH)
    more = area.equal_elements(1024, element=MEMORY_ELEMENT)
    assert more / area.equal_elements(1024) == pytest.approx(35300 / 7116)


@pytest.fixture
def benchmark(monkeypatch):
    # It imports the helpers of its neighbour, as a script does.
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "area", raising=False)
    import area as module

    yield module
    sys.modules.pop("area")


LIBRARY = """
library(x) { cell (DFFPOSX1) { area : 96; pin(D) { } }
cell (INVX1) { cell_footprint : inv; area : 16.5; }
cell (LATCH) { area : 0; } }
"""


def test_areas_of_a_library(benchmark):
    assert benchmark.liberty_areas(LIBRARY) == {"DFFPOSX1": 96, "INVX1": 16.5, "LATCH": 56}


def test_cells_and_gates_of_a_hierarchy(benchmark):
    def register(clock):
        return {"type": "$_DFF_P_", "connections": {"C": [clock]}}

    clk = {"clk": {"bits": [2]}}
    bank = {"a": register(7), "b": register(7), "c": register(8), "d": register(2)}
    netlist = {
        "modules": {
            "block": {
                "ports": clk,
                "cells": {
                    "x": {"type": "block.bank0"},
                    "y": {"type": "block.bank0"},
                    "z": {"type": "block.multiplier"},
                    "w": register(2),
                },
            },
            "block.bank0": {"ports": clk, "cells": bank},
            "block.multiplier": {"ports": clk, "cells": {"n": {"type": "NAND2X1"}}},
        }
    }
    cells = benchmark.count_cells(netlist)
    assert cells == {
        Part.REST: {"$_DFF_P_": 1},
        Part.ACCUMULATOR: {"$_DFF_P_": 8},
        Part.MULTIPLIER: {"NAND2X1": 1},
    }
    assert benchmark.count_gates(netlist) == {
        Part.REST: 0,
        Part.ACCUMULATOR: 4,
        Part.MULTIPLIER: 0,
    }


def test_a_cell_without_an_area_is_an_error(benchmark):
    with pytest.raises(SystemExit, match=r"^no area of INVX9 in the library$"):
        benchmark.summary({Part.REST: {"INVX9": 1}}, {"INVX1": 1.0})


def test_a_missing_library_is_named(benchmark, monkeypatch):
    monkeypatch.setenv("LIBERTY", "/nowhere.lib")
    with pytest.raises(SystemExit, match=r"^/nowhere\.lib not found: apt-get install"):
        benchmark.liberty()
