# SPDX-License-Identifier: Apache-2.0
"""When a port cuts its runs into bursts: the registers of :mod:`csp_hw.axi.bursts`, in time."""

from collections.abc import Callable, Sequence

from csp_hw.axi.ports import PAGE_BYTES
from sim.program.loops import Loops

#: Cycles from a run's transfer to the cycle in which it may join or open.
TAKE = 2
#: A time that has not come.
NEVER = 1 << 60

Run = tuple[int, int]


def runs_of(loops: Loops) -> list[Run]:
    """Give (first beat, beats) of each run of two loops."""
    return [
        ((loops.offset + outer * loops.pitch2 + inner * loops.pitch1) // loops.cols, loops.beats)
        for outer in range(loops.count2)
        for inner in range(loops.count1)
    ]


class Planner:
    """One client's planner; :meth:`step` is a cycle, :meth:`wakes` the next one that matters.

    Parameters
    ----------
    runs : sequence of (int, int)
    begin : int
        Cycle of the first run's transfer; one a cycle follows while there is room.
    burst : int
        Beats of the longest burst.
    data_bytes : int
    ready : callable
        Gives the cycle from which so many beats in all, from the first on, could be cut, or NEVER
        while that is not known.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        begin: int,
        *,
        burst: int,
        data_bytes: int,
        ready: Callable[[int], int],
    ) -> None:
        self._runs = runs
        self._next = 0  # run
        self._from = begin + TAKE  # the cycle in which it may be taken
        self._burst = burst
        self._page = PAGE_BYTES // data_bytes
        self._ready = ready
        self._end = -1
        self._at = 0
        self._left = 0
        self._cut = 0  # beats, in all
        self._planned: tuple[int, bool] | None = None
        self.offer: int | None = None  # beats of the burst on offer

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return self._next == len(self._runs) and not self._left and self.offer is None

    def _plan(self) -> tuple[int, bool, int]:
        """Give the burst that could be cut, whether it is all that is left, and from when on."""
        room = self._page - self._at % self._page
        most = min(self._burst, room)
        fits = self._left <= most
        beats = self._left if fits else most
        return beats, fits, self._ready(self._cut + beats)

    def step(self, now: int, taken: bool) -> bool:
        """Go through a cycle, in which the burst on offer is taken or not; say if more follows."""
        here = self._next < len(self._runs) and now >= self._from
        joins = here and self._runs[self._next][0] == self._end
        planned = self._planned
        cut = planned is not None and (self.offer is None or taken)
        if planned is not None and planned[1] and joins:
            cut = False
        closing = cut and planned is not None and planned[1]
        opening = here and not joins and (not self._left or closing)
        following = None
        if self._left and not cut:
            beats, fits, ready = self._plan()
            if not (fits and joins) and now >= ready:
                following = (beats, fits)
        changed = cut or joins or opening or following != planned
        self._planned = following
        if taken:
            self.offer = None
        if cut and planned is not None:
            self.offer = planned[0]
            self._left -= planned[0]
            self._at += planned[0]
            self._cut += planned[0]
        if joins or opening:
            at, beats = self._runs[self._next]
            if opening:
                self._at, self._left = at, 0
            self._left += beats
            self._end = at + beats
            self._next += 1
            self._from = max(self._from, now) + 1
        return changed

    def wakes(self, now: int) -> int:
        """Give the next cycle in which something may change by itself, after one without change."""
        wake = NEVER
        if self._next < len(self._runs) and self._from > now:
            wake = self._from
        if self._left and self._planned is None:
            wake = min(wake, max(now + 1, self._plan()[2]))
        return wake
