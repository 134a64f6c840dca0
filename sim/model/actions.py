# SPDX-License-Identifier: Apache-2.0
"""How often each part of the core acts in a pass.

All of it follows from the schedule and from which activations are zero; what the hardware counts,
too, is held to its counters.
"""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from csp_hw.config import CspConfig
from csp_hw.pe.accumulation.regbin import bins
from sim.program.passes import Pass
from sim.schedule import Schedule

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Numbers = Ints | Floats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actions:
    """What the core does in some passes. Whole numbers where zeros were counted.

    A word of the engine is a row's byte each, a chunk's filter each, or L counts; a beat is
    ``cols`` bytes.

    Parameters
    ----------
    issued : float
        Steps with a product in every PE.
    slots, useful, gated, multiplied : float
        Products of all PEs; those on a live pixel and a real filter; those of them whose
        activation is 0; those for which a multiplier takes operands, padding filters included.
    accumulated : float
        Products of all PEs that change a run: those for which a multiplier takes operands, and
        the last one of each run.
    runs : float
        Runs of all PEs: sums that go through the adder into the accumulation buffer.
    written, read, drained : array of a number for each bin
        Partial sums of all PEs that a bin takes, that it must give because its entry is not fresh,
        and that it gives to the drain. Bins are those of both banks: see
        :func:`csp_hw.pe.accumulation.regbin.bins`.
    sums : float
        Words of ``cols`` sums out of the array.
    results : float
        Result words of the engine.
    row_written, row_read, run_written, run_read : float
        Words of the row buffer and of the run buffer.
    line_written : float
        Words of ``cols`` bytes into one bank of the line buffer.
    line_read : float
        Words of activations out of it, a byte of each bank's.
    line_turned : float
        Those of them for which the banks are read: their address is not that of the word before.
    weights_written, weights_read, counts_written, counts_read : float
        Words of the weight buffer and of the count buffer.
    weights_once : float
        Those of the weight buffer that are read a single time after they were written.
    survivors, blocks : float
        Surviving taps and blocks that the skip controller gives, over all tiles.
    input_beats, residual_beats, weight_beats, result_beats : float
        Of the ports; of descriptors, parameters, tiles and counts with those of weights.
    """

    issued: float = 0
    slots: float = 0
    useful: float = 0
    gated: float = 0
    multiplied: float = 0
    accumulated: float = 0
    runs: float = 0
    written: Numbers
    read: Numbers
    drained: Numbers
    sums: float = 0
    results: float = 0
    row_written: float = 0
    row_read: float = 0
    run_written: float = 0
    run_read: float = 0
    line_written: float = 0
    line_read: float = 0
    line_turned: float = 0
    weights_written: float = 0
    weights_read: float = 0
    weights_once: float = 0
    counts_written: float = 0
    counts_read: float = 0
    survivors: float = 0
    blocks: float = 0
    input_beats: float = 0
    residual_beats: float = 0
    weight_beats: float = 0
    result_beats: float = 0

    def __add__(self, other: "Actions") -> "Actions":
        """Give what both do."""
        names = [field.name for field in dataclasses.fields(self)]
        return Actions(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def scaled(self, factor: float) -> "Actions":
        """Give what so many of them do."""
        names = [field.name for field in dataclasses.fields(self)]
        return Actions(**{name: factor * getattr(self, name) for name in names})


def together(actions: Iterable[Actions]) -> Actions:
    """Add up at least one."""
    return functools.reduce(Actions.__add__, actions)


def count(step: Pass, zeros: Numbers | None = None) -> Actions:
    """Count what a pass does.

    Parameters
    ----------
    step : Pass
    zeros : array, optional
        How many pixels read a 0 with each surviving tap: counted
        (:meth:`sim.schedule.Schedule.zeros`) or expected (:func:`expected_zeros`). A pooling has
        none.
    """
    config, schedule = step.config, step.schedule
    ports = {
        "input_beats": step.input_beats,
        "residual_beats": step.residual_beats,
        "weight_beats": step.weight_beats,
        "result_beats": step.result_beats,
    }
    if schedule is None or zeros is None:
        none = np.zeros(len(bins(config.half_depth)), dtype=np.int64)
        return Actions(written=none, read=none, drained=none, **ports)
    counts = schedule.matrix.counts[schedule.survivors].astype(np.int64)
    sizes = np.array([tile.interleave for tile in schedule.tiles], dtype=np.int64)
    tiles, interleaved = len(sizes), int(sizes.sum())
    taps, steps = len(counts), schedule.steps
    starts = np.arange(0, taps, schedule.matrix.period)
    deepest = np.maximum.reduceat(counts, starts) if taps else counts
    elements = config.rows * config.cols
    taken = schedule.grid.pixels - zeros
    multiplied = (taken @ counts).item() * config.cols
    runs = interleaved * int(deepest.sum()) * elements
    # Runs end with a product whose operands are taken, or with one that is not counted yet.
    ended = (taken @ _runs_ended(counts, schedule.matrix.period)).item() * config.cols
    sums = _Sums(config, schedule, deepest)
    count_words = -(-schedule.matrix.taps // config.lookahead)
    weights_resident = step.fields["weights_resident"]
    counts_resident = step.fields["counts_resident"]
    return Actions(
        issued=schedule.issued,
        slots=schedule.slots,
        useful=schedule.useful,
        gated=(zeros @ schedule.filters_of_taps).item(),
        multiplied=multiplied,
        accumulated=multiplied + runs - ended,
        runs=runs,
        written=sums.written * elements,
        read=(sums.written - sums.fresh) * elements,
        drained=sums.drained * elements,
        sums=config.rows * schedule.matrix.chunks * interleaved,
        results=int(schedule.result_words.sum()),
        row_written=interleaved * taps,
        row_read=schedule.issued,
        run_written=tiles * steps,
        run_read=schedule.issued,
        line_written=step.input.total,
        line_read=interleaved * taps,
        line_turned=line_turns(schedule),
        weights_written=steps * (1 if weights_resident else tiles),
        weights_read=steps * tiles,
        weights_once=0 if weights_resident and tiles > 1 else steps * tiles,
        counts_written=count_words * (1 if counts_resident else tiles),
        counts_read=count_words * tiles,
        survivors=taps * tiles,
        blocks=len(starts) * tiles,
        **ports,
    )


def line_turns(schedule: Schedule) -> int:
    """Give how often the line buffer's banks are read: taps go on to other words, or pixels."""
    geometry, channels = schedule.layer.geometry, schedule.layer.geometry.group_channels
    kernel, channel = np.divmod(schedule.survivors, channels)
    lines: list[Ints] = []
    phases: list[Ints] = []
    for axis, tap in enumerate(np.divmod(kernel, geometry.kernel[1])):
        place = tap * geometry.dilation[axis] - geometry.padding[axis]
        for found, part in zip(
            (lines, phases), np.divmod(place, geometry.stride[axis]), strict=True
        ):
            found.append(part)
    beat = (schedule.group * channels + channel) // schedule.config.cols
    # Behind a line's end is the next line: other taps may lie at the same place.
    place = np.stack([lines[0] * schedule.grid.pitch + lines[1], *phases, beat])
    turns = np.ones(len(kernel), dtype=np.bool_)
    turns[1:] = np.diff(place).any(axis=0)
    alone = int(turns.sum())
    turns[:: schedule.matrix.period] = True  # the next pixel's block
    sizes = (tile.interleave for tile in schedule.tiles)
    return sum(alone if size == 1 else size * int(turns.sum()) for size in sizes)


def count_expected(step: Pass, density: float) -> Actions:
    """Count a pass over a map of which a share is not 0, wherever that is."""
    schedule = step.schedule
    return count(step, None if schedule is None else expected_zeros(schedule, density))


def expected_zeros(schedule: Schedule, density: float) -> Floats:
    """Give how many pixels are expected to read a 0 with each surviving tap.

    Parameters
    ----------
    schedule : Schedule
    density : float
        Of the map, the same everywhere; padding is 0.
    """
    geometry, grid = schedule.layer.geometry, schedule.grid
    inside = []
    for axis, out in enumerate((grid.height, grid.width)):
        places = np.arange(out)[:, None] * geometry.stride[axis] - geometry.padding[axis]
        places = places + np.arange(geometry.kernel[axis]) * geometry.dilation[axis]
        inside.append(((places >= 0) & (places < geometry.in_shape[axis])).sum(axis=0))
    kernel = schedule.survivors // geometry.group_channels
    row, column = np.divmod(kernel, geometry.kernel[1])
    read = grid.images * inside[0][row] * inside[1][column]
    return np.asarray(grid.pixels - density * read)


class _Sums:
    """Partial sums of one PE by bin: runs written, first touches, entries drained."""

    def __init__(self, config: CspConfig, schedule: Schedule, deepest: Ints) -> None:
        chunks = schedule.matrix.chunks
        edges = bins(config.half_depth)
        # How many blocks have a run of each chunk.
        touched = (deepest[None, :] > np.arange(chunks)[:, None]).sum(axis=1)
        self.written, self.fresh, self.drained = (
            np.zeros(len(edges), dtype=np.int64) for _ in range(3)
        )
        sizes, numbers = np.unique([tile.interleave for tile in schedule.tiles], return_counts=True)
        for interleave, number in zip(sizes.tolist(), numbers.tolist(), strict=True):
            entries = np.arange(chunks * interleave)
            words = entries if config.overlaps(chunks, interleave) else entries // 2
            bin_of = np.searchsorted([edge.stop for edge in edges], words, side="right")
            writes = np.repeat(touched, interleave)
            for total, each in (
                (self.written, writes),
                (self.fresh, writes > 0),
                (self.drained, np.ones_like(writes)),
            ):
                total += number * np.bincount(bin_of, each, len(edges)).astype(np.int64)


def _runs_ended(counts: Ints, period: int) -> Ints:
    """Give of how many chunks each surviving tap ends the run."""
    # A block a row; behind a tap, the deepest of those that follow.
    blocks = np.pad(counts, (0, -len(counts) % period)).reshape(-1, period)
    behind = np.zeros_like(blocks)
    behind[:, :-1] = np.maximum.accumulate(blocks[:, :0:-1], axis=1)[:, ::-1]
    ended: Ints = np.maximum(blocks - behind, 0)
    return ended.ravel()[: len(counts)]
