# SPDX-License-Identifier: Apache-2.0
"""Which groups of rows share a tile: the choice of I."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_hw.config import CspConfig

Ints = npt.NDArray[np.int64]

#: See :func:`choose_tiles`.
SPARE = 64


class Tile(NamedTuple):
    """I groups that share each weight word: row p, pixel i has l = base + i · rows + p."""

    number: int
    base: int
    interleave: int


class Arrival(NamedTuple):
    """When the input of a tile is there, if it enters at a beat a cycle.

    Parameters
    ----------
    beats : int
        Of the whole map.
    positions : int
        Of the grid on which pixels are numbered; the map's beats are taken to be spread evenly.
    reach : int
        How many positions behind a tile's last one its taps read.
    """

    beats: int
    positions: int
    reach: int

    def cycles(self, end: int) -> int:
        """Give the cycles until all is there that a tile up to position ``end`` − 1 reads."""
        return min(end + self.reach, self.positions) * self.beats // self.positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileCosts:
    """What a tile costs, as far as the choice of I asks.

    Parameters
    ----------
    config : CspConfig
    chunks : int
        K
    steps : int
        Σn, the steps of a tile with I = 1.
    beats : int
        Beats of the counts, ceil(J / L).
    words : int
        Result words of a chunk of a pixel.
    arrival : Arrival, optional
        If not all of the input is there from the beginning.
    """

    config: CspConfig
    chunks: int
    steps: int
    beats: int
    words: int
    arrival: Arrival | None = None

    def cycles(self, tiles: Sequence[Tile]) -> int:
        """Estimate the cycles of tiles, every lane live.

        Tiles take the halves of the accumulation buffer in turn. One computes as soon as its half
        is drained, or both halves if it needs them, and its input is there; drains follow each
        other.
        """
        free, half = [0, 0], 0
        computed = drained = 0
        for tile in tiles:
            half = 1 - half
            overlaps = self.config.overlaps(self.chunks, tile.interleave)
            start = max(computed, free[half] if overlaps else max(free))
            if self.arrival is not None:
                end = tile.base + tile.interleave * self.config.rows
                start = max(start, self.arrival.cycles(end))
            computed = start + max(tile.interleave * self.steps, self.beats)
            length = self.config.rows * self.chunks * tile.interleave * self.words
            drained = max(computed, drained) + length
            free[half] = drained
            if not overlaps:
                free = [drained, drained]
        return drained


def choose_tiles(groups: Ints, costs: TileCosts, interleave: int | None = None) -> tuple[Tile, ...]:
    """Give the tiles of the cheapest plan for groups of rows (ascending numbers).

    Plans are the largest I that lets tiles overlap and the largest one that the buffer holds,
    each with a smaller last tile or with tiles of about equal size; the first of equals is taken.
    A tile holds consecutive groups only, so a gap between groups ends it. K ≤ depth. No I exceeds
    ``interleave``, if it is given.

    Where the input is still arriving, a large tile waits long for its last pixel, while the array
    idles. Then each smaller I makes plans, too, and each I plans with a tapered end: the last tile
    is halved until one group is left, so that little is to do behind the input's last beat. But a
    small tile uses a weight less often, so it is taken only if it saves more than 1/``SPARE``, and
    then the fewest tiles that do.
    """
    config, chunks = costs.config, costs.chunks
    largest = min(config.max_interleave, interleave or config.max_interleave)
    sizes = [min(space // chunks, largest) for space in (config.half_depth, config.depth)]
    segments = _segments(groups)

    def plans(sizes: Iterable[int], *, tapered: bool) -> list[tuple[Tile, ...]]:
        return [
            _tiles(segments, size, config.rows, balanced=balanced, tapered=tapered)
            for size in dict.fromkeys(sizes)
            if size
            for balanced in (False, True)
        ]

    first = min(plans(sizes, tapered=False), key=costs.cycles)
    if costs.arrival is None:
        return first
    smaller = plans(range(1, sizes[0]), tapered=False)
    smaller += plans((*range(1, sizes[0]), *sizes), tapered=True)
    smaller.sort(key=len)
    least = min(map(costs.cycles, [first, *smaller]))
    limit = least + least // SPARE
    return next(plan for plan in (first, *smaller) if costs.cycles(plan) <= limit)


def _segments(groups: Ints) -> list[tuple[int, int]]:
    """Give the first group and the length of each stretch of consecutive groups."""
    starts = np.flatnonzero(np.diff(groups, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(groups))
    return list(zip(groups[starts].tolist(), lengths.tolist(), strict=True))


def _tiles(
    segments: list[tuple[int, int]], interleave: int, rows: int, *, balanced: bool, tapered: bool
) -> tuple[Tile, ...]:
    tiles: list[Tile] = []
    for first, length in segments:
        count = -(-length // interleave)
        if balanced:
            edges = [length * number // count for number in range(count + 1)]
        else:
            edges = [*range(0, length, interleave), length]
        if tapered and (first, length) == segments[-1]:
            while edges[-1] - edges[-2] > 1:
                edges.insert(-1, (edges[-2] + edges[-1] + 1) // 2)
        for start, stop in itertools.pairwise(edges):
            tiles.append(Tile(len(tiles), (first + start) * rows, stop - start))
    return tuple(tiles)
