# SPDX-License-Identifier: Apache-2.0
"""The reference memory's formulas, see ``sim/cosim/core/memory.v``."""

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]


def chain(earliest: Times, after: int | None = None) -> Times:
    """Give t[i] = max(earliest[i], t[i-1] + 1), with t[-1] = ``after`` if given."""
    if not len(earliest):
        return earliest
    steps = np.arange(len(earliest), dtype=np.int64)
    lead = earliest - steps
    if after is not None:
        lead[0] = max(int(lead[0]), after + 1)
    return np.maximum.accumulate(lead) + steps


class Bucket:
    """Credit of a channel: beats of so many bytes at a rate; what waited long finds it full.

    Beat n moves at max(earliest, floor(X / rate)), and X becomes max(rate · then, X) + bytes.
    """

    def __init__(self, beat: int, rate: int | None) -> None:
        self._beat = beat
        self._rate = beat if rate is None else rate
        self._x = -(1 << 60)

    def one(self, earliest: int) -> int:
        """Move a beat; give its cycle."""
        then = max(earliest, self._x // self._rate)
        self._x = max(self._rate * then, self._x) + self._beat
        return then

    def many(self, earliest: int, beats: int) -> Times:
        """Move beats, the later ones as soon as may be; at most one a cycle."""
        first = self.one(earliest)
        more = np.arange(1, beats, dtype=np.int64)
        x = self._x + (more - 1) * self._beat
        times = np.concatenate(([first], np.maximum(first + more, x // self._rate)))
        if beats > 1:
            self._x += (beats - 1) * self._beat
        return times
