# SPDX-License-Identifier: Apache-2.0
"""A port that reads: its clients' bursts in turn, the memory, the beats on offer."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from csp_hw.axi.reader import OUTSTANDING, longest_burst
from csp_hw.slice import SLICE
from sim.cosim.core.jobs import Timing
from sim.model.core.bursts import Planner, Run
from sim.model.core.memory import EARLY, NEVER, Bucket, Flow, Times, numbers

#: From a beat's arrival on the port to its being on offer.
OFFER = 3
#: From a beat's transfer to its place being free.
FREED = 2
#: From a burst's last beat to the next address, if too many were outstanding.
SETTLED = 2
#: Bursts must have been the same so many times before it is looked whether they go on so.
_LEAST_STREAK = 4


class Client:
    """What reads one kind of beats, and takes them as they come.

    Parameters
    ----------
    runs, begin
        See :class:`sim.model.core.bursts.Planner`.
    depth : int
        Of its queue.
    beat : int
        Bytes.
    sliced : bool
        Behind the queue is a :class:`csp_hw.slice.RegisterSlice`, which holds two beats.
    """

    def __init__(
        self, runs: Sequence[Run], begin: int, depth: int, beat: int, *, sliced: bool = False
    ) -> None:
        self.total = sum(beats for _, beats in runs)
        self.count = 0  # beats that have arrived
        self.known = 0  # beats of which it is known when they leave
        self._depth = depth
        self._wait, self._held = (1, SLICE) if sliced else (0, 0)
        self._late = OFFER + self._wait
        self._flows: list[Flow] = []  # bursts
        self._starts: list[int] = []  # their first beats
        self._open = 0  # the burst of the next beat to leave
        # When beats leave: from a number on at the earliest a cycle, and one after the other; each
        # part lies in a burst.
        self._parts: list[tuple[int, int, int]] = []
        self._part = 0  # that of the newest place that was given back, and its burst
        self._burst = 0
        self._first = self._last = EARLY  # the first beat of the newest part, and its last one
        self._held_back = False  # the newest part, by something other than the beats before it
        burst = longest_burst(beat, depth)
        self.planner = Planner(runs, begin, burst=burst, data_bytes=beat)
        self.beats = 0  # of the burst on offer
        self.free = EARLY  # from when on there is a place for a burst on offer
        self.offer = NEVER  # from when on there is one

    # --- Beats --------------------------------------------------------------------------------

    def arrived(self, number: int) -> int:
        """Give from when on a beat is on offer, if those before it have left."""
        return self._offer(bisect_right(self._starts, number) - 1, number)

    def _offer(self, burst: int, number: int) -> int:
        return self._flows[burst].at(number - self._starts[burst]) + self._late

    def offers(self) -> Times:
        """Give the same of all beats."""
        starts = np.array(self._starts, dtype=np.int64)
        beats = np.diff(np.append(starts, self.count))
        firsts = np.array([flow.first for flow in self._flows], dtype=np.int64)
        credit = np.array([flow.credit for flow in self._flows], dtype=np.int64)
        places = numbers(self.count) - np.repeat(starts, beats)
        firsts, credit = np.repeat(firsts, beats), np.repeat(credit, beats)
        if not self.count:
            return places
        bucket = self._flows[0].bucket
        later = (credit + (places - 1) * bucket.beat) // bucket.rate
        times: Times = np.maximum(firsts + places, np.where(places > 0, later, 0)) + OFFER
        return times

    def taken(self, number: int) -> int:
        """Give when a beat leaves, which must be known."""
        return self._left(bisect_right(self._parts, (number, NEVER, NEVER)) - 1, number)

    def _left(self, part: int, number: int) -> int:
        start, first, burst = self._parts[part]
        return max(self._offer(burst, number), first + number - start)

    def _freed(self, number: int) -> int:
        """Give when a beat leaves the queue; numbers only grow."""
        parts, part = self._parts, self._part
        if not self._held:
            part = _at_or_before(parts, part, number)
            self._part = part
            return self._left(part, number)
        starts, burst = self._starts, self._burst
        while burst + 1 < len(starts) and starts[burst + 1] <= number:
            burst += 1
        self._burst = burst
        offered = self._offer(burst, number) - self._wait
        number -= self._held
        if number < 0:
            return offered
        part = _at_or_before(parts, part, number)
        self._part = part
        return max(offered, self._left(part, number) + 1)

    def all_taken(self) -> Times:
        """Give when all beats leave."""
        starts = np.array([start for start, _, _ in self._parts], dtype=np.int64)
        firsts = np.array([first for _, first, _ in self._parts], dtype=np.int64)
        beats = np.diff(np.append(starts, self.known))
        places = numbers(self.known) + np.repeat(firsts - starts, beats)
        return np.maximum(self.offers(), places)

    def take(self, beats: int, earliest: int) -> None:
        """Let so many beats leave that have arrived, in one burst, none before some cycle."""
        burst, _ = self._together()
        self._take(beats, earliest, burst)

    def _take(self, beats: int, earliest: int, burst: int) -> None:
        number, flow = self.known, self._flows[burst]
        place, late = number - self._starts[burst], self._late
        first = max(flow.at(place) + late, self._last + 1)
        self._held_back = first < earliest
        first = max(first, earliest)
        self._parts.append((number, first, burst))
        self._first = first
        self.known = number + beats
        self._last = max(flow.at(place + beats - 1) + late, first + beats - 1)

    def settle(self) -> None:
        """Let beats leave as far as it is known when."""
        while self.known < self.count:
            burst, beats = self._together()
            self._take(beats, EARLY, burst)

    def _together(self) -> tuple[int, int]:
        """Give the burst of the next beat to leave, and how many of the next ones came in it."""
        burst, starts, known = self._open, self._starts, self.known
        last = len(starts) - 1
        while burst < last and starts[burst + 1] <= known:
            burst += 1
        self._open = burst
        return burst, (starts[burst + 1] if burst < last else self.count) - known

    # --- Bursts -------------------------------------------------------------------------------

    def plan(self) -> None:
        """Find out when the next burst is on offer, if that is known."""
        planner = self.planner
        if self.offer == NEVER and planner.beats:
            needs = planner.total - self._depth
            if needs <= min(self.known + self._held, self.count):
                ready = self._freed(needs - 1) + FREED if needs > 0 else EARLY
                self.beats = planner.beats
                self.offer = planner.cut(ready, self.free) + 1

    def arrive(self, flow: Flow, beats: int) -> None:
        """Take note of a burst's beats."""
        self._flows.append(flow)
        self._starts.append(self.count)
        self.count += beats
        self.settle()

    # --- Bursts that repeat -------------------------------------------------------------------

    @property
    def rhythm(self) -> tuple[int, int, int]:
        """What must go on at one pace for bursts to repeat: cuts, and beats that leave."""
        return self.planner.last, self._first, self._last

    def may_repeat(self, streak: int, apart: int) -> int:
        """Give how many more bursts come and leave as the last one did, if the port lets them.

        Parameters
        ----------
        streak : int
            How many bursts did what the one before them did, some cycles later.
        apart : int
            These cycles.
        """
        beats = self.beats
        # The newest part must be all of the last burst, and nothing else held it back.
        whole = self.known == self.count and self._parts[-1][0] <= self.count - beats
        if not whole or self._held_back:
            return 0
        # All those whose places are waited for did the same.
        if streak < -(-(self._depth + self._held + 1) // beats) + 1:
            return 0
        return self.planner.alike(beats, self._free_to_leave(self._first + apart) // beats)

    def _free_to_leave(self, time: int) -> int:
        """Give how many of the next beats may leave from a cycle on."""
        del time
        return self.total

    def repeat(self, count: int, apart: int) -> None:
        """Let so many bursts come and leave as the last one did."""
        beats, begin = self.beats, self.count
        flow, first = self._flows[-1], self._first + apart
        came = flow.at(begin - beats - self._starts[-1]) + apart
        # Without gaps all of them are like one, as a beat comes in each cycle.
        for wait in range(0, apart * count, apart) if apart > beats else (0,):
            self._parts.append((self.count, first + wait, len(self._flows)))
            self._flows.append(Flow(came + wait, 0, flow.bucket))
            self._starts.append(self.count)
            self.count += beats
        self.count = self.known = begin + count * beats
        self._first += count * apart
        self._last += count * apart
        self.planner.skip(count, apart)


def _at_or_before(parts: Sequence[tuple[int, int, int]], part: int, number: int) -> int:
    """Give the last part, from one on, that begins at or before a number."""
    last = len(parts) - 1
    while part < last and parts[part + 1][0] <= number:
        part += 1
    return part


class Waiting(Client):
    """A client whose beats leave when :meth:`take` says so."""

    def may_repeat(self, streak: int, apart: int) -> int:
        """Give how many more bursts leave as the last one did: none that is known."""
        del streak, apart
        return 0

    def settle(self) -> None:
        """Nothing leaves by itself."""


class Bounded(Client):
    """A client whose beats below a number leave from a cycle on; those above have to wait."""

    def __init__(
        self, runs: Sequence[Run], begin: int, depth: int, beat: int, *, sliced: bool = False
    ) -> None:
        super().__init__(runs, begin, depth, beat, sliced=sliced)
        self._bounds: deque[tuple[int, int]] = deque()

    def allow(self, below: int, since: int) -> None:
        """Let the beats below a number leave from a cycle on; numbers only grow."""
        self._bounds.append((below, since))
        self.settle()

    def settle(self) -> None:
        """Let beats leave as far as they may."""
        bounds = self._bounds
        while self.known < self.count:
            while bounds and bounds[0][0] <= self.known:
                bounds.popleft()
            if not bounds:
                return
            below, since = bounds[0]
            burst, beats = self._together()
            self._take(min(beats, below - self.known), since, burst)

    def _free_to_leave(self, time: int) -> int:
        if not self._bounds:
            return 0
        below, since = self._bounds[0]
        return below - self.known if since <= time else 0


class Listed(Waiting):
    """A client whose beats leave as a function says, given the cycles in which they are there."""

    def __init__(
        self,
        runs: Sequence[Run],
        begin: int,
        depth: int,
        beat: int,
        leave: Callable[[list[int]], list[int]],
    ) -> None:
        super().__init__(runs, begin, depth, beat)
        self._leave = leave
        self._times: list[int] = []

    def settle(self) -> None:
        """Let all leave that have come."""
        start, flow = self._starts[-1], self._flows[-1]
        offers = [flow.at(number) + OFFER for number in range(self.count - start)]
        self._times += self._leave(offers)
        self.known = self.count

    def taken(self, number: int) -> int:
        """Give when a beat leaves."""
        return self._times[number]

    def _freed(self, number: int) -> int:
        return self._times[number]

    def all_taken(self) -> Times:
        """Give when all beats leave."""
        return np.array(self._times, dtype=np.int64)


class ReadPort:
    """The port, burst by burst.

    Parameters
    ----------
    clients : sequence of Client
    timing : Timing
    beat : int
        Bytes.
    """

    def __init__(self, clients: Sequence[Client], timing: Timing, beat: int) -> None:
        self._clients = clients
        self._active = list(enumerate(clients))  # those with bursts that are to come
        self._latency = timing.read_latency
        self._slots = timing.outstanding
        self._bucket = Bucket(beat, timing.read_rate)
        self._turn = 0  # the client chosen last
        self._fetched = EARLY
        self._asked = EARLY
        self._moved = EARLY  # the address before
        self._last: list[int] = []  # cycle of each burst's last beat
        # What the last burst did when, and how many times it was the same so many cycles later.
        self._rhythm: tuple[int, ...] = ()
        self._apart = self._streak = 0

    def run(self, until: Callable[[], bool]) -> None:
        """Go on until something is so, or nothing can be known any further."""
        while not until():
            if not self._burst():
                return

    def _burst(self) -> bool:
        """Ask for the next burst, if it is known which one that is."""
        if len(self._active) == 1:
            number, client = self._active[0]
            if self._streak > _LEAST_STREAK and self._repeat(client):
                return True
            client.plan()
            if client.offer == NEVER:
                return False
            chosen = max(client.offer, self._fetched + 1, self._asked)
        else:
            choice = self._choose()
            if choice is None:
                return False
            chosen, number, client = choice
        self._turn = number
        last = self._last
        self._fetched = client.free = chosen + 1
        client.offer = NEVER
        asked = max(self._fetched + 1, self._moved)
        if len(last) >= OUTSTANDING:
            asked = max(asked, last[-OUTSTANDING] + SETTLED)
        self._asked = asked
        moved = asked + 1
        if len(last) >= self._slots:
            moved = max(moved, last[-self._slots] + 1)
        self._moved = moved
        earliest = moved + self._latency
        if last:
            earliest = max(earliest, last[-1] + 1)
        flow = self._bucket.flow(earliest, client.beats)
        last.append(flow.at(client.beats - 1))
        client.arrive(flow, client.beats)
        self._listen(client, (number, client.beats), (chosen, asked, moved, flow.first))
        return True

    def _listen(self, client: Client, kind: tuple[int, int], times: tuple[int, ...]) -> None:
        """Find out whether bursts repeat: all as the one before, but some cycles later."""
        before, now = self._rhythm, (*kind, *times, *client.rhythm)
        self._rhythm = now
        if not before or before[:2] != kind:
            self._streak = 0
            return
        apart = times[0] - before[2]
        same = all(b - a == apart for a, b in zip(before[2:], now[2:], strict=True))
        self._streak = self._streak + 1 if same and apart == self._apart else 0
        self._apart = apart

    def _repeat(self, client: Client) -> bool:
        """Ask for bursts that repeat the one before, if there are some.

        What a burst waits for is few bursts before it. If these were all the same number of cycles
        apart, and so is whatever each waited for, the next one comes as many cycles later.
        """
        apart, last, streak = self._apart, self._last, self._streak
        if not self._bucket.full:
            return False
        for held, now, wait in (
            (OUTSTANDING, self._asked, SETTLED),
            (self._slots, self._moved, 1),
        ):
            # What waits for bursts before those that were the same must not be late, nor was it.
            if streak <= held < len(last) and last[-1 - held] + wait >= now:
                return False
            for number in range(max(1, held - len(last) + 1), held - streak + 1):
                if last[number - held - 1] + wait > now + number * apart:
                    return False
        count = client.may_repeat(streak, apart)
        if count < 1:
            return False
        client.repeat(count, apart)
        later = count * apart
        self._fetched += later
        self._asked += later
        self._moved += later
        client.free = self._fetched
        self._bucket.x += later * self._bucket.rate
        last += range(last[-1] + apart, last[-1] + later + 1, apart)
        self._rhythm = (*self._rhythm[:2], *(time + later for time in self._rhythm[2:]))
        self._streak += count
        return True

    def _choose(self) -> tuple[int, int, Client] | None:
        """Give whose burst is next, and when it is chosen, if that is known."""
        count = len(self._clients)
        first, ends = NEVER, False
        for _, client in self._active:
            if client.offer == NEVER:
                client.plan()
            if client.offer < first:
                first = client.offer
            ends |= not client.planner.beats and client.offer == NEVER
        if ends:
            self._active = [
                (number, client)
                for number, client in self._active
                if client.planner.beats or client.offer != NEVER
            ]
        if first == NEVER:
            return None
        chosen = max(first, self._fetched + 1, self._asked)
        # The next one in turn of those with a burst on offer.
        _, number, client = min(
            ((number - self._turn - 1) % count, number, client)
            for number, client in self._active
            if client.offer <= chosen
        )
        return chosen, number, client
