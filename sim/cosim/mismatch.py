# SPDX-License-Identifier: Apache-2.0
"""Where a result first went wrong: from a wrong integer to a block and a chunk."""

import dataclasses

import numpy as np
import numpy.typing as npt

from csp_algo.compress import CompressedMatrix
from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from csp_algo.network import Layer
from sim import golden
from sim.cosim.build import Build
from sim.cosim.process import run_jobs
from sim.cosim.streams import job_of
from sim.schedule import Schedule

Maps = npt.NDArray[np.integer]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

#: Numbers of blocks that are tried in one simulator process.
PROBES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A wrong integer of a group of a layer.

    Parameters
    ----------
    group, tile : int
        ``tile`` counts from 0 in the group's schedule.
    image, y, x, filter : int
        ``filter`` counts over all groups; one beyond the group's last is padding.
    expected, got : int
    """

    group: int
    tile: int
    image: int
    y: int
    x: int
    filter: int
    expected: int
    got: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A wrong integer, and where it comes from.

    Parameters
    ----------
    layer : str
    difference : Difference
    block, chunk : int, optional
        The first run after which a partial sum of the pixel differs.
    filter : int, optional
        A filter whose partial sum differs there.
    expected, got : int, optional
        That partial sum.
    finding : str
        What the runs of the tile alone have shown, in words.
    """

    layer: str
    difference: Difference
    block: int | None = None
    chunk: int | None = None
    filter: int | None = None
    expected: int | None = None
    got: int | None = None
    finding: str = ""

    def __str__(self) -> str:
        d = self.difference
        return (
            f"layer {self.layer}, image {d.image}, y {d.y}, x {d.x}, filter {d.filter}: "
            f"expected {d.expected}, got {d.got} (group {d.group}, tile {d.tile}); {self.finding}"
        )

    def options(self) -> list[str]:
        """Give the options of ``csp run-tile`` that name the tile."""
        group, tile = str(self.difference.group), str(self.difference.tile)
        return ["--layer", self.layer, "--group", group, "--tile", tile]


def first_difference(schedule: Schedule, wanted: Bytes, got: Bytes) -> Difference:
    """Give the first wrong integer in the order of the results; there must be one.

    Parameters
    ----------
    schedule : Schedule
    wanted, got : uint8 [words, cols]
    """
    dtype = schedule.layer.dtype.numpy.newbyteorder("<")
    wanted, got = (np.ascontiguousarray(words).view(dtype) for words in (wanted, got))
    word, column = (int(index) for index in np.argwhere(wanted != got)[0])
    place = schedule.locate(word)
    return Difference(
        group=schedule.group,
        tile=place.tile,
        image=place.image,
        y=place.y,
        x=place.x,
        filter=place.filter + column,
        expected=int(wanted[word, column]),
        got=int(got[word, column]),
    )


def single_tile(schedule: Schedule, tile: int) -> Schedule:
    """Give a schedule of one tile of another.

    Raises
    ------
    CspError
        There is no such tile.
    """
    if not 0 <= tile < len(schedule.tiles):
        raise CspError(
            f"layer {schedule.layer.name}: tile must be 0 … {len(schedule.tiles) - 1}, not {tile}"
        )
    return dataclasses.replace(schedule, tiles=(schedule.tiles[tile]._replace(number=0),))


def truncated(schedule: Schedule, blocks: int) -> Schedule:
    """Give a schedule that stops after some blocks and leaves the bare partial sums.

    The output is int32 with a bias of 0, so it is acc · 2^t.
    """
    layer, group = schedule.layer, schedule.group
    matrix = schedule.matrix
    kept = schedule.survivors[: blocks * matrix.period]
    counts = np.zeros_like(matrix.counts)
    counts[kept] = matrix.counts[kept]
    part = CompressedMatrix(
        filters=matrix.filters,
        cols=matrix.cols,
        period=matrix.period,
        counts=counts,
        words=matrix.words[: int(counts.sum(dtype=np.int64))],
    )
    bare: Layer = dataclasses.replace(
        layer,
        matrices=(*layer.matrices[:group], part, *layer.matrices[group + 1 :]),
        bias=np.zeros_like(layer.bias),
        residual=None,
        relu=False,
        dtype=ActDtype.INT32,
    )
    return dataclasses.replace(schedule, layer=bare)


def locate(
    build: Build,
    schedule: Schedule,
    inputs: Maps,
    difference: Difference,
    wanted: Bytes,
    *,
    residual: Maps | None = None,
) -> Mismatch:
    """Trace a wrong integer to the first run that leaves a wrong partial sum.

    The tile runs again, alone and without stalls; then with its first blocks only, from which
    the hardware gives partial sums as results. Which number of blocks is the first wrong one is
    found by halving (with 16 probes at a time), as if a sum that is wrong stayed wrong.

    Parameters
    ----------
    build : Build
    schedule : Schedule
    inputs : int8 or uint8 [N, H, W, C]
    difference : Difference
    wanted : uint8 [words, cols]
        The right results of the whole schedule.
    residual : int8 or uint8 [N, Ho, Wo, M], if the layer adds one
    """
    layer = schedule.layer
    mismatch = Mismatch(layer=layer.name, difference=difference)
    ends = np.cumsum(schedule.result_words)
    tile = single_tile(schedule, difference.tile)
    due = wanted[ends[difference.tile] - schedule.result_words[difference.tile] :][
        : int(tile.result_words.sum())
    ]
    try:
        (outcome,) = run_jobs(build, [job_of(tile, inputs, residual=residual)])
        if np.array_equal(outcome.words, due):
            finding = "the tile alone gives the right results: what ran before it or stalls matter"
            return dataclasses.replace(mismatch, finding=finding)
        sums = _Sums(build, tile, inputs, difference)
        block = sums.first_wrong_block()
        if block is None:
            finding = "all partial sums of the pixel are right: the output stage is wrong"
            return dataclasses.replace(mismatch, finding=finding)
        return _describe(mismatch, sums, block)
    except CspError as error:
        return dataclasses.replace(mismatch, finding=f"running the tile again failed: {error}")


def _describe(mismatch: Mismatch, sums: "_Sums", block: int) -> Mismatch:
    expected, got = sums.expected(block + 1), sums.got[block + 1]
    chunk, column = (int(index) for index in np.argwhere(expected != got)[0])
    filter = sums.first_filter + chunk * expected.shape[1] + column
    want, have = int(expected[chunk, column]), int(got[chunk, column])
    return dataclasses.replace(
        mismatch,
        block=block,
        chunk=chunk,
        filter=filter,
        expected=want,
        got=have,
        finding=(
            f"first wrong partial sum: block {block}, chunk {chunk}, filter {filter}, "
            f"expected {want}, got {have}"
        ),
    )


class _Sums:
    """Partial sums of one pixel after each number of blocks, of golden and of the hardware.

    All are int64 [K, cols].
    """

    def __init__(self, build: Build, tile: Schedule, inputs: Maps, difference: Difference) -> None:
        self.build = build
        self.tile = tile
        self.inputs = inputs
        self.place = (difference.image, difference.y, difference.x)
        self.first_filter = tile.filters.start
        runs = golden.trace(tile.layer, inputs, *self.place, acc_bits=build.config.acc_bits)
        self.runs = [run for run in runs if run.group == tile.group]
        self.blocks = -(-len(tile.survivors) // tile.matrix.period)
        self.got: dict[int, Ints] = {}

    def expected(self, blocks: int) -> Ints:
        """Give golden's sums after some blocks."""
        sums = np.zeros((self.tile.matrix.chunks, self.tile.matrix.cols), dtype=np.int64)
        for run in self.runs:
            if run.block < blocks:
                sums[run.chunk] = run.sums
        return sums

    def first_wrong_block(self) -> int | None:
        """Give the block after which a sum of the pixel is wrong, None if all are right."""
        right, wrong = -1, self.blocks + 1  # numbers of blocks; even 0 may be wrong
        while wrong - right > 1:
            steps = min(PROBES, wrong - right - 1)
            parts = range(1, steps + 1)
            probes = [right + (wrong - right) * n // (steps + 1) for n in parts]
            self._measure(probes)
            for blocks in probes:
                if np.array_equal(self.got[blocks], self.expected(blocks)):
                    right = blocks
                else:
                    wrong = blocks
                    break
        if wrong > self.blocks:
            return None
        return max(wrong - 1, 0)

    def _measure(self, probes: list[int]) -> None:
        """Let the hardware compute the sums after some numbers of blocks."""
        schedules = [truncated(self.tile, blocks) for blocks in probes]
        jobs = (job_of(schedule, self.inputs) for schedule in schedules)
        outcomes = run_jobs(self.build, jobs)
        for blocks, schedule, outcome in zip(probes, schedules, outcomes, strict=True):
            matrix = schedule.matrix
            words = outcome.words.view("<i4").reshape(-1, matrix.chunks, matrix.cols)
            self.got[blocks] = words[self._lane()].astype(np.int64) >> schedule.layer.acc_shift

    def _lane(self) -> int:
        """Give the number of the pixel among the tile's live ones, in the order of results."""
        places = self.tile.places(self.tile.tiles[0])
        live = places.live
        lanes = zip(places.image[live], places.y[live], places.x[live], strict=True)
        return [tuple(map(int, lane)) for lane in lanes].index(self.place)
