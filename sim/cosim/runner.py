# SPDX-License-Identifier: Apache-2.0
"""Layers through the Verilog: every integer compared, cycles and counters kept."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from csp_algo.errors import located
from csp_algo.network import Layer, Network
from sim import golden
from sim.cosim.build import Build
from sim.cosim.jobs import Job
from sim.cosim.mismatch import Mismatch, first_difference, locate
from sim.cosim.process import Progress, run_jobs
from sim.cosim.streams import Stress, job_of
from sim.schedule import Schedule

Maps = npt.NDArray[np.integer]

#: Called with the name of the layer at work and the share 0 … 1 of all work that is done.
Report = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerJob:
    """A layer with its activations and what must come out.

    Parameters
    ----------
    layer : Layer
    inputs : int8 or uint8 [N, H, W, C]
    expected : array [N, Ho, Wo, M] in the layer's type
    residual : int8 or uint8 [N, Ho, Wo, M], if the layer adds one
    """

    layer: Layer
    inputs: Maps
    expected: Maps
    residual: Maps | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerRun:
    """What the Verilog made of a layer.

    Parameters
    ----------
    layer : Layer
    schedules : tuple of Schedule
        One for each group, in order.
    outputs : array [N, Ho, Wo, M] in the layer's type
        What came out.
    counters : tuple of dict
        The engine's counters for each group; ``cycles`` is until it is idle again.
    compared, mismatches : int
        Integers of the engine that were compared, and those that differ; padding included.
    mismatch : Mismatch, optional
        The first of them.
    """

    layer: Layer
    schedules: tuple[Schedule, ...]
    outputs: Maps
    counters: tuple[dict[str, int], ...]
    compared: int
    mismatches: int
    mismatch: Mismatch | None

    @property
    def total(self) -> dict[str, int]:
        """The counters of all groups together."""
        total: collections.Counter[str] = collections.Counter()
        for counters in self.counters:
            total.update(counters)
        return dict(total)

    @property
    def cycles(self) -> int:
        """Cycles of all groups."""
        return sum(counters["cycles"] for counters in self.counters)


def network_jobs(
    network: Network, images: Maps, *, acc_bits: int = golden.ACC_BITS
) -> tuple[list[LayerJob], golden.GoldenResult]:
    """Give a job for each layer of a network, with golden's integers before and after it.

    Every layer is held against golden by itself: a wrong one does not spoil its successors.
    """
    result = golden.run(network, images, acc_bits=acc_bits)
    values = {network.input.name: images, **result.values}
    jobs = [
        LayerJob(
            layer=layer,
            inputs=values[layer.input],
            expected=values[layer.name],
            residual=None if layer.residual is None else values[layer.residual.input],
        )
        for layer in network.layers()
    ]
    return jobs, result


def run_layers(
    build: Build,
    jobs: Sequence[LayerJob],
    *,
    stress: Callable[[int], Stress | None] | None = None,
    report: Report | None = None,
) -> Iterator[LayerRun]:
    """Run layers in one simulator process; give each when it is done.

    The first run with a mismatch is the last one: its first wrong integer is traced to a block
    and a chunk, which takes some more runs of its tile.

    Parameters
    ----------
    build : Build
    jobs : sequence of LayerJob
    stress : callable, optional
        Gives what disturbs the streams for the number of a group, counted over all layers.
    report : callable, optional
        Told how far the work is, several times a second.

    Raises
    ------
    CspError
        A layer does not fit the configuration, or the co-simulation fails; see
        :func:`sim.cosim.process.run_jobs`.
    """
    groups = [_Group(job, build) for job in jobs]
    pieces = [piece for group in groups for piece in group.pieces]
    works = np.cumsum([0, *(piece.schedule.bound().cycles for piece in pieces)])

    def tell(progress: Progress) -> None:
        if report is not None:
            start, end = works[progress.job], works[progress.job + 1]
            done = (start + progress.share * (end - start)) / works[-1]
            report(pieces[progress.job].schedule.layer.name, float(done))

    def stressed(number: int) -> Stress | None:
        return stress(number) if stress else None

    def orders() -> Iterator[Job]:
        for number, piece in enumerate(pieces):
            schedule, residual = piece.schedule, piece.job.residual
            with located(f"layer {schedule.layer.name}"):
                yield job_of(schedule, piece.job.inputs, stressed(number), residual=residual)

    outcomes = run_jobs(build, orders(), progress=tell)
    number = 0
    try:
        for group in groups:
            counters, words = [], []
            for _ in group.pieces:
                with located(f"layer {group.layer.name}"):
                    outcome = next(outcomes)
                tell(Progress(job=number, share=1.0, cycle=0))
                counters.append(outcome.counters)
                words.append(outcome.words)
                number += 1
            run = group.finish(build, counters, words)
            yield run
            if run.mismatch is not None:
                return
        for _ in outcomes:  # ends the process in order, so that a waveform is complete
            raise AssertionError("there are more outcomes than jobs")
    finally:
        outcomes.close()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """One group of a layer."""

    schedule: Schedule
    job: LayerJob


class _Group:
    """All groups of one layer."""

    def __init__(self, job: LayerJob, build: Build) -> None:
        self.layer = job.layer
        self.pieces = [
            _Piece(schedule=Schedule.make(job.layer, group, build.config, len(job.inputs)), job=job)
            for group in range(job.layer.geometry.groups)
        ]

    def finish(
        self, build: Build, counters: list[dict[str, int]], words: list[npt.NDArray[np.uint8]]
    ) -> LayerRun:
        """Compare and collect."""
        compared = mismatches = 0
        mismatch = None
        for piece, got in zip(self.pieces, words, strict=True):
            wanted = np.concatenate(list(piece.schedule.results(piece.job.expected)))
            dtype = piece.schedule.layer.dtype.numpy.newbyteorder("<")
            compared += wanted.view(dtype).size
            mismatches += int(np.count_nonzero(wanted.view(dtype) != got.view(dtype)))
            if mismatches and mismatch is None:
                difference = first_difference(piece.schedule, wanted, got)
                mismatch = locate(
                    build,
                    piece.schedule,
                    piece.job.inputs,
                    difference,
                    wanted,
                    residual=piece.job.residual,
                )
        outputs = np.concatenate(
            [piece.schedule.collect(got) for piece, got in zip(self.pieces, words, strict=True)],
            axis=-1,
        )
        return LayerRun(
            layer=self.layer,
            schedules=tuple(piece.schedule for piece in self.pieces),
            outputs=outputs,
            counters=tuple(counters),
            compared=compared,
            mismatches=mismatches,
            mismatch=mismatch,
        )
