# SPDX-License-Identifier: Apache-2.0
"""When a port cuts its runs into bursts: :mod:`csp_hw.axi.bursts`, burst by burst."""

from collections.abc import Sequence

from csp_hw.axi.ports import PAGE_BYTES
from sim.model.core.memory import EARLY
from sim.program.loops import Loops

#: Cycles from a run's transfer to the cycle in which it may join or open.
TAKE = 2

Run = tuple[int, int]


def runs_of(loops: Loops) -> list[Run]:
    """Give (first beat, beats) of each run of two loops."""
    cols = loops.cols
    beats, inner = loops.beats, loops.pitch1 // cols
    return [
        ((loops.offset + outer * loops.pitch2) // cols + number * inner, beats)
        for outer in range(loops.count2)
        for number in range(loops.count1)
    ]


class Planner:
    """One client's planner: which burst is next, and when it is cut.

    Runs that touch are joined, one a cycle. So a burst that leaves nothing waits for the last run
    that joins, and another one until there is a beat beyond it.

    Parameters
    ----------
    runs : sequence of (int, int)
    begin : int
        Cycle of the first run's transfer; one a cycle follows while there is room.
    burst : int
        Beats of the longest burst.
    data_bytes : int
    """

    def __init__(self, runs: Sequence[Run], begin: int, *, burst: int, data_bytes: int) -> None:
        self._begin = begin + TAKE
        #: Of each burst: beats, beats of all bursts up to it, the first of the runs that were
        #: joined for it or −1 if it is one more burst of the same, and which of those it waits for.
        self._bursts = _cut(runs, burst, PAGE_BYTES // data_bytes)
        self._next = 0
        self._open = 0  # when the joined runs were opened
        self.last = EARLY  # the cycle of the cut before
        self.beats = 0  # of the next burst; 0: there is none
        self.total = 0  # beats of all bursts up to the next one
        self._advance()

    def _advance(self) -> None:
        """Find the next burst."""
        if self._next == len(self._bursts):
            self.beats = 0
            return
        self.beats, self.total, first, self._run = self._bursts[self._next]
        self._next += 1
        if first >= 0:
            self._open = max(self._begin + first, self.last)

    def cut(self, ready: int, free: int) -> int:
        """Cut the next burst; give the cycle.

        Parameters
        ----------
        ready : int
            From when on its beats are free.
        free : int
            From when on there is a place for it.
        """
        seen = max(self.last, self._open + self._run) + 1
        self.last = cut = max(seen + 1, ready + 1, free)
        self._advance()
        return cut

    def alike(self, beats: int, most: int) -> int:
        """Give how many of the next bursts, at most, have so many beats and wait for no run.

        A cycle for each of its beats must pass between two cuts.
        """
        # As a burst is of no more runs than beats, none waits for a run if the next one does not.
        if self.beats != beats or self._open + self._run + 2 >= self.last:
            return 0
        bursts = self._bursts
        first = last = self._next - 1
        stop = min(len(bursts), first + most)
        while last < stop and bursts[last][0] == beats and bursts[last][2] < 0:
            last += 1
        return last - first

    def skip(self, count: int, apart: int) -> None:
        """Cut bursts, so many cycles apart."""
        self.last += count * apart
        self._next += count - 1
        self._advance()


def _cut(runs: Sequence[Run], burst: int, page: int) -> list[tuple[int, int, int, int]]:
    """Give beats, beats in all, first run and the run that is waited for of each burst."""
    found = []
    total = following = 0
    while following < len(runs):
        first = following
        at, each = runs[first]
        end = at + each
        following = first + 1
        while following < len(runs) and runs[following][0] == end:
            end += runs[following][1]
            following += 1
        begin, opens = at, first
        while at < end:
            stop = min(end, at + burst, at - at % page + page)
            total += stop - at
            run = (stop - begin if stop < end else end - begin - 1) // each
            found.append((stop - at, total, opens, run))
            at, opens = stop, -1
    return found
