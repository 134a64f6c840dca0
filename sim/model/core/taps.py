# SPDX-License-Identifier: Apache-2.0
"""From words of counts to taps in the feeder and blocks for the issuer, one after the other."""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_hw.feeder.replay import LEAST_TAPS
from csp_hw.slice import SLICE
from sim.model.core.bursts import EARLY
from sim.model.core.memory import Times, chain, numbers
from sim.model.cycles import Queue
from sim.program.passes import Pass

#: From a tap's position to the taps that the feeder keeps, if it has room.
RESOLVED = 3
#: From a tap's entry into its queue to its leaving.
WAITS = 2
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
    """The steps of the scanner: which word and which tap each of them is.

    A word takes a step for each of its surviving taps, at least one. A tap leaves when the next one
    is found, the last one of a tile a cycle after the tile's last step.

    Parameters
    ----------
    counts : uint8 [J]
    lookahead : int
    """

    def __init__(self, counts: npt.NDArray[np.uint8], lookahead: int) -> None:
        alive = np.add.reduceat(counts > 0, np.arange(0, len(counts), lookahead), dtype=np.int64)
        steps = np.maximum(alive, 1)
        self.words = steps.cumsum() - steps  # first step of each word
        self.total = int(steps.sum())
        word = np.repeat(numbers(len(alive)), alive)
        within = numbers(len(word)) - np.repeat(alive.cumsum() - alive, alive)
        if not len(word):  # a tile without survivors sends an entry at its last step
            word, within = np.array([len(alive) - 1]), np.array([0])
        #: Step of each tap and, behind them, the end of the tile; the words that must have come.
        self.taps = np.append(self.words[word] + within, self.total)
        self.word = np.append(word, len(alive) - 1)

    def seen(self, offers: Times, begin: int) -> Times:
        """Give the earliest cycle of each tap's step and of the end, of words that come so."""
        ahead = np.maximum.accumulate(np.maximum(offers + 1, begin) - self.words)
        ahead = np.maximum(ahead, begin)
        times: Times = ahead[self.word] + self.taps
        return times


class Resolver:
    """The way of a tap through the resolver, which stands still as a whole.

    Parameters
    ----------
    last : int
        The cycle before the first in which it takes a tap.
    """

    def __init__(self, last: int) -> None:
        self.last = last  # when the tap before was taken
        self._stops: list[tuple[int, int]] = []  # from when until when it will stand still

    def block(self, earliest: Times, room: Times) -> tuple[Times, Times]:
        """Take taps; give when, and when each leaves.

        Parameters
        ----------
        earliest : int64 array
            When each is there.
        room : int64 array
            From when on there is a place for each behind the resolver; never falls.
        """
        taken = chain(earliest, self.last)
        left = taken + RESOLVED

        def stand(first: int, since: int, until: int) -> None:
            """Hold back what is inside from a tap on, and what comes."""
            begun = int(np.searchsorted(taken, since))
            left[first:begun] += until - since
            if begun < len(taken):
                before = int(taken[begun - 1]) if begun else self.last
                taken[begun:] = chain(np.maximum(earliest[begun:], until), before)
                left[begun:] = taken[begun:] + RESOLVED

        stops, first = self._stops, 0
        for since, until in stops:
            stand(0, since, until)
        while True:
            late = np.flatnonzero(room[first:] > left[first:])
            if not len(late):
                break
            first += int(late[0])
            since, until = int(left[first]), int(room[first])
            stops.append((since, until))
            stand(first, since, until)
            first += 1
        self.last = int(taken[-1])
        self._stops = [stop for stop in stops if stop[0] > self.last]
        return taken, left


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
        self._scanner = Scanner(schedule.matrix.counts, config.lookahead)
        self._begin = begin + 1  # of the next step
        self._held = EARLY  # when the last tap of the tile before entered its queue
        self._seen = self._scanner.taps
        self._tap = 0  # of the tile
        self._sent = EARLY
        # When taps left what they wait in, so that later ones had room: a ring of each queue.
        self._joined = np.full(config.row_blocks * config.max_period, EARLY, dtype=np.int64)
        self._read = np.full(max(LEAST_TAPS, 2 * config.max_period), EARLY, dtype=np.int64)
        self._blocks = Queue(config.row_blocks)
        self._resolver = Resolver(opened - 1)
        self._popped = EARLY  # when the tap before joined its block
        self._resolved = np.full(SLICE, EARLY, dtype=np.int64)  # the last taps into the resolver
        self._count = 0
        self._size = 0  # of the block at work
        self._offers: Times | None = None
        self._tile_began = self._begin
        self._steps: list[int] = []
        self.loads: list[int] = []  # when each word of counts was taken, if that was to be told

    def tile(self, offers: Times, *, tell: bool) -> None:
        """Begin with a tile, whose words of counts are on offer at these times.

        With ``tell``, note when each word is taken.
        """
        scanner = self._scanner
        self._seen = scanner.seen(offers, self._begin)
        self._tap = 0
        self._tile_began = self._begin
        # The first tap waits for the last one of the tile before to leave.
        self._sent = max(int(self._seen[0]), self._held)
        self._offers = offers if tell else None
        self._steps = [self._sent]  # of taps, if they are to be told

    def _taken(self) -> None:
        """Note when each word of counts of a tile is taken."""
        offers = self._offers
        assert offers is not None
        scanner = self._scanner
        # When the step of each tap was; those of words without taps follow what is before them.
        steps = np.full(scanner.total, EARLY, dtype=np.int64)
        steps[scanner.taps[:-1]] = self._steps[: len(scanner.taps) - 1]
        steps[scanner.words] = np.maximum(steps[scanner.words], offers + 1)
        steps[0] = max(int(steps[0]), self._tile_began)
        times = chain(steps)
        before = np.append(self._tile_began - 1, times[:-1])
        self.loads += np.maximum(offers, before[scanner.words]).tolist()

    def block(self, taps: int, *, final: bool) -> tuple[Times, int]:
        """Send the next block, all those before it being read and loaded.

        Parameters
        ----------
        taps : int
            None: a tile without survivors sends one entry.
        final : bool
            It is the tile's last one.

        Returns
        -------
        int64 array
            When each tap is kept in the feeder.
        int
            From when on the block is on offer to the issuer.
        """
        taps = self._size = max(taps, 1)
        scanner, tap = self._scanner, self._tap
        steps = scanner.taps[tap + 1 : tap + taps + 1]
        places = (self._count + numbers(taps)) % len(self._joined)
        seen = self._seen[tap + 1 : tap + taps + 1]
        sent = np.maximum(seen, self._joined[places] + 1)
        sent[0] = max(int(sent[0]), self._sent + int(steps[0]) - int(scanner.taps[tap]))
        sent = np.maximum.accumulate(sent - steps) + steps
        if self._offers is not None:
            self._steps += sent.tolist()
        if final:
            # The tile's last step does not wait for its last tap to leave.
            before = int(sent[-2]) if taps > 1 else self._sent
            last = max(int(seen[-1]), before + int(steps[-1]) - int(scanner.taps[tap + taps - 1]))
            if self._offers is not None:
                self._taken()
            self._begin, self._held = last, int(sent[-1])
        self._sent = int(sent[-1])
        self._tap += taps
        earliest = sent + WAITS
        earliest[-1] = max(int(earliest[-1]), self._blocks.enters_from())
        room = self._read[(self._count + numbers(taps)) % len(self._read)] + BLOCK_ROOM
        popped = chain(earliest, self._popped)
        # A slice before the resolver takes a tap when the one two before it has left.
        resolved, kept = self._resolver.block(popped + 1, room)
        free = np.append(self._resolved, resolved)
        popped = np.maximum(popped, free[:-SLICE] + 1)
        self._joined[places] = popped
        self._popped, self._resolved = int(popped[-1]), free[-SLICE:]
        self._count += taps
        return kept, self._blocks.enter(int(popped[-1]))

    def read(self, time: int) -> None:
        """Take note of when the last word of the block is asked for."""
        size = self._size
        self._read[(self._count - size + numbers(size)) % len(self._read)] = time

    def loaded(self, time: int) -> None:
        """Take note of when the issuer loads the block."""
        self._blocks.leave(time)
