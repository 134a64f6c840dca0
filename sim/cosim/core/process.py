# SPDX-License-Identifier: Apache-2.0
"""One simulator process that is fed many runs of the core."""

from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from sim.cosim.core.build import CoreBuild
from sim.cosim.core.jobs import CoreJob, CoreOutcome, Writer
from sim.cosim.core.protocol import PORTS
from sim.cosim.core.wrapper import BENCH
from sim.cosim.process import Progress, Side, exchange


def run_core_jobs(
    build: CoreBuild,
    jobs: Iterable[CoreJob],
    *,
    wave: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Generator[CoreOutcome, None, None]:
    """Run jobs one after the other in one simulator process; give each outcome when it is there.

    ``jobs`` is consumed while the simulator runs, some jobs ahead. Closing the iterator early ends
    the process.

    Parameters
    ----------
    build : CoreBuild
    jobs : iterable of CoreJob
    wave : Path, optional
        Where to write a waveform: .vcd, or with Icarus also .fst.
    progress : callable, optional
        Called several times a second.

    Raises
    ------
    CspError
        A job asks for what cannot be, the core raises no interrupt in time or does not answer, a
        rule is broken and the job is strict, or the simulator fails or falls silent.
    """
    writer = Writer(build)
    side = Side(
        module="sim.cosim.core.bench",
        top=BENCH,
        environment={PORTS: ",".join(build.ports)},
        write=writer.write,
        read=writer.read,
    )
    return exchange(build, side, jobs, wave=wave, progress=progress)
