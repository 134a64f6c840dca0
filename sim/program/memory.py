# SPDX-License-Identifier: Apache-2.0
"""The areas of the window of memory that a program owns."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError

Bytes = npt.NDArray[np.uint8]

#: An offset has 32 bits.
WINDOW_BYTES = 1 << 32
#: Least alignment of an area; it is never below a beat.
AREA_ALIGNMENT = 64
#: A burst does not cross this boundary, so a map begins at one.
MAP_ALIGNMENT = 4096


class Region(NamedTuple):
    """Some bytes of the window."""

    offset: int
    size: int


class Areas:
    """Gives out the window from its start on.

    Parameters
    ----------
    cols : int
        Bytes of a beat.
    limit : int
        Bytes of the largest window.
    """

    def __init__(self, cols: int, limit: int = WINDOW_BYTES) -> None:
        self._limit = limit
        self._alignment = max(AREA_ALIGNMENT, cols)
        self._size = 0
        self._data: list[tuple[int, bytes]] = []
        self._known: dict[bytes, Region] = {}
        #: All areas by name; those of equal contents are one.
        self.regions: dict[str, Region] = {}

    @property
    def size(self) -> int:
        """Bytes that were given out, the last area as whole beats."""
        return self._aligned(self._size, self._alignment)

    def reserve(self, name: str, size: int, alignment: int = 1) -> Region:
        """Give an area that holds nothing yet.

        Raises
        ------
        CspError
            It does not fit the window.
        """
        offset = self._aligned(self._size, max(alignment, self._alignment))
        end = self._aligned(offset + size, self._alignment)
        if end > self._limit:
            raise CspError(f"{name}: {end} bytes of memory, an offset reaches {self._limit}")
        self._size = end
        self.regions[name] = Region(offset, size)
        return self.regions[name]

    def store(self, name: str, data: bytes) -> Region:
        """Give an area that holds data, one that exists if it can be."""
        if data not in self._known:
            region = self.reserve(name, len(data))
            self._data.append((region.offset, data))
            self._known[data] = region
        self.regions[name] = self._known[data]
        return self._known[data]

    def fill(self, region: Region, data: bytes) -> None:
        """Put data into an area that was reserved."""
        assert len(data) <= region.size
        self._data.append((region.offset, data))

    def contents(self) -> tuple[int, Bytes]:
        """Give the offset and the bytes from the first to the last area with data."""
        start = min(offset for offset, _ in self._data)
        memory = np.zeros(self.size - start, dtype=np.uint8)
        for offset, data in self._data:
            memory[offset - start :][: len(data)] = np.frombuffer(data, dtype=np.uint8)
        return start, memory

    @staticmethod
    def _aligned(offset: int, alignment: int) -> int:
        return -(-offset // alignment) * alignment
