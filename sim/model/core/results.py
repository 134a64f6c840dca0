# SPDX-License-Identifier: Apache-2.0
"""From a finished tile to beats on the port: drain, output stage, pooler."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_hw import output
from csp_hw.array import Array
from csp_hw.config import CspConfig
from csp_hw.drain import queue_depth
from csp_hw.pool import pooler
from csp_hw.ports import OutputType, PoolKind
from csp_hw.slice import SLICE
from sim.model.core.memory import EARLY, Times, chain, extend, log, numbers, since
from sim.model.core.reader import ReadPort, Waiting
from sim.model.core.writer import WritePort
from sim.model.cycles import ASKED_AGAIN, DRAIN_START

Bools = npt.NDArray[np.bool_]

#: From a step of the pooler to its counting among those that need room.
SEEN = 3
#: From a result's leaving the pooler to the first step that finds its place.
RETURNED = 2
#: Windows that may have ended without their results' having left.
ROOM = pooler.CREDITS - pooler.MARGIN
#: From a word's launch to its being on offer behind the columns.
LAUNCHED = output.LATENCY - 1
LAUNCHED_INT32 = output.INT32_LATENCY - 1
#: From the last parameter to the first word that the output stage accepts.
LOADED = 2


class Residual(NamedTuple):
    """Where the map comes from that is added."""

    port: ReadPort
    client: Waiting


class PoolerTimes:
    """Steps of the pooler, one word of the map after the other.

    Parameters
    ----------
    fields : dict of str to int
        Of the descriptor.
    begin : int
        Cycle from which padding is walked over.
    port : WritePort
    """

    def __init__(self, fields: dict[str, int], begin: int, port: WritePort) -> None:
        self._port = port
        none = fields.get("pool", 0) == PoolKind.NONE
        self._last = EARLY if none else begin - 1
        # Of each step: whether it takes a word of the map, and whether a window ends.
        self._inside: Bools | None = None
        self._ending: Bools | None = None
        if not none:
            self._inside, self._ending = _steps(fields)
        self._places = None if self._inside is None else np.flatnonzero(self._inside)
        self._at = 0  # step
        self._word = 0
        self._ends = log()  # steps that end a window
        self._seen = 0  # of them, how many were long enough before the last step
        self._leaves = log()

    def _step(self, time: int, *, ends: bool) -> int:
        """Step as soon as there is room."""
        time = max(time, self._last + 1)
        ended = self._ends
        while True:
            while self._seen < len(ended) and ended[self._seen] <= time - SEEN:
                self._seen += 1
            index = self._seen - 1 - ROOM
            if index < 0 or self._leaves[index] + RETURNED <= time:
                break
            time = self._leaves[index] + RETURNED
        self._last = time
        self._at += 1
        if ends:
            ended.append(time)
            leaves = max(time + pooler.LATENCY, self._port.room())
            if self._leaves:
                leaves = max(leaves, self._leaves[-1] + 1)
            self._leaves.append(leaves)
            self._port.enter(leaves)
        return time

    def take(self, offered: int) -> int:
        """Take a word of the map; give when."""
        inside, ending = self._inside, self._ending
        if inside is None or ending is None:
            return self._step(offered, ends=True)
        while not inside[self._at]:
            self._step(0, ends=bool(ending[self._at]))
        self._word += 1
        return self._step(offered, ends=bool(ending[self._at]))

    def free(self, offered: Times) -> Times:
        """Give when words would be taken if nothing behind held them back; also padding."""
        if self._places is None:
            return chain(offered, self._last)
        steps = self._places[self._word : self._word + len(offered)] - self._at
        earliest = np.full(int(steps[-1]) + 1, EARLY, dtype=np.int64)
        earliest[steps] = offered
        return chain(earliest, self._last)

    def words(self, steps: Times) -> Times:
        """Give those of some steps, from the next one on, that take a word."""
        if self._inside is None:
            return steps
        words: Times = steps[self._inside[self._at : self._at + len(steps)]]
        return words

    def try_many(self, steps: Times) -> bool:
        """Take these steps, if nothing behind holds them back."""
        ends = steps
        before = numbers(len(steps))  # windows that ended before each step
        if self._ending is not None:
            ending = self._ending[self._at : self._at + len(steps)]
            ends = steps[ending]
            before = np.cumsum(ending) - ending
        leaves = ends + pooler.LATENCY
        if self._leaves and len(leaves):
            leaves = chain(leaves, self._leaves[-1])
        # The window that ended last must find room, and so must those before it.
        known = len(self._leaves)
        index = known + before - 1 - ROOM
        late = index >= 0
        if np.any(late):
            low = max(0, int(index[late][0]))
            recent = np.concatenate((since(self._leaves, low), leaves))
            if np.any(recent[index[late] - low] + RETURNED > steps[late]):
                return False
        if not self._port.try_many(leaves):
            return False
        extend(self._leaves, leaves)
        extend(self._ends, ends)
        if self._inside is not None:
            self._word += int(np.count_nonzero(self._inside[self._at : self._at + len(steps)]))
        self._at += len(steps)
        self._last = int(steps[-1])
        return True

    def try_ramp(self, first: int, count: int) -> bool:
        """Take words that come one a cycle from ``first`` on, if none is held back or padded."""
        if self._inside is not None or first <= self._last:
            return False
        leaves = self._leaves
        begin = first + pooler.LATENCY
        if leaves:
            begin = max(begin, leaves[-1] + 1)
        # Times grow by one at least, so the last place that is waited for is the latest one.
        known = len(leaves)
        old = known + min(count, ROOM + 1) - 2 - ROOM
        if old >= 0 and leaves[old] + RETURNED > first + old - known + 1 + ROOM:
            return False
        if count > ROOM + 1 and begin - 1 - ROOM + RETURNED > first:
            return False
        steps = numbers(count) + first
        times = numbers(count) + begin
        if not self._port.try_many(times, ramp=True):
            return False
        extend(leaves, times)
        extend(self._ends, steps)
        self._at += count
        self._last = first + count - 1
        return True

    def end(self) -> int:
        """Walk over what is left of the padding; give the first cycle in which all is done."""
        if self._ending is not None:
            for ends in self._ending[self._at :].tolist():
                self._step(0, ends=ends)
        return max(self._last + 2, self._leaves[-1] + 1 if self._leaves else 0)


def _steps(fields: dict[str, int]) -> tuple[Bools, Bools]:
    """Give for each step whether it takes a word of the map, and whether a window ends."""
    axes = []
    for side, before, after, letter in (
        ("height", "top", "bottom", "h"),
        ("width", "left", "right", "w"),
    ):
        first, size = fields[f"pool_pad_{before}"], fields[f"pool_{side}"]
        place = np.arange(first + size + fields[f"pool_pad_{after}"])
        inside = (place >= first) & (place < first + size)
        since = place - (fields[f"pool_kernel_{letter}"] - 1)
        ends = (since >= 0) & (since % fields[f"pool_stride_{letter}"] == 0)
        axes.append((inside, ends))
    (in_y, end_y), (in_x, end_x) = axes
    words, images = fields["pool_words"], fields["images"]
    inside = np.repeat((in_y[:, None] & in_x).ravel(), words)
    ends = np.repeat((end_y[:, None] & end_x).ravel(), words)
    return np.tile(inside, images), np.tile(ends, images)


class DrainTimes:
    """The drain of tile after tile, and the output stage.

    Parameters
    ----------
    config : CspConfig
    fields : dict of str to int
    loaded : int
        Cycle of the last parameter's transfer.
    begin : int
        The first cycle in which the layer is at work.
    pool : PoolerTimes
    residual : Residual, optional
    """

    def __init__(
        self,
        config: CspConfig,
        fields: dict[str, int],
        *,
        loaded: int,
        begin: int,
        pool: PoolerTimes,
        residual: Residual | None,
    ) -> None:
        self._chunks = fields["chunks"]
        self._int32 = fields["out"] == OutputType.INT32
        self._latency = Array.drain_latency(config)
        self._room = queue_depth(config)
        self._pool = pool
        self._residual = residual
        self._begin = begin
        self._free = 0
        self._taken = log()
        self._accepts = loaded + LOADED
        self._moved = -1
        self._results = log()  # when each left the output stage
        self._stepped = [EARLY] * SLICE  # when the last ones went into the pooler
        self._live = 0
        self._launched = 0
        self.idle = 0

    def tile(self, finished: int, live: npt.NDArray[np.bool_]) -> int:
        """Drain a tile whose last product is issued in cycle ``finished``; give its last cycle."""
        if self._ramp(finished, live):
            return self._free - 1
        last = self._try(finished, live)
        if last is not None:
            return last
        ask = max(finished + DRAIN_START, self._free) - 1
        taken = self._taken
        each = output.INT32_WORDS if self._int32 else 1
        for lane in np.repeat(live.reshape(-1), self._chunks).tolist():
            asked = len(taken)
            ask = max(
                ask + 1, taken[asked - self._room] + ASKED_AGAIN if asked >= self._room else 0
            )
            self._moved = max(ask + self._latency + 2, self._moved + 1, taken[-1] if taken else 0)
            accept = max(self._moved + 1, self._accepts)
            index = each * self._live + each - output.CREDITS - 1
            if index >= 0:
                accept = max(accept, self._results[index] + 1)
            taken.append(accept)
            self._accepts = accept + 1
            self.idle = max(self.idle, accept + ASKED_AGAIN)
            if lane:
                self._launch(accept)
        self._free = ask + 1
        return ask

    def _ramp(self, finished: int, live: npt.NDArray[np.bool_]) -> bool:
        """Drain a tile, if a word comes in each cycle and goes on at once."""
        if self._residual is not None or self._int32 or not live.all():
            return False
        taken, results, room = self._taken, self._results, self._room
        count, known, left = live.size * self._chunks, len(taken), len(results)
        first = max(finished + DRAIN_START, self._free)
        accepted = max(first + self._latency + 3, self._accepts)
        offered = accepted + output.LATENCY
        if results:
            offered = max(offered, results[-1] + 1)
        # Times grow by one at least, so the last place that is waited for is the latest one; places
        # of this tile's own words come next.
        old = known - room + min(count, room) - 1
        if old >= 0 and taken[old] + ASKED_AGAIN > first + old - known + room:
            return False
        if count > room and accepted - room + ASKED_AGAIN > first:
            return False
        old = left - output.CREDITS + min(count, output.CREDITS) - 1
        if old >= 0 and results[old] + 1 > accepted + old - left + output.CREDITS:
            return False
        if count > output.CREDITS and offered - output.CREDITS + 1 > accepted:
            return False
        if not self._pool.try_ramp(offered + 1, count):
            return False
        extend(taken, numbers(count) + accepted)
        extend(results, numbers(count) + offered)
        last = accepted + count - 1
        self._moved, self._accepts, self._free = last - 1, last + 1, first + count
        self._stepped = [*self._stepped, *range(offered + 1, offered + count + 1)][-SLICE:]
        self._live += count
        self.idle = max(self.idle, offered + count + 1)
        return True

    def _try(self, finished: int, live: npt.NDArray[np.bool_]) -> int | None:
        """Drain a tile at once, if nothing holds it back."""
        if self._residual is not None:
            return None
        taken, room = self._taken, self._room
        lanes = np.repeat(live.reshape(-1), self._chunks)
        count, known = len(lanes), len(taken)
        first = max(finished + DRAIN_START, self._free)
        ask = first + numbers(count)
        # Words accepted, the first ones too early to matter.
        each = output.INT32_WORDS if self._int32 else 1
        steps = None
        if each > 1:
            steps = numbers(count).copy()
            steps[1:] += (each - 1) * np.cumsum(lanes[:-1])
        earliest = ask + (self._latency + 3)
        earliest[0] = max(int(earliest[0]), self._accepts)
        accepted = chain(earliest, None, steps)
        low = max(0, known - room)
        recent = np.concatenate((since(taken, low), accepted))
        begin = min(count, max(0, room - known))
        waits = recent[: count - begin]
        if np.any(waits + ASKED_AGAIN > ask[begin:]):
            return None
        launched = accepted[lanes]
        if not len(launched):
            return self._commit(ask, accepted, lanes, None)
        offered = launched + output.LATENCY
        if each > 1:
            words = output.INT32_LATENCY + numbers(each)
            offered = (launched[:, None] + words).ravel()
        if self._results:
            offered = chain(offered, self._results[-1])
        steps = self._pool.free(offered + 1)
        free = np.append(self._stepped, self._pool.words(steps))
        results = np.maximum(offered, free[:-SLICE] + 1)
        # Results that left, before the words that need their places.
        before = self._live + np.cumsum(lanes) - lanes
        index = each * before + each - output.CREDITS - 1
        late = index >= 0
        if np.any(late):
            start = max(0, int(index[late][0]))
            recent = np.concatenate((since(self._results, start), results))
            index = index[late] - start
            if np.any(recent[index] + 1 > accepted[late]):
                return None
        if not self._pool.try_many(steps):
            return None
        self._stepped = free[-SLICE:].tolist()
        return self._commit(ask, accepted, lanes, results)

    def _commit(self, ask: Times, accepted: Times, lanes: Bools, results: Times | None) -> int:
        extend(self._taken, accepted)
        last = int(accepted[-1])
        self._moved = last - 1
        self._free = int(ask[-1]) + 1
        self.idle = max(self.idle, last + ASKED_AGAIN)
        self._accepts = last + (output.INT32_WORDS if self._int32 and lanes[-1] else 1)
        if results is not None:
            extend(self._results, results)
            self._live += len(results) // (output.INT32_WORDS if self._int32 else 1)
            self.idle = max(self.idle, int(results[-1]) + 2)
        return self._free - 1

    def _launch(self, accepted: int) -> None:
        launch = accepted + 1
        if self._residual is not None:
            port, client = self._residual
            number = self._live
            port.run(lambda: client.count > number)
            client.take(1, max(self._launched, self._begin))
            given = client.taken(number)
            self._accepts = max(self._accepts, given + 1)
            launch = max(launch, given + 1)
        self._launched = launch
        self._live += 1
        if self._int32:
            self._accepts = accepted + output.INT32_WORDS
            words = range(LAUNCHED_INT32, LAUNCHED_INT32 + output.INT32_WORDS)
        else:
            words = range(LAUNCHED, LAUNCHED + 1)
        for wait in words:
            offered = launch + wait
            if self._results:
                offered = max(offered, self._results[-1] + 1)
            # A slice before the pooler takes a word when the one two before it has left.
            offered = max(offered, self._stepped[-SLICE] + 1)
            self._results.append(offered)
            self._stepped = [*self._stepped[1:], self._pool.take(offered + 1)]
        self.idle = max(self.idle, self._results[-1] + 2)
