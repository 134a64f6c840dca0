# SPDX-License-Identifier: Apache-2.0
"""The fewest cycles that a pass of the core can take."""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.integers import ActDtype
from csp_hw import output
from csp_hw.array import Array
from csp_hw.config import CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES
from csp_hw.feeder.feeder import latency as feeder_latency
from csp_hw.map_memory import READ_LATENCY, WRITE_LATENCY
from csp_hw.pool import pooler
from sim.cosim.core.jobs import Timing
from sim.program.passes import Pass
from sim.schedule import Schedule

#: Cycles from the start through the descriptor's address, its checks and the pass's own addresses.
BEGIN = 24
#: From a port's beat to the feeder, and from the feeder's word to a product of it.
READ, ISSUE = 3, 2
#: From a result to its beat on the port, if it is alone.
WRITE = 6


def enter(config: CspConfig) -> int:
    """Give the cycles from a beat of a map to a product of it."""
    return READ + feeder_latency(config) + ISSUE


def leave(config: CspConfig, dtype: ActDtype) -> int:
    """Give the cycles from a request for a sum to its beat on the port."""
    stage = output.INT32_LATENCY if dtype is ActDtype.INT32 else output.LATENCY
    return Array.drain_latency(config) + stage + pooler.LATENCY + WRITE


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassBound:
    """What bounds a pass, in cycles.

    Parameters
    ----------
    compute : int
        Σ over tiles of I · Σn.
    drain : int
        Σ over tiles of rows · K · I; for int32 a live lane takes four times as long.
    array : int
        Both, one behind the other: the tiles compute in turn, and drain in turn, each after it has
        computed. That takes max over n of Σ compute of tiles 0 … n + Σ drain of tiles n … last,
        less what dead lanes at the end take beside the last result's way to memory.
    inputs, tables, residual, results : int
        Beats of each port at its rate; behind the input the drain of the last tile.
    first : int
        From the start until the first tile has what it needs.
    last : int
        From a drained sum to the memory's answer.
    """

    compute: int
    drain: int
    array: int
    inputs: int
    tables: int
    residual: int
    results: int
    first: int
    last: int

    @property
    def paths(self) -> dict[str, int]:
        """Cycles of each path, first data and last drain included.

        What comes before the first product is not counted again on the port that it comes through.
        """
        return {
            "compute" if self.compute > self.drain else "drain": self.first
            + self.array
            + self.last,
            "inputs": self.inputs + self.last,
            "tables": self.tables + self.last,
            "residual": self.residual + self.last,
            "results": self.first + self.results,
        }

    @property
    def limit(self) -> str:
        """Name of the path that bounds the pass."""
        return max(self.paths, key=self.paths.__getitem__)

    @property
    def cycles(self) -> int:
        """The bound."""
        return self.paths[self.limit]


class Pace(NamedTuple):
    """How fast something is read or written: cycles of latency, and of each beat."""

    latency: int
    beat: int

    def of(self, beats: int) -> int:
        """Give the cycles of so many beats."""
        return self.latency + beats * self.beat


def _pace(latency: int, rate: int | None, config: CspConfig) -> Pace:
    return Pace(latency, -(-config.cols // (rate or config.cols)))


def pass_bound(step: Pass, timing: Timing) -> PassBound:
    """Give the bound of a pass with a memory of some timing on all ports.

    The map memory moves a beat a cycle.
    """
    config = step.config
    tables = _pace(timing.read_latency, timing.read_rate, config)
    source, added, output = tables, tables, _pace(timing.write_latency, timing.write_rate, config)
    if step.input.on_chip:
        source = Pace(READ_LATENCY, 1)
    if step.residual is not None and step.residual.on_chip:
        added = Pace(READ_LATENCY, 1)
    if step.output.on_chip:
        output = Pace(WRITE_LATENCY, 1)
    descriptor = DESCRIPTOR_BYTES // config.cols
    begin = BEGIN + tables.latency + descriptor * tables.beat
    schedule = step.schedule
    compute = drain = array = tail = 0
    # A pooling alone: from a beat of the map to one of the results.
    load, last = 1, READ + pooler.LATENCY + WRITE
    way = 0
    if schedule is not None:
        sizes = np.array([tile.interleave for tile in schedule.tiles], dtype=np.int64)
        computes = sizes * schedule.steps
        drains = tile_drains(schedule)
        compute, drain = int(computes.sum()), int(drains.sum())
        array = int((computes.cumsum() + drains[::-1].cumsum()[::-1]).max())
        load, way = tile_beats(step, 0), enter(config)
        last = leave(config, schedule.layer.dtype)
        # The last result is on its way to memory while the dead lanes behind it are drained.
        behind = int(schedule.live(schedule.tiles[-1]).ravel()[::-1].argmax())
        spared = last + output.latency - Array.drain_latency(config)
        spared = min(behind * schedule.matrix.chunks, spared)
        array -= spared
        # The last tile is drained after the last beat that it needs.
        unused = step.input.total - tile_beats(step, -1)
        tail = max(0, way + int(drains[-1]) - spared - unused * source.beat)
    return PassBound(
        compute=compute,
        drain=drain,
        array=array,
        inputs=begin + source.of(step.input.total) + tail,
        tables=begin + tables.of(step.weight_beats - descriptor),
        residual=begin + added.of(0 if step.residual is None else step.residual.total),
        results=output.of(step.output.total),
        first=begin + source.of(load) + way,
        last=last + output.latency,
    )


def tile_drains(schedule: Schedule) -> npt.NDArray[np.int64]:
    """Give the cycles of each tile's drain.

    A sum takes one; of a live lane with int32 results, four, one for each word.
    """
    words, chunks = schedule.result_words, schedule.matrix.chunks
    lanes = np.array([tile.interleave for tile in schedule.tiles], dtype=np.int64)
    lanes *= schedule.config.rows
    live = words // (chunks * schedule.words_per_chunk)
    return words + (lanes - live) * chunks


def tile_beats(step: Pass, number: int) -> int:
    """Give the beats of the map that must have come before a tile of a convolution is read."""
    fields, schedule, config = step.fields, step.schedule, step.config
    assert schedule is not None
    tile = schedule.tiles[number]
    down = _reach(fields, "y", "h", "top")
    right = _reach(fields, "x", "w", "left")
    pitch, lines = fields["pitch"], fields["lines"]
    height, width = fields["height"], fields["width"]
    place = tile.base + tile.interleave * config.rows + down * pitch + right
    place = min(place, fields["images"] * lines * pitch)
    line, x = divmod(place, pitch)
    image, y = divmod(line, lines)
    phases_y, phases_x = 1 << fields["stride_y"], 1 << fields["stride_x"]
    rows = min(y * phases_y, height)
    columns = 0
    if x and rows < height:
        rows = min(rows + phases_y - 1, height - 1)
        columns = min(x * phases_x, width)
    return int(((image * height + rows) * width + columns) * fields["beats"])


def _reach(fields: dict[str, int], axis: str, side: str, before: str) -> int:
    """Give the largest distance, in places of the grid, at which a tap reads along an axis."""
    furthest = (fields[f"kernel_{side}"] - 1) * fields[f"dilation_{axis}"]
    return (furthest - fields[f"pad_{before}"]) >> fields[f"stride_{axis}"]
