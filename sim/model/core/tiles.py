# SPDX-License-Identifier: Apache-2.0
"""When the feeder takes each tile: list, lanes and map; tile by tile."""

from typing import NamedTuple

from csp_algo.errors import CspError
from csp_hw.feeder.layouts import lane_slots
from sim.model.core.memory import EARLY
from sim.model.core.reader import Bounded, ReadPort
from sim.model.core.walk import MapPlaces, lane_times
from sim.model.core.widths import Converter
from sim.program.passes import Pass

#: From a pass's start, beyond the larger side of the kernel, until the feeder's blocks begin.
SCANNED = 4
#: From a tile's being held to its being taken, if all is there.
HELD = 2
#: From the last lane of a tile to the same.
WALKED = 3
#: And to its command's going to the register on offer.
COLLECTED = 2
#: From the cycle in which a tile's limit is adopted to the first beat that it lets in.
ADOPTED = 2
#: From the last word of the last tile to the first beat that no limit holds back.
UNLIMITED = 4


class Taken(NamedTuple):
    """A tile.

    Fields
    ------
    time
        The cycle in which the feeder takes it.
    command
        From when on its command is on offer to the engine,
    given
        and is there for the issuer.
    """

    time: int
    command: int
    given: int


class TileTimes:
    """Intake, walker, gate and the way of the map into the line buffer.

    Parameters
    ----------
    step : Pass
    start : int
        Cycle in which the pass is launched.
    entries : Converter
        The list of tiles.
    port : ReadPort
        Of the map,
    source : Bounded
        and its client.
    """

    def __init__(
        self, step: Pass, start: int, entries: Converter, port: ReadPort, source: Bounded
    ) -> None:
        config, fields = step.config, step.fields
        assert step.schedule is not None
        self._tiles = step.schedule.tiles
        self._rows, self._slots = config.rows, lane_slots(config)
        self._start = start
        self.open = start + max(fields["kernel_h"], fields["kernel_w"]) + SCANNED
        self._entries, self._port, self._source = entries, port, source
        self._entry = EARLY  # when the entry before went to the slice behind the list
        self._listed = [EARLY, EARLY]  # and when the last two left that
        self._places = MapPlaces(step, config)
        last = self._tiles[-1]
        self._lanes = lane_times(step, last.base + last.interleave * config.rows)
        self._measured_left = EARLY
        self._walks = [EARLY, EARLY]  # when the last two tiles went to the walker
        self._sliced = EARLY  # and the last one to the slice before it
        self._told = EARLY  # when what the gate must know of a tile went to the slice before it
        self._spans = [EARLY, EARLY]  # and when it left the slice: of the last two tiles
        self._stepped = EARLY  # when the lane before was walked over
        self._lane = 0
        self._moved = EARLY  # when the command before went to the slice behind the walker
        self._groups = 0
        self._taken = EARLY
        # Told from outside.
        self.released: list[int] = []  # groups of lanes
        self.finished = EARLY  # the last word of the tile before is asked for
        # When the commands of the last two tiles left the walker's slice for the issuer's.
        self._before = self.commanded = EARLY
        self.loaded = [EARLY, EARLY]  # and when it left that: of the last two tiles

    def take(self, number: int) -> Taken:
        """Take a tile, all those before it being read."""
        tile = self._tiles[number]
        span = self._enter()
        stepped = self._walk(tile.base, tile.interleave)
        self._moved = max(stepped + COLLECTED, self._moved + 1, self._before + 1)
        # What may be overwritten, and what must be there.
        adopted = max(span + 1, self.finished)
        limit = self._places.below(tile.base + self._places.near)
        self._source.allow(limit, max(adopted, self.open) + ADOPTED)
        end = tile.base + tile.interleave * self._rows
        needed = self._places.needed(end + self._places.far)
        complete = self._stored(needed) + 1 if needed else self.open + 1
        self._taken = max(self.finished, span + HELD, complete + 1, stepped + WALKED)
        command = self._moved + 1
        self._before = self.commanded
        self.commanded = max(command, self.commanded + 1, self.loaded[-2] + 1)
        return Taken(self._taken, command, self.commanded + 1)

    def _enter(self) -> int:
        """Take the next entry of the list; give when the gate takes what it says."""
        entry = max(self._entries.offer(), self._entry + 2, self._listed[-2] + 1, self._start + 1)
        self._entry = entry
        self._entries.take(entry)
        listed = max(entry + 1, self._listed[-1] + 1, self._measured_left)
        self._listed = [self._listed[-1], listed]
        measured = max(listed + 1, self.open, self._sliced, self._told)
        self._measured_left = measured
        self._sliced = max(measured + 1, self._walks[-2] + 1)
        self._walks = [self._walks[-1], max(self._sliced + 1, self._stepped)]
        self._told = max(measured + 1, self._spans[-2] + 1)
        span = max(self._told + 1, self._taken)
        self._spans = [self._spans[-1], span]
        return span

    def _walk(self, base: int, interleave: int) -> int:
        """Walk over the lanes of a tile and those before it; give when the last one is."""
        lanes, rows = self._lanes, self._rows
        begin = self._walks[-1] + 1
        if base > self._lane:
            self._stepped = self._over(self._lane, base - 1, begin)
        for group in range(interleave):
            first = base + group * rows
            index = self._groups - self._slots
            room = begin if index < 0 else max(begin, self.released[index] + 1)
            self._stepped = self._over(first, first + rows - 1, room)
            if not group:  # its command follows the one of the tile before
                self._stepped = max(self._stepped, self._moved + 1)
            self._groups += 1
        self._lane = base + interleave * rows
        assert self._lane <= len(lanes)
        return self._stepped

    def _over(self, first: int, last: int, begin: int) -> int:
        """Walk over lanes without a stop; give when the last one is."""
        lanes = self._lanes
        step = int(lanes[first] - lanes[first - 1]) if first else 1
        return max(self._stepped + step, begin) + int(lanes[last] - lanes[first])

    def _stored(self, beats: int) -> int:
        """Give when so many beats are in the line buffer."""
        source = self._source
        self._port.run(lambda: source.known >= beats)
        if source.known < beats:
            raise CspError(f"the line buffer never holds beat {beats} of the map, which is needed")
        return source.taken(beats - 1)

    def end(self) -> int:
        """Store what is left of the map, all tiles being read; give when the last beat is."""
        self._source.allow(self._places.total, self.finished + UNLIMITED)
        return self._stored(self._places.total)
