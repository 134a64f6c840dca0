# SPDX-License-Identifier: Apache-2.0
"""The reference memory's formulas, see ``sim/cosim/core/memory.v``."""

from array import array
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]

#: A time before all others, and one that has not come.
EARLY, NEVER = -(1 << 60), 1 << 60


_NUMBERS = np.arange(1 << 14, dtype=np.int64)
_NUMBERS.flags.writeable = False


def numbers(count: int) -> Times:
    """Give 0 … count − 1, not to be written to."""
    return _NUMBERS[:count] if count <= len(_NUMBERS) else np.arange(count, dtype=np.int64)


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
    np.maximum.accumulate(lead, out=lead)
    lead += steps
    return lead


def log() -> "array[int]":
    """Give an empty list of times, quick both one by one and as a whole."""
    return array("q")


def extend(times: "array[int]", more: Times) -> None:
    """Add times to a log."""
    times.frombytes(more.tobytes())


def since(times: "array[int]", first: int) -> Times:
    """Give the end of a log as int64."""
    part = times[first:]
    return np.frombuffer(part, dtype=np.int64) if part else np.empty(0, dtype=np.int64)


class Recent:
    """The last values of a sequence, all of them ``EARLY`` at first.

    Parameters
    ----------
    size : int
        How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = self._end = size
        self._values = np.full(8 * size + 64, EARLY, dtype=np.int64)

    def before(self, count: int) -> Times:
        """Give those that are ``size`` places before each of the next ``count``, at most ``size``.

        Not to be written to, nor used when others have come.
        """
        first = self._end - self._size
        return self._values[first : first + count]

    def all(self) -> Times:
        """Give all that are kept, not to be written to, nor used when others have come."""
        return self.before(self._size)

    def extend(self, values: Times) -> None:
        """Take the next values."""
        self._make_room(len(values))
        self._values[self._end : self._end + len(values)] = values
        self._end += len(values)

    def fill(self, value: int, count: int) -> None:
        """Take a value several times."""
        self._make_room(count)
        self._values[self._end : self._end + count] = value
        self._end += count

    def _make_room(self, count: int) -> None:
        if self._end + count > len(self._values):
            last = self._values[self._end - self._size : self._end].copy()
            if self._size + count > len(self._values):
                self._values = np.empty(8 * (self._size + count), dtype=np.int64)
            self._values[: self._size] = last
            self._end = self._size


class Flow(NamedTuple):
    """Beats that follow each other: beat 0 in cycle ``first``, beat n in :meth:`at`."""

    first: int
    credit: int
    bucket: "Bucket"

    def at(self, beat: int) -> int:
        """Give the cycle of a beat."""
        first, credit, bucket = self
        if bucket.full or not beat:
            return first + beat
        return max(first + beat, (credit + (beat - 1) * bucket.beat) // bucket.rate)


class Bucket:
    """Credit of a channel: beats of so many bytes at a rate; what waited long finds it full.

    Beat n moves at max(earliest, floor(X / rate)), and X becomes max(rate · then, X) + bytes.
    """

    def __init__(self, beat: int, rate: int | None) -> None:
        self.beat = beat
        self.rate = beat if rate is None else rate
        #: A beat moves in each cycle, whatever its credit.
        self.full = self.rate >= beat
        self.x = EARLY

    def flow(self, earliest: int, beats: int) -> Flow:
        """Move beats, the later ones as soon as may be; at most one a cycle."""
        first = max(earliest, self.x // self.rate)
        credit = max(self.rate * first, self.x) + self.beat
        self.x = credit + (beats - 1) * self.beat
        return Flow(first, credit, self)
