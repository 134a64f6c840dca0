# SPDX-License-Identifier: Apache-2.0
"""The port that writes results: its queue, its bursts, the memory's answers."""

import copy
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from csp_hw.axi.ports import LENGTH_BITS, PAGE_BYTES
from csp_hw.axi.queue import BEYOND, FREED
from csp_hw.axi.writer import OUTSTANDING
from csp_hw.core import MAP_DEPTH
from csp_hw.slice import SLICE
from sim.cosim.core.jobs import Timing
from sim.model.core.bursts import Planner, Run
from sim.model.core.memory import EARLY, Bucket, Flow, Times, extend, log

#: From a beat's entry to its counting for a burst.
COUNTED = 2
#: Beats in the queue, those included whose place is not free yet, which takes a while.
PLACES = MAP_DEPTH + BEYOND
#: From a burst's announcement to its first beat's leaving the queue, and from there to the port.
LENGTH, PORT = 2, 1


class WritePort:
    """Takes beats; gives when each has a place, and in the end the last answer.

    Parameters
    ----------
    runs, begin
        See :class:`sim.model.core.bursts.Planner`.
    timing : Timing
    beat : int
        Bytes.
    """

    def __init__(self, runs: Sequence[Run], begin: int, timing: Timing, beat: int) -> None:
        burst = min(MAP_DEPTH // 2, 1 << LENGTH_BITS, PAGE_BYTES // beat)
        self._planner = Planner(runs, begin, burst=burst, data_bytes=beat)
        self._latency = timing.write_latency
        self._slots = timing.outstanding
        self._bucket = Bucket(beat, timing.write_rate)
        self._entered = log()
        self._starts: list[int] = []  # first beats of bursts
        self._flows: list[Flow] = []  # and when they move on the port
        self._sent = 0  # beats
        # When the first beat of each burst leaves the queue, and the second one if there is one.
        self._first: list[int] = []
        self._seconds: list[int] = []
        self._moves = [EARLY] * SLICE  # the last beats on the port
        self._last_left = EARLY  # and when the last one left the queue
        self._sliced = EARLY  # when the burst before went to the slice behind the planner
        self._announced = [EARLY] * SLICE  # and all of them to the port
        self._address = EARLY  # when the address before was taken
        self._answers: list[int] = []

    def room(self) -> int:
        """Give from when on the next beat may enter."""
        index = len(self._entered) - PLACES
        return self._left(index) + FREED if index >= 0 else 0

    def _left(self, number: int) -> int:
        """Give when a beat leaves the queue."""
        while self._sent <= number:
            self._burst()
        index = bisect_right(self._starts, number) - 1
        place = number - self._starts[index]
        if place < SLICE:
            return (self._first, self._seconds)[place][index]
        return max(self._flows[index].at(place - SLICE) + 1, self._first[index] + place)

    def enter(self, time: int) -> None:
        """Take the next beat."""
        self._entered.append(time)

    def try_many(self, times: Times, *, ramp: bool = False) -> bool:
        """Take beats in these cycles, if there is a place for all of them then.

        With ``ramp``, a cycle after each other.
        """
        count = len(self._entered)
        planner, bursts = copy.copy(self._planner), len(self._starts)
        before = (self._sent, self._moves, self._last_left, self._address, self._sliced)
        credit = self._bucket.x
        extend(self._entered, times)
        low, high = max(0, count - PLACES), len(self._entered) - PLACES
        if high <= low:
            return True
        if ramp:
            # Beats leave a cycle after each other at the earliest: the last one is the latest.
            finds_room = self._left(high - 1) + FREED <= int(times[-1])
        else:
            finds_room = bool(
                np.all(self._lefts(low, high) + FREED <= times[low + PLACES - count :])
            )
        if finds_room:
            return True
        self._planner = planner
        self._sent, self._moves, self._last_left, self._address, self._sliced = before
        self._bucket.x = credit
        del self._entered[count:]
        for kept in (self._starts, self._first, self._seconds, self._answers):
            del kept[bursts:]
        del self._flows[bursts:], self._announced[bursts + SLICE :]
        return False

    def _lefts(self, low: int, high: int) -> Times:
        """Give :meth:`_left` of beats low … high − 1."""
        self._left(high - 1)
        index = bisect_right(self._starts, low) - 1
        starts = np.array(self._starts[index:], dtype=np.int64)
        flows = self._flows[index:]
        sizes = np.diff(np.append(starts, self._sent))
        firsts = np.repeat(np.array(self._first[index:], dtype=np.int64), sizes)
        seconds = np.repeat(np.array(self._seconds[index:], dtype=np.int64), sizes)
        moved = np.repeat(np.array([flow.first for flow in flows], dtype=np.int64), sizes)
        credit = np.repeat(np.array([flow.credit for flow in flows], dtype=np.int64), sizes)
        place = np.arange(starts[0], self._sent) - np.repeat(starts, sizes)
        bucket = self._bucket
        # Of the beat two before: it is the first one, or waits for the memory, too.
        later = (credit + (place - SLICE - 1) * bucket.beat) // bucket.rate
        before = np.maximum(moved + place - SLICE, np.where(place > SLICE, later, 0))
        left = np.maximum(before + 1, firsts + place)
        left = np.where(place == 1, seconds, np.where(place == 0, firsts, left))
        lefts: Times = left[low - int(starts[0]) : high - int(starts[0])]
        return lefts

    def end(self) -> int:
        """Give the cycle of the last answer, all beats being in."""
        while self._planner.beats:
            self._burst()
        return self._answers[-1] if self._answers else 0

    def _burst(self) -> None:
        """Send the next burst, all of whose beats have entered."""
        planner, answers = self._planner, self._answers
        start, beats = self._sent, planner.beats
        last = self._entered[start + beats - 1]
        # A slice behind the planner takes a burst when the one two before it is announced.
        cut = planner.cut(last + COUNTED, self._sliced)
        self._sliced = sliced = max(cut, self._announced[-SLICE]) + 1
        announced = max(sliced + 1, self._address)
        count = len(answers)
        if count >= OUTSTANDING:
            announced = max(announced, answers[-OUTSTANDING] + 1)
        self._announced.append(announced)
        self._address = address = announced + 1
        if count >= self._slots:
            self._address = address = max(address, answers[-self._slots] + 1)
        # A slice before the port takes a beat when the one two before it is on the port.
        before, moved = self._moves
        first = max(announced + LENGTH, before + 1)
        if count:
            first = max(first, self._last_left + 1)
        flow = self._bucket.flow(max(first + PORT, moved + 1), beats)
        second = max(first, moved) + 1
        self._starts.append(start)
        self._flows.append(flow)
        self._first.append(first)
        self._seconds.append(second)
        self._sent = start + beats
        self._moves = [flow.at(beats - 2) if beats > 1 else moved, flow.at(beats - 1)]
        if beats > SLICE:
            self._last_left = max(flow.at(beats - 1 - SLICE) + 1, first + beats - 1)
        else:
            self._last_left = (first, second)[beats - 1]
        answer = max(address, self._moves[-1]) + self._latency
        if count:
            answer = max(answer, answers[-1] + 1)
        answers.append(answer)
