# SPDX-License-Identifier: Apache-2.0
"""Beats of a table, cut into words: :class:`csp_hw.width.WidthConverter` in time."""

from sim.model.core.memory import EARLY, Times


class Converter:
    """Words that somebody takes one by one.

    Parameters
    ----------
    ratio : int
        Words of a beat.
    offers : int64 array
        From when on each beat is on offer, if those before it were taken.
    """

    def __init__(self, ratio: int, offers: Times) -> None:
        self._ratio = ratio
        self._offers = offers.tolist()
        self._word = 0
        self._left = EARLY  # when the word before left
        self.taken: list[int] = []  # when each beat was taken,
        self.loads: list[int] = []  # and when its first word moved to the register on offer

    def offer(self) -> int:
        """Give from when on the next word is on offer."""
        if self._word % self._ratio == 0:
            taken = self._offers[len(self.taken)]
            if self.taken:
                taken = max(taken, self.taken[-1] + 1, self.loads[-1] + 1)
            self.taken.append(taken)
            self.loads.append(max(taken, self._left))
        return max(self.loads[-1], self._left) + 1

    def take(self, time: int) -> None:
        """Let the next word leave."""
        self._left = time
        self._word += 1


class Words:
    """Words that are taken as they come, none before its bound if there are some; beat by beat.

    Parameters
    ----------
    ratio : int
        Words of a beat; 1 and no register on the way if ``direct``.
    bounds : int64 array, optional
    direct : bool
    """

    def __init__(self, ratio: int, bounds: Times | None = None, *, direct: bool = False) -> None:
        self._ratio = ratio
        self._wait = 0 if direct else 1
        self._bounds = None if bounds is None else bounds.tolist()
        self._taken, self._loaded = EARLY, EARLY
        self.times: list[int] = []  # of words

    def __call__(self, offers: list[int]) -> list[int]:
        """Take beats that are on offer; give when."""
        words, taken = self.times, []
        for offer in offers:
            time = max(offer, self._taken + 1, self._loaded + 1)
            word = self._loaded = max(time, words[-1] if words else EARLY)
            if not self._wait:
                word = time - 1
            self._taken = time
            for _ in range(self._ratio):
                word += 1
                if self._bounds is not None:
                    word = max(word, self._bounds[len(words)])
                words.append(word)
            if not self._wait:
                self._taken = self._loaded = time = word
            taken.append(time)
        return taken
