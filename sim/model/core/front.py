# SPDX-License-Identifier: Apache-2.0
"""From what the ports read to products: feeder, skip controller and issuer, tile by tile."""

import dataclasses

import numpy as np

from csp_hw.config import CspConfig
from csp_hw.feeder import lines
from csp_hw.feeder.layouts import lane_slots
from csp_hw.feeder.queue import CREDITS
from csp_hw.store import ReplayStore
from sim.model.core.bursts import EARLY
from sim.model.core.memory import Times, chain
from sim.model.core.reader import Bounded, ReadPort
from sim.model.core.results import DrainTimes
from sim.model.core.taps import (
    BLOCK_ROOM,
    Block,
    Resolver,
    Scanner,
    blocks_of,
    kept_taps,
)
from sim.model.core.walk import MapPlaces, lane_times
from sim.model.cycles import _Queue
from sim.program.passes import Pass

#: From a pass's start, beyond the larger side of the kernel, until the feeder's blocks begin.
SCANNED = 4
#: From a word's request to its being on offer, beyond the line buffer's latency.
WORD = 3


@dataclasses.dataclass
class Spent:
    """Cycles of the engine by what they were spent on; names as in :mod:`csp_hw.counters`."""

    issued: int = 0
    stalled_tiles: int = 0
    stalled_counts: int = 0
    stalled_activations: int = 0
    stalled_weights: int = 0
    stalled_bank: int = 0
    stalled_drain: int = 0


class Converter:
    """Beats cut into words, see :class:`csp_hw.width.WidthConverter`; word by word."""

    def __init__(self, ratio: int, offers: Times) -> None:
        self._ratio = ratio
        self._offers = offers.tolist()
        self._loaded = EARLY
        self._word = 0
        self._left = EARLY  # when the last word of all left
        self.taken: list[int] = []  # beats
        self.loads: list[int] = []

    def offer(self) -> int:
        """Give from when on the next word is on offer."""
        if self._word % self._ratio == 0:
            taken = self._offers[len(self.taken)]
            if self.taken:
                taken = max(taken, self.taken[-1] + 1, self._loaded + 1)
            self.taken.append(taken)
            self._loaded = max(taken, self._left)
            self.loads.append(self._loaded)
            return self._loaded + 1
        return max(self._loaded + 1, self._left + 1)

    def take(self, time: int) -> None:
        """Let the next word leave."""
        self._left = time
        self._word += 1


class Front:
    """Tile after tile, from the ports' beats to the drain's last request.

    Parameters
    ----------
    step : Pass
    start : int
        Cycle in which the pass is launched.
    entries : Converter
        Words of the list of tiles.
    counts, weights : int64 array
        Cycles in which words enter the stores: of the first tile, or of all tiles.
    port : ReadPort
        Of the map.
    drain : DrainTimes
    """

    def __init__(
        self,
        step: Pass,
        start: int,
        *,
        entries: Converter,
        counts: Times,
        weights: Times,
        port: ReadPort,
        client: Bounded,
        drain: DrainTimes,
    ) -> None:
        schedule = step.schedule
        assert schedule is not None
        config = step.config
        fields = step.fields
        self._step, self._config, self._schedule = step, config, schedule
        self._fields = fields
        self._start = start
        self._entries = entries
        self._counts, self._weights = counts, weights
        self._port, self._client, self._drain = port, client, drain
        self._open = start + max(fields["kernel_h"], fields["kernel_w"]) + SCANNED
        self._blocks = blocks_of(step)
        self._places = MapPlaces(step, config)
        last = schedule.tiles[-1]
        self._lanes = lane_times(step, last.base + last.interleave * config.rows)
        self._latency = lines.latency(config)
        # Entries and walker.
        self._entry_left, self._measured_left = EARLY, EARLY
        self._walk_taken, self._span_taken = EARLY, EARLY
        self._stepped = EARLY  # the lane walked over last
        self._lane = 0
        self._command_moved = EARLY
        self._released: list[int] = []  # groups
        self._groups = 0
        # Taps.
        queue = config.row_blocks * config.max_period
        self._tap_queue, self._block_queue = _Queue(queue), _Queue(config.row_blocks)
        self._scanner = Scanner(schedule.matrix.counts, config.lookahead, self._tap_queue, start + 2)
        self._resolver = Resolver()
        self._popped = EARLY
        self._tap = 0
        self._block_done: list[int] = []  # when the block of each tap was read for the last time
        # Words.
        self._asked = EARLY
        self._credits = [EARLY] * CREDITS  # when each of the last words left the queue
        self._words = 0
        self._word_room = np.full(config.row_words, EARLY, dtype=np.int64)
        self._weight_room = np.full(config.run_words, EARLY, dtype=np.int64)
        self._weight = 0
        self._weight_sent = EARLY
        # Issuer.
        self._done = start + 1  # the last cycle that is accounted for
        self._half = 0
        self._free_from = [0, 0]
        self._command_taken = EARLY
        self._finish = EARLY
        self._taken = EARLY
        self.spent = Spent()
        self.count_reads: list[int] = []
        self.weight_reads: list[int] = []
        self.feeder_idle = 0
        self.idle = 0

    # --- The map ------------------------------------------------------------------------------

    def _stored(self, beats: int) -> int:
        """Give the cycle in which so many beats have been stored."""
        client = self._client
        self._port.run(lambda: client.known >= beats)
        return client.taken(beats - 1)

    # --- A tile -------------------------------------------------------------------------------

    def run(self) -> None:
        """Go through all tiles."""
        for number in range(len(self._schedule.tiles)):
            self._tile(number)
        self._end()

    def _tile(self, number: int) -> None:
        config, tile = self._config, self._schedule.tiles[number]
        rows, interleave = config.rows, tile.interleave
        # The entry.
        entry = max(self._entries.offer(), self._entry_left, self._start + 1)
        self._entries.take(entry)
        self._entry_left = max(entry + 1, self._measured_left)
        measured = max(self._entry_left + 1, self._open, self._walk_taken, self._span_taken)
        tile_walked = self._stepped if number else EARLY
        walk_taken = max(measured + 1, tile_walked)
        span_taken = max(measured + 1, self._taken)
        self._measured_left = measured
        self._walk_taken, self._span_taken = walk_taken, span_taken
        # Lanes.
        lanes = self._lanes
        slots = lane_slots(config)
        stepped = max(self._stepped, walk_taken)
        if tile.base > self._lane:
            first = self._lane
            time = max(self._stepped + self._cost(first), walk_taken + 1)
            stepped = time + int(lanes[tile.base - 1] - lanes[first])
        for group in range(interleave):
            first = tile.base + group * rows
            before = stepped
            time = max(before + self._cost(first), walk_taken + 1)
            index = self._groups - slots
            if index >= 0:
                time = max(time, self._released[index] + 1)
            stepped = time + int(lanes[first + rows - 1] - lanes[first])
            if not group:
                stepped = max(stepped, self._command_moved + 1)
            self._groups += 1
        self._lane = tile.base + interleave * rows
        self._stepped = stepped
        self._command_moved = max(stepped + 1, self._command_taken)
        offered = self._command_moved + 1
        # The gate.
        adopted = max(span_taken + 1, self._finish)
        limit = tile.base + self._places.near
        need = tile.base + interleave * rows + self._places.far
        since = max(adopted + 2, self._open + 2)
        self._client.allow(self._places.below(limit), since)
        needed = self._places.needed(need)
        complete = self._stored(needed) + 1 if needed else self._open + 1
        taken = max(self._finish, span_taken + 2, complete + 1, stepped + 3)
        self._taken = taken
        self._work(number, taken, offered)

    def _cost(self, lane: int) -> int:
        lanes = self._lanes
        return int(lanes[lane] - lanes[lane - 1]) if lane else 1

    def _work(self, number: int, taken: int, command: int) -> None:
        """Read and compute a tile that the feeder has taken."""
        config, schedule = self._config, self._schedule
        tile = schedule.tiles[number]
        fields = self._fields
        start = self._start
        words = len(self._scanner._survivors)
        fresh = not fields["counts_resident"] or not number
        if fresh:
            base = 0 if fields["counts_resident"] else number * words
            offers = (self._counts[base : base + words] + ReplayStore.LATENCY).tolist()
        else:
            offers = [start + ReplayStore.LATENCY] * words
        taps = self._scanner.tile(offers)
        sends = np.empty(0, dtype=np.int64)
        if self._schedule.steps:
            if not fields["weights_resident"] or not number:
                base = 0 if fields["weights_resident"] else number * schedule.steps
                sends = self._weights[base : base + schedule.steps] + ReplayStore.LATENCY
            else:
                sends = np.full(schedule.steps, start + ReplayStore.LATENCY, dtype=np.int64)
        first_weight = len(self.weight_reads)
        overlaps = config.overlaps(schedule.matrix.chunks, tile.interleave)
        for index, block in enumerate(self._blocks):
            final = index == len(self._blocks) - 1
            written = []
            for position in range(max(len(block.counts), 1)):
                end, sent = next(taps)
                offered = self._tap_queue.enter(sent)
                complete = position == max(len(block.counts), 1) - 1
                earliest = max(offered, self._popped + 1, self._open)
                if complete:
                    earliest = max(earliest, self._block_queue.enters_from())
                room = EARLY
                full = self._tap - kept_taps(config)
                if full >= 0:
                    room = self._block_done[full] + BLOCK_ROOM
                self._popped, leaves = self._resolver.take(earliest, room)
                self._tap_queue.leave(self._popped)
                written.append(leaves)
                self._tap += 1
                assert end == (final and complete)
            available = self._block_queue.enter(self._popped)
            arrived = self._ask(block, written, tile.interleave, taken, final)
            # Load.
            load = max(available, self._done)
            if not index:
                load = self._first(load, available, command, overlaps)
            else:
                self.spent.stalled_counts += load - self._done
            self._block_queue.leave(load)
            self._issue(block, arrived, tile.interleave, load, sends)
        for _ in taps:
            raise AssertionError("taps are left")
        self.count_reads += self._reads(self._scanner.loads)
        if len(self.weight_reads) > first_weight:
            part = self.weight_reads[first_weight:]
            self.weight_reads[first_weight:] = self._reads(part)
        live = schedule.live(tile)
        last = self._drain.tile(self._done, live)
        if overlaps:
            self._free_from[self._half] = last + 1
        else:
            self._free_from = [last + 1] * 2

    @staticmethod
    def _reads(sent: list[int]) -> list[int]:
        return list(sent)

    def _first(self, load: int, available: int, command: int, overlaps: bool) -> int:
        """Load the first block of a tile."""
        spent, done = self.spent, self._done
        self._half = 1 - self._half
        place = self._free_from[self._half] if overlaps else max(self._free_from)
        load = max(load, command, place)
        tiles = max(0, command - (done + 1))
        bank = max(0, place - max(command, available, done + 1))
        spent.stalled_tiles += tiles
        spent.stalled_bank += bank
        spent.stalled_counts += load - done - tiles - bank
        self._command_taken = load
        return load

    def _ask(
        self, block: Block, written: list[int], interleave: int, taken: int, final: bool
    ) -> Times:
        """Ask for a block's words; give when each has entered the row buffer."""
        taps = len(block.counts)
        asked = max(self._asked, taken)
        if not taps:
            time = max(written[0] + 1, asked + 1, self._credits[self._words % CREDITS] + 1)
            for _ in range(interleave):
                self._released.append(time + self._latency - 1)
                time += 1
            self._asked = self._finish = time - 1
            self._block_done.append(self._asked)
            return np.empty(0, dtype=np.int64)
        count = taps * interleave
        earliest = np.full(count, EARLY, dtype=np.int64)
        earliest[:taps] = np.array(written) + 1
        places = (self._words + np.arange(count)) % len(self._word_room)
        room = self._word_room[places] + 1
        old = min(count, CREDITS)
        for word in range(old):
            earliest[word] = max(
                int(earliest[word]), self._credits[(self._words + word) % CREDITS] + 1
            )
        free = chain(earliest, asked)
        before = self._credits[(self._words - 1) % CREDITS]
        entered = chain(np.maximum(free + self._latency + WORD, room), before)
        if count > CREDITS:
            earliest[CREDITS:] = np.maximum(earliest[CREDITS:], entered[:-CREDITS] + 1)
        asks = chain(earliest, asked)
        assert np.all(asks + self._latency + WORD <= entered)
        for word in range(max(0, count - CREDITS), count):
            self._credits[(self._words + word) % CREDITS] = int(entered[word])
        self._words += count
        self._asked = int(asks[-1])
        self._block_done += [self._asked] * taps
        if final:
            ends = asks[taps - 1 :: taps] + self._latency - 1
            self._released += ends.tolist()
            self._finish = self._asked
        return entered

    def _issue(
        self, block: Block, entered: Times, interleave: int, load: int, sends: Times
    ) -> None:
        """Issue a block's products."""
        spent = self.spent
        if not block.counts:
            self._done = load + 1
            spent.stalled_counts += 1
            return
        counts = np.array(block.counts)
        taps = len(counts)
        time = load
        at = block.first_weight
        room = self._weight_room
        word_base = self._words - taps * interleave
        for chunk in range(int(counts.max())):
            run = int(np.count_nonzero(counts > chunk))
            places = (self._weight + np.arange(run)) % len(room)
            offers = np.maximum(sends[at : at + run], room[places] + 1)
            sent = chain(offers, self._weight_sent)
            self.weight_reads += sent.tolist()
            self._weight_sent = int(sent[-1])
            for pixel in range(interleave):
                if chunk and pixel:
                    time += run * (interleave - pixel)
                    break
                arrived = sent + 1 if not pixel else np.full(run, EARLY, dtype=np.int64)
                words = np.full(run, EARLY, dtype=np.int64)
                if not chunk:
                    words = entered[pixel * taps : (pixel + 1) * taps] + 1
                issued = chain(np.maximum(arrived, words), time)
                could = np.concatenate(([time], issued[:-1])) + 1
                waits = int((issued - could).sum())
                for_words = int(np.maximum(words - could, 0).sum())
                spent.stalled_activations += for_words
                spent.stalled_weights += waits - for_words
                time = int(issued[-1])
            room[places] = time
            self._weight += run
            at += run
            spent.issued += run * interleave
        self._word_room[(word_base + np.arange(taps * interleave)) % len(self._word_room)] = time
        self._done = time

    def _end(self) -> None:
        """Store what is left of the map; find when all is at rest."""
        total = self._places.total
        since = self._finish + 3
        self._client.allow(total, since)
        stored = self._stored(total)
        words = max(self._credits)
        self.feeder_idle = 1 + max(
            self._finish + 2, stored + 1, words + 1, self._command_taken + 1, self._open + 1
        )
        self.idle = max(self._done + 1, self._drain.idle)
        self.spent.stalled_drain = self.idle - 1 - self._done
