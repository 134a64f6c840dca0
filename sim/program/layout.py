# SPDX-License-Identifier: Apache-2.0
"""Where the channels of a pixel lie."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Channels of a pixel in chunks of ``cols`` elements; an element without channel is a hole.

    Parameters
    ----------
    places : int64 [C]
        The element of each channel, ascending.
    chunks : int
        Chunks of a pixel: as many beats, or four times as many if an element is an int32.
    cols : int
    """

    places: Ints
    chunks: int
    cols: int

    @classmethod
    def dense(cls, channels: int, cols: int) -> "Layout":
        """Give the layout without holes but at the end."""
        return cls(
            places=np.arange(channels, dtype=np.int64), chunks=-(-channels // cols), cols=cols
        )

    @classmethod
    def grouped(cls, groups: int, filters: int, cols: int, *, share: bool) -> "Layout":
        """Give a layout in which each group of ``filters`` begins with a chunk.

        With ``share``, as many small groups as a chunk can hold begin in it together.
        """
        together = max(1, cols // filters) if share else 1
        group, filter = np.divmod(np.arange(groups * filters, dtype=np.int64), filters)
        each = -(-filters // cols)
        first = group // together * each * cols + group % together * filters
        return cls(places=first + filter, chunks=-(-groups // together) * each, cols=cols)

    @classmethod
    def joined(cls, parts: Sequence["Layout"]) -> "Layout":
        """Give the layout of maps one after the other, each from its own chunk on."""
        starts = [0, *itertools.accumulate(part.chunks for part in parts)]
        places = [
            part.places + first * part.cols for part, first in zip(parts, starts, strict=False)
        ]
        return cls(places=np.concatenate(places), chunks=starts[-1], cols=parts[0].cols)

    def repeated(self, pixels: int) -> "Layout":
        """Give the layout of pixels one after the other as one pixel."""
        first = np.arange(pixels, dtype=np.int64)[:, None] * (self.chunks * self.cols)
        places = (first + self.places).reshape(-1)
        return Layout(places=places, chunks=pixels * self.chunks, cols=self.cols)

    @property
    def channels(self) -> int:
        """Channels C."""
        return len(self.places)

    def chunks_of(self, channels: range) -> range:
        """Give the chunks from that of the first to that of the last of some channels."""
        first, last = int(self.places[channels[0]]), int(self.places[channels[-1]])
        return range(first // self.cols, last // self.cols + 1)
