# SPDX-License-Identifier: Apache-2.0
"""The words of activations: when the feeder asks for each, and when it enters the row buffer."""

import numpy as np

from csp_hw.config import CspConfig
from csp_hw.feeder import lines
from csp_hw.feeder.queue import CREDITS
from sim.model.core.bursts import EARLY
from sim.model.core.memory import Times, chain, numbers

#: From a word's request to its being on offer, beyond the line buffer's latency.
OFFER = 3


class WordTimes:
    """Block after block.

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
        self._count = 0
        self._room = np.full(config.row_words, EARLY, dtype=np.int64)
        self._released = EARLY  # when words were released last

    @property
    def asked(self) -> int:
        """When the last word was asked for."""
        return self._asked

    @property
    def entered(self) -> int:
        """When the last word entered the row buffer."""
        return int(self._entered[-1])

    def skip(self, written: int, interleave: int, begin: int) -> list[int]:
        """Go through a tile without taps; give when each group of its lanes is released."""
        time = max(written + 1, self._asked + 1, begin + 1, int(self._entered[0]) + 1)
        self._asked = time + interleave - 1
        return [time + pixel + self._release for pixel in range(interleave)]

    def block(self, written: Times, interleave: int, begin: int) -> tuple[Times, list[int]]:
        """Read a block.

        Parameters
        ----------
        written : int64 array
            When each tap was kept in the feeder.
        interleave : int
        begin : int
            The cycle in which the feeder takes the block's tile.

        Returns
        -------
        int64 array
            When each word enters the row buffer.
        list of int
            When each group of lanes is released if the block is the tile's last one.
        """
        taps = len(written)
        count = taps * interleave
        earliest = np.full(count, EARLY, dtype=np.int64)
        earliest[:taps] = written + 1
        old = min(count, CREDITS)
        np.maximum(earliest[:old], self._entered[:old] + 1, out=earliest[:old])
        asked = max(self._asked, begin)
        asks = chain(earliest, asked)
        # Without the places of the queue that words of this block give back: they never matter.
        entered = offered = asks + self._latency
        if self._released >= int(offered[0]):
            places = (self._count + numbers(count)) % len(self._room)
            entered = np.maximum(offered, self._room[places] + 1)
        if self.entered >= int(offered[0]) or entered is not offered:
            entered = chain(entered, self.entered)
            if count > CREDITS:
                later = earliest[CREDITS:]
                np.maximum(later, entered[:-CREDITS] + 1, out=later)
                asks = chain(earliest, asked)
        self._entered = np.concatenate((self._entered, entered[-CREDITS:]))[-CREDITS:]
        self._count += count
        self._asked = int(asks[-1])
        return entered, (asks[taps - 1 :: taps] + self._release).tolist()

    def release(self, words: int, time: int) -> None:
        """Let the oldest words go, which are the newest ones, too."""
        self._released = time
        self._room[(self._count - words + numbers(words)) % len(self._room)] = time
