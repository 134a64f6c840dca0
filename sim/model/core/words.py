# SPDX-License-Identifier: Apache-2.0
"""The words of activations: when the feeder asks for each, and when it enters the row buffer."""

from collections.abc import Sequence

import numpy as np

from csp_hw.config import CspConfig
from csp_hw.feeder import lines
from csp_hw.feeder.queue import CREDITS
from sim.model.core.memory import EARLY, Recent, Times, chain
from sim.model.core.taps import Asks

#: From a word's request to its being on offer, beyond the line buffer's latency.
OFFER = 3


class WordTimes:
    """Block after block, some of them at once.

    Parameters
    ----------
    config : CspConfig
    """

    def __init__(self, config: CspConfig) -> None:
        self._latency = lines.latency(config) + OFFER
        # Else the queue's places would hold words back that nothing else does.
        assert self._latency < CREDITS
        #: From a word's request to the release of the lanes that it was the last one for.
        self._release = lines.latency(config) - 1
        self._asked = EARLY
        self._entered = np.full(CREDITS, EARLY, dtype=np.int64)  # the last words of all
        self._last = EARLY  # the last one of them
        self._room = Recent(config.row_words)
        self._released = EARLY  # when words were released last

    @property
    def asked(self) -> int:
        """When the last word was asked for."""
        return self._asked

    @property
    def entered(self) -> int:
        """When the last word entered the row buffer."""
        return self._last

    def state(self) -> list[Times]:
        """Give the times that what comes may depend on, between two tiles."""
        single = np.array([self._asked, self._released], dtype=np.int64)
        return [single, self._entered, self._room.all()]

    def resume(self, state: Sequence[Times]) -> None:
        """Go on from the times of a state."""
        single, self._entered, room = state
        self._asked, self._released = single.tolist()
        self._last = int(self._entered[-1])
        self._room.extend(room)

    def skip(self, written: int, interleave: int, begin: int) -> list[int]:
        """Go through a tile without taps; give when each group of its lanes is released."""
        time = max(written + 1, self._asked + 1, begin + 1, int(self._entered[0]) + 1)
        self._asked = time + interleave - 1
        return [time + pixel + self._release for pixel in range(interleave)]

    def group(self, written: Times, asks: Asks, begin: int) -> tuple[Times, Times]:
        """Read blocks.

        Parameters
        ----------
        written : int64 array
            When each tap was kept in the feeder.
        asks : Asks
            Their words.
        begin : int
            The cycle in which the feeder takes the blocks' tile.

        Returns
        -------
        int64 array
            When each word is asked for.
        int64 array
            When each word enters the row buffer.
        """
        count = asks.words
        if count == len(written):
            earliest = written + 1
        else:
            earliest = np.full(count, EARLY, dtype=np.int64)
            earliest[asks.first] = written + 1
        old = min(count, CREDITS)
        np.maximum(earliest[:old], self._entered[:old] + 1, out=earliest[:old])
        asked = max(self._asked, begin)
        times = chain(earliest, asked)
        # Without the places of the queue that words of these blocks give back: they never matter.
        entered = offered = times + self._latency
        first = int(offered[0])
        if self._released >= first:
            entered = self._room.before(count) + 1
            np.maximum(entered, offered, out=entered)
        if self._last >= first or entered is not offered:
            entered = chain(entered, self._last)
            if count > CREDITS:
                later = earliest[CREDITS:]
                np.maximum(later, entered[:-CREDITS] + 1, out=later)
                times = chain(earliest, asked)
        if count >= CREDITS:
            self._entered = entered[-CREDITS:]
        else:
            self._entered = np.concatenate((self._entered[count:], entered))
        self._last = int(entered[-1])
        self._asked = int(times[-1])
        return times, entered

    def lanes(self, asked: Times) -> list[int]:
        """Give when groups of lanes are released, for each of which a word was the last one."""
        released: list[int] = (asked + self._release).tolist()
        return released

    def release(self, words: int, time: int) -> None:
        """Let the oldest words go."""
        self._released = time
        self._room.fill(time, words)
