# SPDX-License-Identifier: Apache-2.0
"""The geometry that decides when the feeder has what a tile needs."""

import functools
from bisect import bisect_left

import numpy as np

from csp_hw.config import CspConfig
from sim.model.core.memory import Times
from sim.program.passes import Pass


@functools.lru_cache(maxsize=256)
def axis_costs(
    count: int, stride: int, dilation: int, padding: int, kernel: int, size: int
) -> Times:
    """Give the cycles of each step of :class:`csp_hw.feeder.axis.AxisWalk`; int64 [count]."""
    first = stop = before = room = 0
    for tap in range(kernel):
        offset = tap * dilation - padding
        if offset < 0:
            first, before = tap + 1, offset
        if offset < size:
            stop, room = tap + 1, size - offset - 1
    costs = np.ones(count, dtype=np.int64)
    for step in range(1, count):
        before, room = before + stride, room - stride
        cycles = 0
        while True:
            enters, leaves = first and before >= 0, stop and room < 0
            if not enters and not leaves:
                break
            cycles += 1
            if enters:
                first, before = first - 1, before - dilation
            if leaves:
                stop, room = stop - 1, room + dilation
        costs[step] = max(1, cycles)
    return costs


def lane_times(step: Pass, lanes: int) -> Times:
    """Give when lane l is walked over, counted from lane 0, if nothing stops it."""
    fields = step.fields
    pitch, lines = fields["pitch"], fields["lines"]
    across = axis_costs(
        pitch,
        1 << fields["stride_x"],
        fields["dilation_x"],
        fields["pad_left"],
        fields["kernel_w"],
        fields["width"],
    )
    down = axis_costs(
        lines,
        1 << fields["stride_y"],
        fields["dilation_y"],
        fields["pad_top"],
        fields["kernel_h"],
        fields["height"],
    )
    image = np.tile(across, lines)
    image[::pitch] = down
    count = -(-lanes // len(image))
    return np.tile(image, count)[:lanes].cumsum()


class MapPlaces:
    """Which beat of the input lies where on the grid."""

    def __init__(self, step: Pass, config: CspConfig) -> None:
        fields = step.fields
        self._beats = fields["beats"]
        self._width = fields["width"]
        self._shift = fields["stride_x"]
        self._pitch = fields["pitch"]
        height, lines = fields["height"], fields["lines"]
        image, y = np.divmod(np.arange(fields["images"] * height), height)
        grid = image * lines + (y >> fields["stride_y"])
        lines = grid * fields["pitch"]
        last = (y == height - 1) | ((y + 1) & ((1 << fields["stride_y"]) - 1) == 0)
        self._furthest = (self._width - 1) >> self._shift
        self._lines: list[int] = lines.tolist()
        # The line whose last phase reaches that far, or the first one that begins there.
        self._reach: list[int] = (lines + np.where(last, self._furthest, 0)).tolist()
        self.total = len(y) * self._width * self._beats
        tops = [(-fields[f"pad_{side}"]) >> fields[f"stride_{axis}"] for side, axis in SIDES]
        ends = [
            ((fields[f"kernel_{letter}"] - 1) * fields[f"dilation_{axis}"] - fields[f"pad_{side}"])
            >> fields[f"stride_{axis}"]
            for (side, axis), letter in zip(SIDES, "hw", strict=True)
        ]
        self.near = tops[0] * self._pitch + tops[1] + (config.rows << fields["ring_bits"])
        self.far = ends[0] * self._pitch + ends[1]

    def below(self, limit: int) -> int:
        """Give the number of the first beat whose position is ``limit`` or above."""
        line = bisect_left(self._lines, limit - self._furthest)
        if line == len(self._lines):
            return self.total
        x = max(0, limit - self._lines[line]) << self._shift
        return (line * self._width + x) * self._beats

    def needed(self, need: int) -> int:
        """Give how many beats must be stored before ``need`` positions are complete."""
        line = bisect_left(self._reach, need)
        if line == len(self._reach):
            return self.total
        x = max(0, need - self._lines[line]) << self._shift
        return (line * self._width + x) * self._beats


SIDES = (("top", "y"), ("left", "x"))
