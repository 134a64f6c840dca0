# SPDX-License-Identifier: Apache-2.0
"""Cycles of the engine, equal to its counters to the cycle.

The model holds against the reference memory: every stream offers a word in every cycle from the
one after the layer's command was taken, and results are always taken. Activations and weights then
never stall the array (a block needs at least as many cycles as it has words), so what is left are
the gaps between surviving taps, the places of the accumulation buffer, and the drain.

``docs/hardware.md`` gives the same recurrences as formulas.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from csp_hw.array import Array
from csp_hw.axi.queue import FREED
from csp_hw.config import CspConfig
from csp_hw.drain import queue_depth
from csp_hw.issue import PRODUCT_LATENCY
from csp_hw.output import INT32_WORDS
from csp_hw.slice import SLICE

#: Cycles from a word's leaving the queue behind the array until another one may be asked for.
ASKED_AGAIN = 3
#: Cycles from a tile's last product to the first cycle in which its drain can be asked for.
DRAIN_START = Array.DRAIN_DISTANCE + PRODUCT_LATENCY - 1
#: Cycles from the step that finds a block's last tap until the block's first product.
START_UP = 7
#: Cycles from a live word's acceptance by the output stage until it is idle again.
OUTPUT_LATENCY = 15
OUTPUT_LATENCY_INT32 = 11
#: Cycles from the last parameter's transfer until the output stage accepts a word.
PARAMS_LATENCY = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What the engine is asked to do in one layer.

    Parameters
    ----------
    counts : uint8[J]
    period : int
        T
    chunks : int
        K
    int32 : bool
        Results are int32: four words each.
    tiles : sequence of bool[I, rows]
        Live lanes of each tile.
    """

    counts: npt.NDArray[np.uint8]
    period: int
    chunks: int
    int32: bool
    tiles: Sequence[npt.NDArray[np.bool_]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cycles:
    """Cycles of one layer and what each was spent on; names as in :mod:`csp_hw.counters`."""

    issued: int
    stalled_counts: int
    stalled_bank: int
    stalled_drain: int

    @property
    def cycles(self) -> int:
        """All cycles in which the layer was at work."""
        return self.issued + self.stalled_counts + self.stalled_bank + self.stalled_drain


class Queue:
    """Times at which the words of a buffered queue may enter, and are offered.

    A word enters if no more than ``depth`` others are inside or left in the cycle before, moves to
    the slice when that has a place, and is offered when those before it have left, from the next
    cycle on.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._moved = -1
        self._left: list[int] = []

    def enters_from(self, ahead: int = 0) -> int:
        """Give the first cycle in which the next word finds room, or so many words ahead."""
        index = len(self._left) + ahead - self._depth - 1
        return self._left[index] + FREED if index >= 0 else 0

    def enter(self, time: int) -> int:
        """Let the next word enter, and give the first cycle in which it is offered.

        The word before it must have left already, see :meth:`leave`.
        """
        slice_free = self._left[-SLICE] + 1 if len(self._left) >= SLICE else 0
        self._moved = max(time + 1, self._moved + 1, slice_free)
        return max(self._moved, self._left[-1] if self._left else 0) + 1

    def leave(self, time: int) -> None:
        """Note when the word that entered last leaves."""
        self._left.append(time)

    def state(self) -> list[int]:
        """Give the times that what comes may depend on."""
        return [self._moved, *self._left[-max(self._depth, SLICE) :]]

    def resume(self, state: list[int]) -> None:
        """Go on from the times of a state."""
        self._moved, *self._left = state


@dataclasses.dataclass
class _Survivor:
    count: int
    end: bool
    sent: int  # cycle in which it enters the queue of taps


def _scan(work: Work, lookahead: int, queue: Queue) -> Iterator[_Survivor]:
    """Give the surviving taps of all tiles as the scanner sends them."""
    words = [work.counts[j : j + lookahead] for j in range(0, len(work.counts), lookahead)]
    survivors = [[int(count) for count in word if count] for word in words]
    held: _Survivor | None = None
    time = 2  # the first word goes through a slice
    for _ in work.tiles:
        for number, word in enumerate(survivors):
            for position, count in enumerate(word or [0]):
                tile_done = number == len(words) - 1 and position == max(len(word) - 1, 0)
                if count or (tile_done and (held is None or held.end)):
                    if held is not None:
                        resolved = held.sent if held.end else time
                        held.sent = max(resolved, queue.enters_from())
                        # A tap whose tile has ended leaves on its own.
                        time = max(time, held.sent)
                        yield held
                    held = _Survivor(count, tile_done, time + 1)
                elif tile_done and held is not None:
                    held.end, held.sent = True, time + 1
                time += 1
    if held is not None:
        held.sent = max(held.sent, queue.enters_from())
        yield held


class _Drain:
    """The drain of tile after tile, the queue behind it and the output stage."""

    def __init__(self, config: CspConfig, work: Work, *, loaded: int) -> None:
        self._work = work
        self._latency = Array.drain_latency(config)
        self._room = queue_depth(config)
        self._free = 0
        self._taken: list[int] = []
        self._accepts = loaded
        self._moved = -1
        self.idle = 0

    def tile(self, finished: int, live: npt.NDArray[np.bool_]) -> int:
        """Drain a tile whose last product is issued in cycle ``finished``; give its last cycle."""
        ask = max(finished + DRAIN_START, self._free) - 1
        for lane in np.repeat(live.reshape(-1), self._work.chunks):
            asked = len(self._taken)
            room = self._taken[asked - self._room] + ASKED_AGAIN if asked >= self._room else 0
            ask = max(ask + 1, room)
            left = self._taken[-1] if self._taken else -1
            self._moved = max(ask + self._latency + 2, self._moved + 1, left)
            taken = max(self._moved + 1, self._accepts)
            self._taken.append(taken)
            self._accepts = taken + (INT32_WORDS if lane and self._work.int32 else 1)
            latency = OUTPUT_LATENCY_INT32 if self._work.int32 else OUTPUT_LATENCY
            self.idle = max(self.idle, taken + (latency if lane else ASKED_AGAIN))
        self._free = ask + 1
        return ask


def cycles(config: CspConfig, work: Work) -> Cycles:
    """Give the cycles of one layer.

    Time 0 is the cycle after the layer's command was taken.
    """
    taps = Queue(config.row_blocks * config.max_period)
    blocks = Queue(config.row_blocks)
    drain = _Drain(config, work, loaded=work.chunks * config.cols - 1 + PARAMS_LATENCY)
    tiles = iter(work.tiles)
    half = 0
    began = -1  # when the tile before was loaded
    free_from = [0, 0]  # of each half of the accumulation buffer
    live = work.tiles[0]
    starts_tile = True
    popped, done = -1, 0
    gathered: list[int] = []
    issued = bank = 0

    for tap in _scan(work, config.lookahead, taps):
        offered = taps.enter(tap.sent)
        gathered.append(tap.count)
        complete = tap.end or len(gathered) == work.period
        popped = max(offered, popped + 1, blocks.enters_from() if complete else 0)
        taps.leave(popped)
        if not complete:
            continue

        load = max(blocks.enter(popped), done)
        if starts_tile:
            live = next(tiles)
            overlaps = config.overlaps(work.chunks, len(live))
            half = 1 - half
            # Whether its place is free is known a cycle later.
            place = max(free_from[half] if overlaps else max(free_from), began + 1) + 1
            bank += max(0, place - max(load, done + 1, began + 2))
            load = began = max(load, place)
        blocks.leave(load)
        products = len(live) * sum(gathered)
        issued += products
        done = load + max(products, 1)
        if tap.end:
            last = drain.tile(done, live)
            if overlaps:
                free_from[half] = last + 1
            else:
                free_from = [last + 1] * 2
        starts_tile = tap.end
        gathered = []

    computed = done + 1
    return Cycles(
        issued=issued,
        stalled_counts=computed - issued - bank,
        stalled_bank=bank,
        stalled_drain=drain.idle - computed,
    )


def start_up(config: CspConfig, work: Work) -> int:
    """Give the fewest cycles before the first product, by when the first block is complete.

    It needs a cycle for each of its taps and for each word of counts up to its last tap, or up to
    the end of a tile that has no more taps than a block.
    """
    alive = np.flatnonzero(work.counts)
    last = alive[work.period - 1] if len(alive) > work.period else len(work.counts) - 1
    return max(min(work.period, len(alive)), int(last) // config.lookahead + 1) + START_UP


def last_drain(config: CspConfig, work: Work) -> int:
    """Give the cycles from the last product until the engine is idle, the parameters being in."""
    drain = _Drain(config, work, loaded=0)
    drain.tile(0, work.tiles[-1])
    return drain.idle - 1
