# SPDX-License-Identifier: Apache-2.0
"""From words of counts to taps in the feeder and blocks for the issuer, one after the other."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_hw.axi.queue import FREED
from csp_hw.config import CspConfig
from csp_hw.feeder.replay import kept_taps
from csp_hw.slice import SLICE
from sim.model.core.memory import EARLY, Recent, Times, chain, numbers
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
    products
    first
        The products that meet a weight for the first time; never less than 1 apart.
    ends
        The last product that needs each weight: that of its run.
    """

    words: int
    products: int
    first: Times
    ends: Times


class Asks(NamedTuple):
    """The words of activations of some blocks for some I: a block's pixel by pixel, tap by tap.

    Fields
    ------
    words
        All of them.
    first
        Those of each block's first pixel.
    ends
        How many there are up to the end of each block.
    """

    words: int
    first: Times
    ends: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """Where a block of a tile lies: counts of its taps, and the words of weights before it."""

    counts: tuple[int, ...]
    first_weight: int
    weights: int
    _shapes: dict[int, Shape] = dataclasses.field(default_factory=dict)

    def shape(self, interleave: int) -> Shape:
        """Give its products."""
        if interleave not in self._shapes:
            counts = np.array(self.counts)
            runs = np.count_nonzero(counts > numbers(int(counts.max()))[:, None], axis=1)
            words = self.weights
            before = runs.cumsum() - runs
            first = numbers(words) + np.repeat(before * (interleave - 1), runs)
            ends = np.repeat((before + runs) * interleave - 1, runs)
            self._shapes[interleave] = Shape(words, words * interleave, first, ends)
        return self._shapes[interleave]


@dataclasses.dataclass(frozen=True)
class Group:
    """Blocks of a tile that go through scanner and feeder at once.

    They are so few that whatever gives them a place left before the first of them came.

    Parameters
    ----------
    blocks : tuple of Block
    taps : int
        All of them; a tile without survivors has one without taps, for which the scanner sends one.
    ends : tuple of int
        How many there are up to the end of each block.
    """

    blocks: tuple[Block, ...]
    taps: int
    ends: tuple[int, ...]
    _asks: dict[int, Asks] = dataclasses.field(default_factory=dict)

    def asks(self, interleave: int) -> Asks:
        """Give its words of activations."""
        if interleave not in self._asks:
            ends = tuple(end * interleave for end in self.ends)
            first = [
                numbers(len(block.counts)) + end - len(block.counts) * interleave
                for block, end in zip(self.blocks, ends, strict=True)
            ]
            self._asks[interleave] = Asks(ends[-1], np.concatenate(first), ends)
        return self._asks[interleave]


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
        blocks.append(Block(part, words, sum(part)))
        words += sum(part)
    return blocks


def groups_of(blocks: Sequence[Block], config: CspConfig) -> list[Group]:
    """Put blocks together as far as queues and buffers hold them."""
    most = min(config.row_blocks * config.max_period, kept_taps(config))
    parts: list[list[Block]] = []
    taps = 0
    for block in blocks:
        taps += len(block.counts)
        if not parts or taps > most or len(parts[-1]) == config.row_blocks:
            parts.append([])
            taps = len(block.counts)
        parts[-1].append(block)
    groups = []
    for part in parts:
        ends = tuple(itertools.accumulate(max(len(block.counts), 1) for block in part))
        groups.append(Group(tuple(part), ends[-1], ends))
    return groups


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
        self.steps: list[int] = self.taps.tolist()  # the same steps

    def lead(self, offers: Times, begin: int) -> Times:
        """Give the earliest cycle of each tap's step and of the end, less the number of the step.

        Parameters
        ----------
        offers : int64 array
            From when on each word is on offer.
        begin : int
            The first step.
        """
        ahead = np.maximum.accumulate(np.maximum(offers + 1, begin) - self.words)
        np.maximum(ahead, begin, out=ahead)
        times: Times = ahead[self.word]
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
        self.stops: list[tuple[int, int]] = []  # from when until when it will stand still

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
        if not self.stops and room[-1] <= left[0]:
            self.last = int(taken[-1])
            return taken, left

        def stand(first: int, since: int, until: int) -> None:
            """Hold back what is inside from a tap on, and what comes."""
            begun = int(np.searchsorted(taken, since))
            left[first:begun] += until - since
            if begun < len(taken):
                before = int(taken[begun - 1]) if begun else self.last
                taken[begun:] = chain(np.maximum(earliest[begun:], until), before)
                left[begun:] = taken[begun:] + RESOLVED

        stops, first = self.stops, 0
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
        self.stops = [stop for stop in stops if stop[0] > self.last]
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
        self._lead = self._scanner.taps  # of the tile at work
        self._tap = 0  # of the tile
        self._sent = EARLY
        # When taps left what they wait in, so that later ones had room.
        self._joined = Recent(config.row_blocks * config.max_period + 1)
        self._read = Recent(kept_taps(config))
        self._blocks = Queue(config.row_blocks)
        self._resolver = Resolver(opened - 1)
        self._popped = EARLY  # when the tap before joined its block
        self._resolved = np.full(SLICE, EARLY, dtype=np.int64)  # the last taps into the resolver
        self._offers: Times | None = None
        self._tile_began = self._begin
        self._steps: list[int] = []
        self.loads: list[int] = []  # when each word of counts was taken, if that was to be told

    @property
    def begin(self) -> int:
        """The last step of the tile before: nothing that comes depends on anything older."""
        return self._begin

    def state(self) -> list[Times]:
        """Give the times that what comes may depend on, between two tiles."""
        resolver = self._resolver
        single = [self._begin, self._held, self._popped, resolver.last, *self._resolved.tolist()]
        return [
            np.array(single, dtype=np.int64),
            self._joined.all(),
            self._read.all(),
            np.array(self._blocks.state(), dtype=np.int64),
            np.array(resolver.stops, dtype=np.int64).reshape(-1),
        ]

    def resume(self, state: Sequence[Times]) -> None:
        """Go on from the times of a state."""
        single, joined, read, blocks, stops = state
        self._begin, self._held, self._popped, self._resolver.last = single[:4].tolist()
        self._resolved = single[4:]
        self._joined.extend(joined)
        self._read.extend(read)
        self._blocks.resume(blocks.tolist())
        self._resolver.stops = [(since, until) for since, until in stops.reshape(-1, 2).tolist()]

    def tile(self, offers: Times, *, tell: bool) -> None:
        """Begin with a tile, whose words of counts are on offer at these times.

        With ``tell``, note when each word is taken.
        """
        scanner = self._scanner
        self._lead = scanner.lead(offers, self._begin)
        self._tap = 0
        self._tile_began = self._begin
        # The first tap waits for the last one of the tile before to leave.
        self._sent = max(int(self._lead[0]) + scanner.steps[0], self._held)
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

    def group(self, group: Group, *, final: bool) -> tuple[Times, list[int]]:
        """Send the next blocks, all those before them being read and loaded.

        Parameters
        ----------
        group : Group
        final : bool
            They are the tile's last ones.

        Returns
        -------
        int64 array
            When each tap is kept in the feeder.
        list of int
            When each block's last tap joins it.
        """
        scanner, tap, taps = self._scanner, self._tap, group.taps
        end = tap + taps
        steps = scanner.taps[tap + 1 : end + 1]
        sent = self._joined.before(taps) - steps
        sent += FREED
        np.maximum(sent, self._lead[tap + 1 : end + 1], out=sent)
        sent[0] = max(int(sent[0]), self._sent - scanner.steps[tap])
        np.maximum.accumulate(sent, out=sent)
        sent += steps
        if self._offers is not None:
            self._steps += sent.tolist()
        last_sent = int(sent[-1])
        if final:
            # The tile's last step does not wait for its last tap to leave.
            before = int(sent[-2]) if taps > 1 else self._sent
            lead = max(int(self._lead[end]), before - scanner.steps[end - 1])
            if self._offers is not None:
                self._taken()
            self._begin, self._held = lead + scanner.steps[end], last_sent
        self._sent = last_sent
        self._tap = end
        earliest = sent
        earliest += WAITS
        for number, last in enumerate(group.ends):
            place = self._blocks.enters_from(number)
            earliest[last - 1] = max(int(earliest[last - 1]), place)
        room = self._read.before(taps) + BLOCK_ROOM
        popped = chain(earliest, self._popped)
        # A slice before the resolver takes a tap when the one two before it has left.
        resolved, kept = self._resolver.block(popped + 1, room)
        free = np.concatenate((self._resolved, resolved))
        np.maximum(popped, free[:-SLICE] + 1, out=popped)
        self._joined.extend(popped)
        self._popped, self._resolved = int(popped[-1]), free[-SLICE:]
        return kept, [int(popped[last - 1]) for last in group.ends]

    def enter(self, popped: int) -> int:
        """Let the next block enter its queue; give from when on it is on offer to the issuer."""
        return self._blocks.enter(popped)

    def read(self, taps: int, time: int) -> None:
        """Take note of when the last word of the next block is asked for."""
        self._read.fill(time, taps)

    def loaded(self, time: int) -> None:
        """Take note of when the issuer loads the block."""
        self._blocks.leave(time)
