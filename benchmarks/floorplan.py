# SPDX-License-Identifier: Apache-2.0
"""Places for the multipliers and block RAMs of an 8 × 8 array on an ECP5-85k.

nextpnr's placers find good places for the logic, but put the few hundred multipliers and memories,
which stand in seven lines across the device, where there is room, and the logic follows them. So
these are given places beforehand: each wants to be where the dataflow puts it, and all together
get the sites that cost the least, the squares of the ways added up.

The array is in the middle, its first row at the bottom; sums leave it upwards, to the output stage.
On the left are feeder and pooler, on the right weights, counts and the parameters of filters.
"""

import re
from typing import Any

import numpy as np

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
#: Where the array is, in columns and lines of the device: eight blocks wide.
LEFT, WIDTH, TOP, HEIGHT = 22, 75, 18, 68
#: Where other things are, by a part of their names.
PLACES = {
    "pooler.": (10, 18),
    "output.filters.": (108, 22),
    "line_buffer.": (10, 64),
    "row_buffer.": (18, 70),
    "weight_store.": (108, 70),
    "count_store.": (108, 46),
    "run_buffer.": (30, 82),
    "feeder.": (10, 58),
}


def wish(name: str, rows: int, cols: int) -> tuple[float, float]:
    """Give where a cell should be, by its name: column and line of the device."""

    def middle(col: int) -> float:
        return LEFT + (col + 0.5) * WIDTH / cols

    if found := re.search(r"row_(\d+)\.pe_(\d+)\.", name):
        row, col = map(int, found.groups())
        return middle(col), TOP + (rows - row - 0.5) * HEIGHT / rows
    if found := re.search(r"output\.column_(\d+)\.", name):
        return middle(int(found[1])), 10
    return next(place for part, place in PLACES.items() if part in name)


def place(cells: dict[str, Any], rows: int, cols: int) -> None:
    """Give all multipliers and block RAMs of a netlist's cells a place, in nextpnr's attribute.

    Parameters
    ----------
    cells : dict
        Of a flat module in Yosys' JSON, by name.
    rows, cols : int
        Of the array.
    """
    from scipy.optimize import linear_sum_assignment  # others import this without the extra

    for kind, sites in SITES.items():
        names = [name for name, cell in cells.items() if cell["type"] == kind]
        wishes = np.array([wish(name, rows, cols) for name in names]).reshape(-1, 2)
        ways = wishes[:, None, :] - np.array(list(sites.values()))
        chosen = linear_sum_assignment((ways**2).sum(axis=2))
        bels = list(sites)
        for cell, site in zip(*chosen, strict=True):
            cells[names[cell]]["attributes"]["BEL"] = bels[site]
