# SPDX-License-Identifier: Apache-2.0
"""From a finished tile to beats on the port: drain, output stage, pooler."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_hw import output
from csp_hw.array import Array
from csp_hw.config import CspConfig
from csp_hw.pool import pooler
from csp_hw.ports import OutputType, PoolKind
from sim.model.core.reader import ReadPort, Waiting
from sim.model.core.writer import WritePort

#: From a step of the pooler to its counting among those that need room.
SEEN = 3
#: From a result's leaving the pooler to the first step that finds its place.
RETURNED = 2
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
        self._none = fields.get("pool", 0) == PoolKind.NONE
        self._order = iter(()) if self._none else _steps(fields)
        self._last = -1 if self._none else begin - 1
        self._ends: list[int] = []  # steps that end a window
        self._seen = 0  # of them, how many were long enough before the last step
        self._leaves: list[int] = []

    def _step(self, time: int, *, ends: bool) -> int:
        """Step as soon as there is room."""
        time = max(time, self._last + 1)
        ended = self._ends
        while True:
            while self._seen < len(ended) and ended[self._seen] <= time - SEEN:
                self._seen += 1
            index = self._seen - 1 - (pooler.CREDITS - pooler.MARGIN)
            if index < 0 or self._leaves[index] + RETURNED <= time:
                break
            time = self._leaves[index] + RETURNED
        self._last = time
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
        if self._none:
            return self._step(offered, ends=True)
        for inside, ends in self._order:
            if inside:
                return self._step(offered, ends=ends)
            self._step(0, ends=ends)
        raise AssertionError("more words than the map has")

    def end(self) -> int:
        """Walk over what is left of the padding; give the first cycle in which all is done."""
        for inside, ends in self._order:
            assert not inside
            self._step(0, ends=ends)
        return max(self._last + 2, self._leaves[-1] + 1 if self._leaves else 0)


def _steps(fields: dict[str, int]) -> Iterator[tuple[bool, bool]]:
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
    words = fields["pool_words"]
    inside = np.repeat((in_y[:, None] & in_x).ravel(), words).tolist()
    ends = np.repeat((end_y[:, None] & end_x).ravel(), words).tolist()
    for _ in range(fields["images"]):
        yield from zip(inside, ends, strict=True)


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
        self._room = self._latency + 8
        self._pool = pool
        self._residual = residual
        self._begin = begin
        self._free = 0
        self._taken: list[int] = []
        self._accepts = loaded + LOADED
        self._moved = -1
        self._results: list[int] = []  # when each left the output stage
        self._live = 0
        self._launched = 0
        self.idle = 0

    def tile(self, finished: int, live: npt.NDArray[np.bool_]) -> int:
        """Drain a tile whose last product is issued in cycle ``finished``; give its last cycle."""
        ask = max(finished + Array.DRAIN_DISTANCE, self._free) - 1
        taken = self._taken
        each = output.INT32_WORDS if self._int32 else 1
        for lane in np.repeat(live.reshape(-1), self._chunks).tolist():
            asked = len(taken)
            ask = max(ask + 1, taken[asked - self._room] + 1 if asked >= self._room else 0)
            self._moved = max(
                ask + self._latency + 2, self._moved + 1, taken[-1] if taken else 0
            )
            accept = max(self._moved + 1, self._accepts)
            index = each * self._live + each - output.CREDITS - 1
            if index >= 0:
                accept = max(accept, self._results[index] + 1)
            taken.append(accept)
            self._accepts = accept + 1
            self.idle = max(self.idle, accept + 1)
            if lane:
                self._launch(accept)
        self._free = ask + 1
        return ask

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
            self._results.append(self._pool.take(offered))
        self.idle = max(self.idle, self._results[-1] + 1)
