# SPDX-License-Identifier: Apache-2.0
"""The reference memory's formulas, see ``sim/cosim/core/memory.v``."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]


def numbers(count: int) -> Times:
    """Give 0 … count − 1."""
    return np.arange(count, dtype=np.int64)


def chain(earliest: Times, after: int | None = None, steps: Times | None = None) -> Times:
    """Give t[i] = max(earliest[i], t[i-1] + 1), with t[-1] = ``after`` if given.

    With ``steps``, t[i] is at least t[j] + steps[i] − steps[j] for all j < i.
    """
    if not len(earliest):
        return earliest
    if steps is None:
        steps = numbers(len(earliest))
    lead = earliest - steps
    if after is not None:
        lead[0] = max(int(lead[0]), after + 1)
    return np.maximum.accumulate(lead, out=lead) + steps


class Flow(NamedTuple):
    """Beats that follow each other: beat 0 in cycle ``first``, beat n in :meth:`at`."""

    first: int
    credit: int
    bucket: "Bucket"

    def at(self, beat: int) -> int:
        """Give the cycle of a beat."""
        if not beat:
            return self.first
        bucket = self.bucket
        return max(self.first + beat, (self.credit + (beat - 1) * bucket.beat) // bucket.rate)


class Bucket:
    """Credit of a channel: beats of so many bytes at a rate; what waited long finds it full.

    Beat n moves at max(earliest, floor(X / rate)), and X becomes max(rate · then, X) + bytes.
    """

    def __init__(self, beat: int, rate: int | None) -> None:
        self.beat = beat
        self.rate = beat if rate is None else rate
        self.x = -(1 << 60)

    def flow(self, earliest: int, beats: int) -> Flow:
        """Move beats, the later ones as soon as may be; at most one a cycle."""
        first = max(earliest, self.x // self.rate)
        credit = max(self.rate * first, self.x) + self.beat
        self.x = credit + (beats - 1) * self.beat
        return Flow(first, credit, self)
