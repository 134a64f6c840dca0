# SPDX-License-Identifier: Apache-2.0
"""The port that writes results: its queue, its bursts, the memory's answers."""

from collections.abc import Sequence

from csp_hw.axi.ports import LENGTH_BITS, PAGE_BYTES
from csp_hw.axi.writer import OUTSTANDING
from csp_hw.core import MAP_DEPTH
from sim.cosim.core.jobs import Timing
from sim.model.core.bursts import NEVER, Planner, Run
from sim.model.core.memory import Bucket

#: From a beat's entry to its counting for a burst.
COUNTED = 1
#: From a burst's announcement to its first beat's leaving the queue, and from there to the port.
LENGTH, PORT = 2, 1


class WritePort:
    """Takes beats one by one; gives when each has a place, and in the end the last answer.

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
        self._planner = Planner(runs, begin, burst=burst, data_bytes=beat, ready=self._here)
        self._latency = timing.write_latency
        self._slots = timing.outstanding
        self._bucket = Bucket(beat, timing.write_rate)
        self._entered: list[int] = []
        self._fetched: list[int] = []  # to the register behind the queue's memory
        self._sent: list[int] = []
        self._moved = -1  # the last beat on the port
        self._now = 0
        self._address = -1  # when the address before was taken
        self.answers: list[int] = []

    def _here(self, beats: int) -> int:
        entered = self._entered
        return entered[beats - 1] + COUNTED if beats <= len(entered) else NEVER

    def room(self) -> int:
        """Give from when on the next beat may enter."""
        index = len(self._entered) - MAP_DEPTH
        if index < 0:
            return 0
        while len(self._sent) < index:
            self._advance()
        return self._fetch(index) + 1

    def _fetch(self, index: int) -> int:
        """Give when a beat moves to the register behind the queue's memory."""
        fetched = self._fetched
        while len(fetched) <= index:
            number = len(fetched)
            then = self._entered[number] + 1
            if number:
                then = max(then, fetched[-1] + 1, self._sent[number - 1])
            fetched.append(then)
        return fetched[index]

    def enter(self, time: int) -> None:
        """Take the next beat."""
        self._entered.append(time)

    def end(self) -> int:
        """Give the cycle of the last answer, all beats being in."""
        while not self._planner.done:
            self._advance()
        return self.answers[-1] if self.answers else 0

    def _advance(self) -> None:
        """Go on by a burst."""
        planner = self._planner
        count = len(self.answers)
        while True:
            now = self._now
            announces = planner.offer is not None
            if announces:
                free = self._address
                if count >= OUTSTANDING:
                    free = max(free, self.answers[count - OUTSTANDING] + 1)
                if now < free:
                    announces = False
            beats = planner.offer if announces else None
            changed = planner.step(now, announces)
            if changed or announces:
                self._now += 1
            else:
                wake = planner.wakes(now)
                if planner.offer is not None:
                    free = self._address
                    if count >= OUTSTANDING:
                        free = max(free, self.answers[count - OUTSTANDING] + 1)
                    if free > now:
                        wake = min(wake, free)
                if wake >= NEVER:
                    raise AssertionError("results are missing")
                self._now = wake
            if beats is not None:
                self._send(now, beats)
                return

    def _send(self, announced: int, beats: int) -> None:
        """Send a burst that is announced."""
        count = len(self.answers)
        address = announced + 1
        if count >= self._slots:
            address = max(address, self.answers[count - self._slots] + 1)
        self._address = address
        sent = self._sent
        send = announced + LENGTH
        for _ in range(beats):
            number = len(sent)
            send = max(send, self._fetch(number) + 1)
            if sent:
                send = max(send, sent[-1] + 1, self._moved)
            sent.append(send)
            self._moved = self._bucket.one(max(send + PORT, self._moved + 1))
        answer = max(address, self._moved) + self._latency
        if self.answers:
            answer = max(answer, self.answers[-1] + 1)
        self.answers.append(answer)
