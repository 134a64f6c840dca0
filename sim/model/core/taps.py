# SPDX-License-Identifier: Apache-2.0
"""From words of counts to taps in the feeder and blocks for the issuer, one after the other."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_hw.feeder.replay import LEAST_TAPS
from sim.model.core.bursts import EARLY
from sim.model.core.memory import Times, numbers
from sim.model.cycles import Queue
from sim.program.passes import Pass

#: From a tap's position to the taps that the feeder keeps, if it has room.
RESOLVED = 3
#: From a block's end to a place for a tap.
BLOCK_ROOM = 2


class Shape(NamedTuple):
    """The products of a block for some I, in their order.

    Fields
    ------
    words
        Weights.
    first
        The products that meet a weight for the first time.
    runs, ends
        Weights of each run, and its last product.
    """

    words: int
    first: Times
    runs: Times
    ends: Times


@dataclasses.dataclass(frozen=True)
class Block:
    """Where a block of a tile lies: counts of its taps, and the words of weights before it."""

    counts: tuple[int, ...]
    first_weight: int
    _shapes: dict[int, Shape] = dataclasses.field(default_factory=dict)

    def shape(self, interleave: int) -> Shape:
        """Give its products."""
        if interleave not in self._shapes:
            counts = np.array(self.counts)
            runs = np.count_nonzero(counts > numbers(int(counts.max()))[:, None], axis=1)
            words = int(runs.sum())
            before = np.cumsum(runs) - runs
            first = numbers(words) + np.repeat(before * (interleave - 1), runs)
            ends = (before + runs) * interleave - 1
            self._shapes[interleave] = Shape(words, first, runs, ends)
        return self._shapes[interleave]


def blocks_of(step: Pass) -> list[Block]:
    """Give the blocks of a tile; a tile without survivors has one without taps."""
    schedule = step.schedule
    assert schedule is not None
    counts = schedule.matrix.counts
    alive = counts[counts > 0].tolist()
    period = schedule.matrix.period
    blocks, words = [], 0
    for start in range(0, max(len(alive), 1), period):
        part = tuple(alive[start : start + period])
        blocks.append(Block(part, words))
        words += sum(part)
    return blocks


class Scanner:
    """The scanner, tile by tile: taps as they enter the queue behind it.

    Parameters
    ----------
    counts : uint8 [J]
    lookahead : int
    queue : Queue
        Of taps.
    begin : int
        The first cycle in which counts are let in.
    """

    def __init__(
        self, counts: npt.NDArray[np.uint8], lookahead: int, queue: Queue, begin: int
    ) -> None:
        words = [counts[j : j + lookahead] for j in range(0, len(counts), lookahead)]
        self._survivors = [int(np.count_nonzero(word)) for word in words]
        self._queue = queue
        self._time = begin + 1  # of the next step, at the earliest
        self._held = EARLY  # when the last tap of the tile before leaves
        self.loads: list[int] = []  # when each word was taken

    def tile(self, offers: list[int]) -> Iterator[int]:
        """Give when each tap of a tile enters the queue, its words coming at these times."""
        queue, time = self._queue, self._time
        held = False
        last = len(self._survivors) - 1
        for number, survivors in enumerate(self._survivors):
            load = max(offers[number], time - 1)
            self.loads.append(load)
            time = load + 1
            final = max(survivors, 1) - 1
            for position in range(final + 1):
                done = number == last and position == final
                if survivors or (done and not held):
                    if held:
                        time = max(time, queue.enters_from())
                        yield time
                    else:
                        time = max(time, self._held)
                    held = True
                if done:
                    self._time = time + 1
                    self._held = max(time + 1, queue.enters_from())
                    yield self._held
                time += 1


class Resolver:
    """The way of a tap through the resolver, which stands still as a whole."""

    def __init__(self) -> None:
        self._slot = 0
        self._time = -1
        self._inside: list[tuple[int, int]] = []  # slot and cycle in which a tap leaves

    def take(self, earliest: int, room: int) -> tuple[int, int]:
        """Take a tap; give when, and when it leaves, given when there is room for it."""
        inside = self._inside
        entered = False
        while inside and not entered:
            slot, leaves = inside[0]
            free = slot - 1 - self._slot
            if free > 0 and earliest <= self._time + free:
                then = max(earliest, self._time + 1)
                self._slot += then - self._time
                self._time = then
                entered = True
            else:
                self._slot, self._time = slot, leaves
                inside.pop(0)
                entered = earliest <= leaves
        if not entered:
            then = max(earliest, self._time + 1)
            self._slot += then - self._time
            self._time = then
        exit_slot = self._slot + RESOLVED
        leaves = self._time + RESOLVED
        if inside:
            before, when = inside[-1]
            leaves = when + exit_slot - before
        leaves = max(leaves, room)
        inside.append((exit_slot, leaves))
        return self._time, leaves


class TapTimes:
    """Scanner, queues, assembler and the way to the taps that the feeder keeps, block by block.

    Parameters
    ----------
    step : Pass
    begin : int
        The first cycle in which the engine is at work.
    opened : int
        From when on the feeder takes positions.
    """

    def __init__(self, step: Pass, *, begin: int, opened: int) -> None:
        config, schedule = step.config, step.schedule
        assert schedule is not None
        self._queue = Queue(config.row_blocks * config.max_period)
        self._blocks = Queue(config.row_blocks)
        self._scanner = Scanner(schedule.matrix.counts, config.lookahead, self._queue, begin)
        self._sent: Iterator[int] = iter(())
        self._resolver = Resolver()
        self._kept = max(LEAST_TAPS, 2 * config.max_period)
        self._popped = opened - 1
        self._done: list[int] = []  # when the block of each tap was read for the last time
        self._taps = 0

    @property
    def loads(self) -> list[int]:
        """When each word of counts was taken."""
        return self._scanner.loads

    def tile(self, offers: Times) -> None:
        """Begin with a tile, whose words of counts are on offer at these times."""
        self._sent = self._scanner.tile(offers.tolist())

    def block(self, taps: int, *, final: bool) -> tuple[list[int], int]:
        """Send the next block, all those before it being read and loaded.

        Parameters
        ----------
        taps : int
            None: a tile without survivors sends one entry.
        final : bool
            It is the tile's last one.

        Returns
        -------
        list of int
            When each tap is kept in the feeder.
        int
            From when on the block is on offer to the issuer.
        """
        written, first = [], len(self._done)
        taps = max(taps, 1)
        for tap in range(taps):
            sent = next(self._sent)
            earliest = max(self._queue.enter(sent), self._popped + 1)
            if tap == taps - 1:
                earliest = max(earliest, self._blocks.enters_from())
            full = first + tap - self._kept
            room = self._done[full] + BLOCK_ROOM if full >= 0 else EARLY
            self._popped, leaves = self._resolver.take(earliest, room)
            self._queue.leave(self._popped)
            written.append(leaves)
        if final:
            for _ in self._sent:
                raise AssertionError("taps are left")
        self._taps = taps
        return written, self._blocks.enter(self._popped)

    def read(self, time: int) -> None:
        """Take note of when the last word of the block is asked for."""
        self._done.extend([time] * self._taps)

    def loaded(self, time: int) -> None:
        """Take note of when the issuer loads the block."""
        self._blocks.leave(time)
