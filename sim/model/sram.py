# SPDX-License-Identifier: Apache-2.0
"""Energy of SRAM accesses, interpolated in CACTI's table by size and width."""

import contextlib
import dataclasses
import functools
from pathlib import Path

import numpy as np

from csp_algo.errors import CspError
from sim.model.constants import NODE_NM, Constants
from sim.tables import read_table

TABLE = Path(__file__).parent / "data" / "cacti_sram.csv"
#: A wider word is spread over banks of this width.
WIDEST = 256
#: How often the size is doubled in search of a memory that the table knows.
_LARGER = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """Energy of one word, pJ."""

    read: float
    write: float


def access(bytes_: int, width_bits: int, constants: Constants, *, node_nm: int = NODE_NM) -> Access:
    """Give the energy of one access to a memory.

    Between the table's sizes, then between its widths, the logarithm of the energy is linear in
    the logarithm of size or width. A word wider than 256 bits is a row of equal banks.

    Parameters
    ----------
    bytes_ : int
        Size of the memory.
    width_bits : int
        Of a word.

    Raises
    ------
    CspError
        The table has nothing around this size and width.
    """
    banks = -(-width_bits // WIDEST)
    factor = banks * constants.sram_factor
    size, width = bytes_ / banks, width_bits / banks
    return Access(
        read=factor * _energy(node_nm, "read_pJ", size, width),
        write=factor * _energy(node_nm, "write_pJ", size, width),
    )


@functools.cache
def _curves(node_nm: int, column: str) -> dict[int, tuple[list[float], list[float]]]:
    """Give log size and log energy of each width."""
    curves: dict[int, tuple[list[float], list[float]]] = {}
    for row in read_table(TABLE).rows:
        if int(row["node_nm"]) == node_nm:
            sizes, energies = curves.setdefault(int(row["width_bits"]), ([], []))
            sizes.append(float(np.log(float(row["bytes"]))))
            energies.append(float(np.log(float(row[column]))))
    return curves


@functools.cache
def _energy(node_nm: int, column: str, size: float, width: float) -> float:
    widths, energies = [], []
    for known, (sizes, values) in sorted(_curves(node_nm, column).items()):
        if np.exp(sizes[0]) - 0.5 <= size <= np.exp(sizes[-1]) + 0.5:
            widths.append(float(np.log(known)))
            energies.append(float(np.interp(np.log(size), sizes, values)))
    if not widths or not np.exp(widths[0]) - 0.5 <= width <= np.exp(widths[-1]) + 0.5:
        raise CspError(
            f"{TABLE.name}: no {node_nm} nm memory around {size:g} bytes with words of "
            f"{width:g} bits"
        )
    return float(np.exp(np.interp(np.log(width), widths, energies)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """An SRAM that is read and written by whole words.

    Parameters
    ----------
    bytes : int
    width_bits : int
    """

    bytes: int
    width_bits: int

    def read(self, amount: float, constants: Constants) -> float:
        """Give the energy of reading so many bytes, pJ."""
        return 8 * amount / self.width_bits * access(self.bytes, self.width_bits, constants).read

    def write(self, amount: float, constants: Constants) -> float:
        """Give the energy of writing so many bytes, pJ."""
        return 8 * amount / self.width_bits * access(self.bytes, self.width_bits, constants).write


@functools.cache
def at_least(words: int, width_bits: int) -> Memory:
    """Give a memory of so many words, or the smallest larger one that CACTI's table knows.

    Small memories are dearer here than they need be.

    Raises
    ------
    CspError
        The table knows none.
    """
    exact = -(-words * width_bits // 8)
    starts = (exact, 1 << (exact - 1).bit_length())
    for size in sorted(start << shift for start in starts for shift in range(_LARGER)):
        memory = Memory(bytes=size, width_bits=width_bits)
        with contextlib.suppress(CspError):
            memory.read(0, Constants())
            return memory
    raise CspError(f"{TABLE.name}: no memory of {words} words of {width_bits} bits or more")
