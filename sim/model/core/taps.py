# SPDX-License-Identifier: Apache-2.0
"""From words of counts to taps in the feeder and blocks for the issuer, one after the other."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from csp_hw.config import CspConfig
from csp_hw.feeder.replay import LEAST_TAPS
from sim.model.cycles import _Queue
from sim.program.passes import Pass

#: From a tap's position to the taps that the feeder keeps, if it has room.
RESOLVED = 3
#: From a block's end to a place for a tap.
BLOCK_ROOM = 2


class Block(NamedTuple):
    """Where a block of a tile lies: counts of its taps, and the words of weights before it."""

    counts: tuple[int, ...]
    first_weight: int


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
    queue : _Queue
        Of taps.
    begin : int
        The first cycle in which counts are let in.
    """

    def __init__(self, counts, lookahead: int, queue: _Queue, begin: int) -> None:
        words = [counts[j : j + lookahead] for j in range(0, len(counts), lookahead)]
        self._survivors = [[int(count) for count in word if count] for word in words]
        self._queue = queue
        self._time = begin + 1  # of the next step, at the earliest
        self._held = 0  # until when the tap of the tile before holds the next one back
        self.loads: list[int] = []  # when each word of the tile was taken

    def tile(self, offers: list[int]) -> Iterator[tuple[bool, int]]:
        """Give (end, cycle of entry) of each tap of a tile whose words come at these times."""
        queue, time = self._queue, self._time
        self.loads = loads = []
        held = False
        last = len(self._survivors) - 1
        for number, survivors in enumerate(self._survivors):
            load = max(offers[number], time - 1)
            if loads:
                load = max(load, loads[-1] + 1)
            loads.append(load)
            time = load + 1
            final = max(len(survivors), 1) - 1
            for position in range(final + 1):
                done = number == last and position == final
                if survivors or (done and not held):
                    if held:
                        time = max(time, queue.enters_from())
                        yield False, time
                    else:
                        time = max(time, self._held)
                    held = True
                if done:
                    self._held = max(time + 1, queue.enters_from())
                    yield True, self._held
                time += 1
        self._time = time


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


def kept_taps(config: CspConfig) -> int:
    """Give the taps that the feeder keeps."""
    return max(LEAST_TAPS, 2 * config.max_period)


def empty_counts(step: Pass) -> bool:
    """Whether no tap survives."""
    assert step.schedule is not None
    return not bool(np.any(step.schedule.matrix.counts))
