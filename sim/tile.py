# SPDX-License-Identifier: Apache-2.0
"""``csp run-tile``: one tile of one layer again, with a waveform if wanted."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from csp_algo.errors import CspError, check_int, located
from sim.cosim.build import Build, build
from sim.cosim.mismatch import Mismatch, first_difference, locate, single_tile
from sim.cosim.process import check_wave, run_jobs
from sim.cosim.runner import LayerJob
from sim.cosim.streams import job_of
from sim.demo import Options, prepare
from sim.schedule import Schedule


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TileRun:
    """What the Verilog made of a tile.

    Parameters
    ----------
    schedule : Schedule
        Of the whole group.
    tile : int
        Which of its tiles was run.
    cycles : int
    compared, mismatches : int
        Integers that were compared, and those that differ; padding included.
    mismatch : Mismatch, optional
        The first of them.
    """

    schedule: Schedule
    tile: int
    cycles: int
    compared: int
    mismatches: int
    mismatch: Mismatch | None


def run(
    options: Options, console: Console, *, layer: str, group: int, tile: int, wave: Path | None
) -> TileRun:
    """Run a tile and say what came out.

    Parameters
    ----------
    options : Options
        Those of the run that the tile is taken from: its number depends on the images.
    console : Console
    layer : str
    group, tile : int
    wave : Path, optional
        The waveform to write.

    Raises
    ------
    CspError, ConfigError, OSError
        There is no such layer, group or tile, or something else that the user gave is wrong.
    """
    work = prepare(options)
    job = job_named(work.jobs, layer)
    if wave is not None:
        check_wave(wave, options.simulator)
    built = build(work.config, simulator=options.simulator, trace=wave is not None)
    result = run_tile(built, job, group=group, tile=tile, wave=wave)
    lanes = result.schedule.live(result.schedule.tiles[tile])
    where = f"layer {layer}, group {group}, tile {tile}"
    lines = [
        f"{where}: {lanes.sum()} pixels, I = {len(lanes)}, {result.cycles:,} cycles",
        f"{result.compared:,} integers compared, {result.mismatches:,} differ",
    ]
    if result.mismatch is not None:
        lines.append(str(result.mismatch))
    if wave is not None:
        lines.append(f"wrote {wave}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return result


def run_tile(
    built: Build, job: LayerJob, *, group: int, tile: int, wave: Path | None = None
) -> TileRun:
    """Run one tile of a layer, alone.

    Parameters
    ----------
    built : Build
        Made with ``trace=True`` if a waveform is wanted.
    job : LayerJob
        The layer with all images: tiles span them.
    group, tile : int
        Numbers of the group and of the tile in its schedule.
    wave : Path, optional
        The waveform to write.

    Raises
    ------
    CspError
        There is no such group or tile, or the co-simulation fails.
    """
    with located(f"layer {job.layer.name}"):
        check_int("group", group, 0, job.layer.geometry.groups - 1)
    schedule = Schedule.make(job.layer, group, built.config, len(job.inputs))
    alone = single_tile(schedule, tile)
    (wanted,) = alone.results(job.expected)
    (outcome,) = run_jobs(built, [job_of(alone, job.inputs, residual=job.residual)], wave=wave)
    dtype = job.layer.dtype.numpy.newbyteorder("<")
    mismatches = int(np.count_nonzero(wanted.view(dtype) != outcome.words.view(dtype)))
    mismatch = None
    if mismatches:
        difference = first_difference(alone, wanted, outcome.words)
        found = locate(built, alone, job.inputs, difference, wanted, residual=job.residual)
        mismatch = dataclasses.replace(found, difference=dataclasses.replace(difference, tile=tile))
    return TileRun(
        schedule=schedule,
        tile=tile,
        cycles=outcome.counters["cycles"],
        compared=wanted.view(dtype).size,
        mismatches=mismatches,
        mismatch=mismatch,
    )


def job_named(jobs: Sequence[LayerJob], name: str) -> LayerJob:
    """Give the job of a layer.

    Raises
    ------
    CspError
        There is no such layer; the message lists those that exist.
    """
    for job in jobs:
        if job.layer.name == name:
            return job
    names = ", ".join(job.layer.name for job in jobs)
    raise CspError(f"there is no layer {name!r}; there are: {names}")
