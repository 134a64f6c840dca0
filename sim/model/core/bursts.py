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
        self._runs = runs
        self._begin = begin + TAKE
        self._burst = burst
        self._page = PAGE_BYTES // data_bytes
        self._next = 0  # run
        self._at = 0
        self._left = 0  # of the joined runs
        self._open = 0  # when they were opened
        self._each = 0  # beats of each of them
        self._behind = 0  # beats that were cut of them
        self._cut = EARLY  # the cycle of the cut before
        self.beats = 0  # of the next burst; 0: there is none
        self.total = 0  # beats of all bursts up to the next one
        self._advance()

    def _advance(self) -> None:
        """Find the next burst."""
        if not self._left:
            runs = self._runs
            if self._next == len(runs):
                self.beats = 0
                return
            first = self._next
            at, beats = runs[first]
            end = at + beats
            following = first + 1
            while following < len(runs) and runs[following][0] == end:
                end += runs[following][1]
                following += 1
            self._open = max(self._begin + first, self._cut)
            self._each = beats
            self._at, self._left, self._behind = at, end - at, 0
            self._next = following
        self.beats = min(self._left, self._burst, self._page - self._at % self._page)
        self.total += self.beats

    def cut(self, ready: int, free: int) -> int:
        """Cut the next burst; give the cycle.

        Parameters
        ----------
        ready : int
            From when on its beats are free.
        free : int
            From when on there is a place for it.
        """
        beats = self.beats
        behind = self._behind + beats
        run = (behind if beats < self._left else behind - 1) // self._each
        seen = max(self._cut, self._open + run) + 1
        self._cut = max(max(seen, ready) + 1, free)
        self._left -= beats
        self._at += beats
        self._behind = behind
        self._advance()
        return self._cut
