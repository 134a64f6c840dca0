# SPDX-License-Identifier: Apache-2.0
"""Area of processing elements, and how many of them stand on the area of SparTen's units.

Cells only, on both sides: no placement, wires or clock tree. ``benchmarks/area.py`` measures the
element; its line and weight buffers, feeder, output stage and ports are not in it, but SparTen's
figure has the buffers of its clusters.
"""

import enum
import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sim.model.constants import NODE_NM, SPARTEN, Quantity, Setting, exact
from sim.tables import read_table

TABLE = Path(__file__).parent / "data" / "osu_freepdk45.csv"
#: Technology that Yosys maps to.
MAPPED_NM = 180

#: Style regbin of `csp_h_32x32`: depth 128, T ≤ 32, 24-bit sums.
ELEMENT = Quantity(
    low=31487,
    mid=35300,
    high=50977,
    unit="µm²",
    node_nm=NODE_NM,
    source="benchmarks/results/area.json, Yosys on OSU's 0.18 µm cells: low, mid: enables of "
    "registers as clock gates, high: as multiplexers; low: by the square of the lengths, mid and "
    "high: by FreePDK45's cells of the same names",
)
#: Two banks of an accumulation buffer as SRAM: 192 bytes each, for which CACTI's least is taken.
BANKS = exact(2 * 860, "µm²", NODE_NM, "CACTI 7 (cacti_sram.csv): 256 bytes, one port")
#: The same element with SRAM for accumulation buffer.
MEMORY_ELEMENT = Quantity(
    low=6266,
    mid=7116,
    high=8314,
    unit="µm²",
    node_nm=NODE_NM,
    source=f"as with registers, but for the accumulation buffer: {BANKS.source}",
)
#: A cluster of 32 units with its buffers, and its multipliers and adders alone.
SPARTEN_CLUSTER = exact(0.766, "mm²", NODE_NM, f"{SPARTEN}, from memory")
SPARTEN_MAC = exact(0.0432, "mm²", NODE_NM, SPARTEN)
SPARTEN_UNITS = 32


class Part(enum.StrEnum):
    """Part of a processing element."""

    ACCUMULATOR = "accumulation buffer"
    MULTIPLIER = "multiplier"
    REST = "operands, run, adder, control"


def part_of(module: str) -> Part:
    """Give the part that a module of the netlist belongs to."""
    name = module.rsplit(".", 1)[-1]
    if name.startswith("bank"):
        return Part.ACCUMULATOR
    return Part.MULTIPLIER if name == "multiplier" else Part.REST


def split(cells: Mapping[str, int]) -> tuple[Counter[str], Counter[str]]:
    """Tell flip-flops from all other cells."""
    registers = Counter({name: n for name, n in cells.items() if name.startswith("DFF")})
    return registers, Counter(cells) - registers


def cells_area(cells: Mapping[str, int], areas: Mapping[str, float] | None = None) -> float:
    """Give the area of cells, µm²; those of 45 nm unless others are given."""
    areas = areas or _areas()
    return sum(areas[name] * number for name, number in cells.items())


@functools.cache
def _areas() -> dict[str, float]:
    return {
        row["cell"]: float(row["width_um"]) * float(row["height_um"])
        for row in read_table(TABLE).rows
    }


def ideal(area: float) -> float:
    """Scale an area from 0.18 µm to 45 nm by the square of the lengths."""
    return area * (NODE_NM / MAPPED_NM) ** 2


def sparten_unit(units: int = SPARTEN_UNITS) -> float:
    """Give the area of so many units of SparTen with their buffers, µm²."""
    return 1e6 * SPARTEN_CLUSTER.mid * units / SPARTEN_UNITS


def equal_elements(
    units: int, setting: Setting = Setting.MID, *, element: Quantity = ELEMENT
) -> float:
    """Give how many processing elements stand on the area of so many units of SparTen.

    Parameters
    ----------
    units : int
        Multipliers of SparTen.
    setting : Setting
        Which area of an element is taken; ``low`` gives the most elements.
    element : Quantity
        With registers or with memories.
    """
    return sparten_unit(units) / element.at(setting)
