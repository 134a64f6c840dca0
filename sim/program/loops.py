# SPDX-License-Identifier: Apache-2.0
"""The runs of beats in which a pass reads or writes a map."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError
from csp_hw.descriptor import BEAT_BITS, LOOP_BITS

#: Longest run, and most runs of a loop.
RUN_LIMIT = (1 << BEAT_BITS) - 1
COUNT_LIMIT = (1 << LOOP_BITS) - 1


class LoopError(CspError):
    """A pass has too many images: two loops of runs, or a counter, do not reach all of them."""


class Steps(NamedTuple):
    """``times`` steps of ``pitch`` bytes."""

    times: int
    pitch: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loops:
    """count2 × count1 runs of consecutive beats; run (j, i) is at offset + j·pitch2 + i·pitch1.

    Parameters
    ----------
    offset, pitch1, pitch2 : int
        In bytes.
    beats, count1, count2 : int
    cols : int
        Bytes of a beat.
    on_chip : bool
        They go to the map memory.
    """

    offset: int
    beats: int
    count1: int
    pitch1: int
    count2: int
    pitch2: int
    cols: int
    on_chip: bool = False

    @classmethod
    def over(
        cls, offset: int, axes: Sequence[Steps], cols: int, *, on_chip: bool = False
    ) -> "Loops":
        """Give the loops over some axes, outermost first; the runs are as long as can be.

        Raises
        ------
        LoopError
            There are too many axes that do not follow each other without a gap.
        """
        merged: list[Steps] = []
        for step in reversed(axes):
            if merged and merged[-1].times * merged[-1].pitch == step.pitch:
                inner = merged.pop()
                merged.append(Steps(inner.times * step.times, inner.pitch))
            elif step.times > 1:
                merged.append(step)
        if not merged or merged[0].pitch != cols:
            merged.insert(0, Steps(1, cols))
        run, *outer = _split(merged[0], RUN_LIMIT)
        outer += [part for step in merged[1:] for part in _split(step, COUNT_LIMIT)]
        if len(outer) > 2:
            shape = " × ".join(str(step.times) for step in axes)
            raise LoopError(f"{shape} pieces of a map are more than two loops of runs reach")
        first, second = (*outer, Steps(1, 0), Steps(1, 0))[:2]
        return cls(
            offset=offset,
            beats=run.times,
            count1=first.times,
            pitch1=first.pitch,
            count2=second.times,
            pitch2=second.pitch,
            cols=cols,
            on_chip=on_chip,
        )

    @property
    def total(self) -> int:
        """All beats."""
        return self.count2 * self.count1 * self.beats

    @property
    def outside(self) -> int:
        """Beats that move through a port to memory: all or none."""
        return 0 if self.on_chip else self.total

    @property
    def end(self) -> int:
        """The first byte behind all beats."""
        last = (self.count2 - 1) * self.pitch2 + (self.count1 - 1) * self.pitch1
        return self.offset + last + self.beats * self.cols

    @property
    def addresses(self) -> npt.NDArray[np.int64]:
        """The offset of each beat, in order."""
        axes = ((self.count2, self.pitch2), (self.count1, self.pitch1), (self.beats, self.cols))
        offsets = np.full(1, self.offset, dtype=np.int64)
        for times, pitch in axes:
            offsets = (offsets[:, None] + np.arange(times) * pitch).ravel()
        return offsets

    def fields(self, name: str) -> dict[str, int]:
        """Give the fields of a descriptor."""
        return {
            f"{name}_offset": self.offset,
            f"{name}_beats": self.beats,
            f"{name}_count1": self.count1,
            f"{name}_count2": self.count2,
            f"{name}_pitch1": self.pitch1,
            f"{name}_pitch2": self.pitch2,
        }


def _split(step: Steps, limit: int) -> list[Steps]:
    """Give the steps as an inner and an outer part if they are too many."""
    if step.times <= limit:
        return [step]
    for outer in range(-(-step.times // limit), COUNT_LIMIT + 1):
        if step.times % outer == 0:
            inner = step.times // outer
            return [Steps(inner, step.pitch), Steps(outer, inner * step.pitch)]
    raise LoopError(f"{step.times} steps cannot be split into loops of at most {limit}")
