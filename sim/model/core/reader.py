# SPDX-License-Identifier: Apache-2.0
"""A port that reads: its clients' bursts in turn, the memory, the beats on offer."""

from collections.abc import Callable, Sequence

import numpy as np

from csp_hw.axi.reader import OUTSTANDING, longest_burst
from sim.cosim.core.jobs import Timing
from sim.model.core.bursts import NEVER, Planner, Run
from sim.model.core.memory import Bucket, Times

#: From a beat's arrival on the port to its being on offer.
OFFER = 3
#: From a beat's transfer to its place being free.
FREED = 2
#: From a burst's last beat to the next address, if too many were outstanding.
SETTLED = 2

class Client:
    """What reads one kind of beats.

    Parameters
    ----------
    runs, begin
        See :class:`Planner`.
    depth : int
        Of its queue.
    beat : int
        Bytes.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        begin: int,
        depth: int,
        beat: int,
    ) -> None:
        self.total = sum(beats for _, beats in runs)
        self.taken = np.empty(self.total, dtype=np.int64)
        self.known = 0
        self._arrived = np.empty(self.total, dtype=np.int64)
        self.count = 0  # arrived
        self._depth = depth
        self._take: Callable[[int, Times], Times] | None = None
        burst = longest_burst(beat, depth)
        self.planner = Planner(runs, begin, burst=burst, data_bytes=beat, ready=self._room)

    def _room(self, beats: int) -> int:
        """Give from when on so many beats in all may be asked for."""
        needs = beats - self._depth
        if needs <= 0:
            return 0
        return int(self.taken[needs - 1]) + FREED if needs <= self.known else NEVER

    def bind(self, take: Callable[[int, Times], Times]) -> None:
        """Say how beats leave the queue.

        ``take`` gives the cycles in which they do, given the first one's number and the earliest
        cycle of each; what it cannot know yet it leaves out, and is asked again.
        """
        self._take = take

    def offers(self) -> Times:
        """Give from when on each beat is on offer, if those before it have left."""
        return self._arrived

    def arrived(self, number: int) -> int:
        """Give from when on a beat is on offer, if those before it have left."""
        return int(self._arrived[number])

    def give(self, time: int) -> None:
        """Let the next beat leave."""
        self.taken[self.known] = time
        self.known += 1

    def arrive(self, times: Times) -> None:
        """Take note of a burst's beats."""
        self._arrived[self.count : self.count + len(times)] = times + OFFER
        self.count += len(times)
        self.settle()

    def settle(self) -> None:
        """Let beats leave as far as it is known when."""
        if self.known < self.count and self._take is not None:
            left = self._take(self.known, self._arrived[self.known : self.count])
            self.taken[self.known : self.known + len(left)] = left
            self.known += len(left)


class ReadPort:
    """The port, cycle by cycle where something happens.

    Parameters
    ----------
    clients : sequence of Client
    timing : Timing
    beat : int
        Bytes.
    turn : int
        The client chosen last.
    """

    def __init__(self, clients: Sequence[Client], timing: Timing, beat: int, turn: int = 0) -> None:
        self._clients = clients
        self._latency = timing.read_latency
        self._slots = timing.outstanding
        self._bucket = Bucket(beat, timing.read_rate)
        self._turn = turn
        self._now = 0
        self._fetch: int | None = None
        self._burst: tuple[int, int] | None = None  # client, beats
        self._address: tuple[int, int] | None = None  # on offer
        self._asked_at = 0
        self._last: list[int] = []  # cycle of each burst's last beat
        self._asked = 0

    def run(self, until: Callable[[], bool]) -> None:
        """Go on until something is so, or nothing can be known any further."""
        while not until():
            if not self._step():
                wake = self._wakes()
                if wake >= NEVER:
                    return
                self._now = wake
            else:
                self._now += 1

    def _may_ask(self) -> int:
        """Give from when on one more burst may be asked for."""
        index = self._asked - OUTSTANDING
        if index < 0:
            return 0
        return self._last[index] + SETTLED if index < len(self._last) else NEVER

    def _slot(self) -> int:
        """Give from when on the memory takes one more address."""
        index = len(self._last) - self._slots
        return self._last[index] + 1 if index >= 0 else 0

    def _step(self) -> bool:
        now, changed = self._now, False
        # The address.
        moves = self._address is not None and now >= self._slot()
        asks = (
            self._burst is not None
            and (self._address is None or moves)
            and now >= self._may_ask()
        )
        if moves and self._address is not None:
            client, beats = self._address
            times = self._bucket.many(
                max(now + self._latency, self._last[-1] + 1 if self._last else 0), beats
            )
            self._last.append(int(times[-1]))
            self._clients[client].arrive(times)
            self._address = None
            changed = True
        # The choice.
        fetched = self._fetch
        chosen = None
        if fetched is None and (self._burst is None or asks):
            count = len(self._clients)
            for step in range(1, count + 1):
                number = (self._turn + step) % count
                if self._clients[number].planner.offer is not None:
                    chosen = self._turn = number
                    break
        if asks:
            self._address = self._burst
            self._asked += 1
            self._burst = None
            changed = True
        if fetched is not None:
            beats = self._clients[fetched].planner.offer
            assert beats is not None
            self._burst = (fetched, beats)
            changed = True
        self._fetch = chosen
        changed |= chosen is not None
        for number, client in enumerate(self._clients):
            if not client.planner.done:
                changed |= client.planner.step(now, fetched == number)
        return changed

    def _wakes(self) -> int:
        now = self._now
        wake = min(
            (client.planner.wakes(now) for client in self._clients if not client.planner.done),
            default=NEVER,
        )
        if self._address is not None:
            wake = min(wake, max(now + 1, self._slot()))
        if self._burst is not None:
            wake = min(wake, max(now + 1, self._may_ask()))
        return wake
