# SPDX-License-Identifier: Apache-2.0
"""Places for the multipliers and block RAMs of an 8 × 8 array on an ECP5-85k.

nextpnr's placers find good places for the logic, but put the few hundred multipliers and memories,
which stand in seven lines across the device, where there is room, and the logic follows them. So
these are given places beforehand: each wants to be where the dataflow puts it, and all together
get the sites that cost the least, the squares of the ways added up.

The array lies across the device, its first row below the middle; sums leave it upwards, to the
output stage and the pooler; feeder, weights and counts are below.
"""

import re
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

#: Where blocks of four multipliers, or memories, begin; where they stand in a block; their lines.
BLOCKS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
SITES = {
    "MULT18X18D": {
        f"X{x + dx}/Y{y}/MULT18_{n}": (x + dx, y)
        for y in (10, 34, 58)
        for x in BLOCKS
        for dx, n in ((0, 0), (1, 1), (4, 4), (5, 5))
    },
    "DP16KD": {
        f"X{x + 2 * n}/Y{y}/EBR{n}": (x + 2 * n, y)
        for y in (22, 46, 70, 82)
        for x in BLOCKS
        for n in range(4)
    },
}
#: Columns and lines of the device's logic; lines between rows of the array, of which the last one
#: is at the top.
WIDTH, ROW_PITCH, ARRAY_TOP = 122, 5.5, 24


def wish(name: str, rows: int, cols: int) -> tuple[float, float]:
    """Give where a cell should be, by its name: column and line of the device."""

    def middle(col: int) -> float:
        return (col + 0.5) * WIDTH / cols

    if found := re.search(r"row_(\d+)\.pe_(\d+)\.", name):
        row, col = map(int, found.groups())
        # Neighbours in a column share a line of sites.
        return middle(col) + 2 * (row % 4) - 3, ARRAY_TOP + (rows - 1 - row) * ROW_PITCH
    if found := re.search(r"\.column_(\d+)\.", name):
        return middle(int(found[1])), 10
    if found := re.search(r"output\.filters\.(\d+)\.", name):
        return 10 + 9 * int(found[1]), 18
    if found := re.search(r"line_buffer\.bank_(\d+)\.", name):
        return 10 + 6 * int(found[1]), 84
    places = {
        "pooler.": (64, 16),
        "weight_store.": (85, 84),
        "count_store.": (110, 84),
        "row_buffer.": (10, 72),
        "run_buffer.": (64, 72),
    }
    return next((place for part, place in places.items() if part in name), (60, 60))


def place(cells: dict[str, Any], rows: int, cols: int) -> None:
    """Give all multipliers and block RAMs of a netlist's cells a place, in nextpnr's attribute.

    Parameters
    ----------
    cells : dict
        Of a flat module in Yosys' JSON, by name.
    rows, cols : int
        Of the array.
    """
    for kind, sites in SITES.items():
        names = [name for name, cell in cells.items() if cell["type"] == kind]
        wishes = np.array([wish(name, rows, cols) for name in names]).reshape(-1, 2)
        ways = wishes[:, None, :] - np.array(list(sites.values()))
        chosen = linear_sum_assignment((ways**2).sum(axis=2))
        bels = list(sites)
        for cell, site in zip(*chosen, strict=True):
            cells[names[cell]]["attributes"]["BEL"] = bels[site]
