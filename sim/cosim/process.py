# SPDX-License-Identifier: Apache-2.0
"""One simulator process that is fed many jobs."""

import collections
import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import cocotb_tools.config
import find_libpython

from csp_algo.errors import CspError
from csp_hw.config import CspConfig
from csp_hw.counters import counters_layout
from sim.cosim import protocol
from sim.cosim.build import EXECUTABLE, ICARUS, IMAGE, Build
from sim.cosim.jobs import Job, Outcome, read_outcome, write_job
from sim.cosim.toolchain import find_icarus
from sim.cosim.wrapper import BENCH

#: Jobs whose files are ready before the simulator asks for them: they are made while it runs.
AHEAD = 3
#: Seconds without any message after which a simulator is given up. The bench reports five times a
#: second; start-up on a loaded machine is what takes longest.
SILENCE = 300.0
#: Seconds that a simulator may take to complete its waveform when its run is given up.
WAVE_SECONDS = 60.0

JobT = TypeVar("JobT")
OutcomeT = TypeVar("OutcomeT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: the job's number, the share of it that is done, cycles of all jobs."""

    job: int
    share: float
    cycle: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side(Generic[JobT, OutcomeT]):
    """What a kind of bench has of its own.

    Parameters
    ----------
    module : str
        The Python that runs inside the simulator.
    top : str
        The module of the Verilog that it drives.
    environment : mapping of str to str
        What it is told at its start.
    write : callable
        Writes a job to a path; other files of a job begin with that path's stem.
    read : callable
        Reads the outcome from the job's path with the suffix ``.out``; is given the job, too.
    """

    module: str
    top: str
    environment: Mapping[str, str]
    write: Callable[[Path, JobT], None]
    read: Callable[[Path, JobT], OutcomeT]


def default_patience(config: CspConfig) -> int:
    """Give more cycles than any correct engine passes without a beat on any stream.

    A block keeps an array busy for T · I · K cycles, at most T · depth, and the buffers hold
    ``row_blocks`` of them; an int32 result takes four cycles.
    """
    return 10_000 + 4 * config.row_blocks * config.max_period * config.depth


def run_jobs(
    build: Build,
    jobs: Iterable[Job],
    *,
    wave: Path | None = None,
    patience: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Run jobs one after the other in one simulator process; give each outcome when it is there.

    ``jobs`` is consumed while the simulator runs. Closing the iterator early ends the process.

    Parameters
    ----------
    build : Build
    jobs : iterable of Job
    wave : Path, optional
        Where to write a waveform: .vcd, or with Icarus also .fst.
    patience : int, optional
        Cycles without a beat on any stream after which the engine is taken to hang.
    progress : callable, optional
        Called several times a second.

    Raises
    ------
    CspError
        The engine hangs or breaks a rule, the simulator fails or falls silent, or a file cannot
        be written.
    """
    side = Side(
        module="sim.cosim.bench",
        top=BENCH,
        environment={
            protocol.PATIENCE: str(patience or default_patience(build.config)),
            protocol.COUNTERS: ",".join(
                f"{name}:{field.width}" for name, field in counters_layout()
            ),
        },
        write=write_job,
        read=lambda path, _: read_outcome(path),
    )
    return exchange(build, side, jobs, wave=wave, progress=progress)


def exchange(
    build: Build,
    side: Side[JobT, OutcomeT],
    jobs: Iterable[JobT],
    *,
    wave: Path | None,
    progress: Callable[[Progress], None] | None,
) -> Generator[OutcomeT, None, None]:
    """Run jobs of any kind; see :func:`run_jobs`."""
    if wave is not None:
        check_wave(wave, build.simulator)
        if build.simulator != ICARUS and not build.trace:
            raise CspError(f"{wave}: this simulator was built without waveforms")
    folder = Path(tempfile.mkdtemp(prefix="csp-cosim-"))
    try:
        with _Simulator(build, side, folder, wave) as simulator:
            yield from _exchange(simulator, side, jobs, folder, progress)
    except OSError as error:
        raise CspError(f"co-simulation: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exchange(
    simulator: "_Simulator",
    side: Side[JobT, OutcomeT],
    jobs: Iterable[JobT],
    folder: Path,
    progress: Callable[[Progress], None] | None,
) -> Iterator[OutcomeT]:
    waiting: collections.deque[tuple[Path, JobT]] = collections.deque()
    source = enumerate(jobs)
    exhausted = False
    finished = 0
    while True:
        while not exhausted and len(waiting) < AHEAD:
            following = next(source, None)
            if following is None:
                exhausted = True
                simulator.no_more()
                break
            number, job = following
            path = folder / f"{number:06}.job"
            side.write(path, job)
            waiting.append((path, job))
            simulator.order(path)
            if simulator.has_message():
                break
        if not waiting:
            break
        message = simulator.message()
        if "error" in message:
            raise CspError(f"co-simulation: {message['error']}")
        if "share" in message:
            if progress is not None:
                share, cycle = float(message["share"]), int(message["cycle"])
                progress(Progress(job=finished, share=share, cycle=cycle))
            continue
        path, job = waiting.popleft()
        if message.get("done") != path.name:
            raise CspError(f"co-simulation: {path.name} was due, not {message}")
        outcome = side.read(path.with_suffix(".out"), job)
        for left in folder.glob(f"{path.stem}*"):
            left.unlink()
        finished += 1
        yield outcome
    simulator.finish()


class _Simulator:
    """The process and its two pipes."""

    def __init__(self, build: Build, side: Side[Any, Any], folder: Path, wave: Path | None) -> None:
        self.build = build
        self.wave = None if wave is None else wave.absolute()
        self.log = folder / "simulator.log"
        self.buffer = b""
        self.lines: collections.deque[bytes] = collections.deque()
        orders_in, self.orders = os.pipe()
        self.messages, messages_out = os.pipe()
        environment = {
            **os.environ,
            **side.environment,
            "COCOTB_TEST_MODULES": side.module,
            "COCOTB_TOPLEVEL": side.top,
            "TOPLEVEL_LANG": "verilog",
            "COCOTB_TRUST_INERTIAL_WRITES": "1",
            "COCOTB_RESULTS_FILE": str(folder / "results.xml"),
            "COCOTB_REWRITE_ASSERTION_FILES": "",
            "COCOTB_LOG_LEVEL": "WARNING",
            "COCOTB_RANDOM_SEED": "1",
            "GPI_USERS": f"{_libpython()};{cocotb_tools.config.pygpi_entry_point()}",
            "PYGPI_PYTHON_BIN": sys.executable,
            "PYTHONPATH": os.pathsep.join(sys.path),
            protocol.ORDERS: str(orders_in),
            protocol.MESSAGES: str(messages_out),
        }
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    self._command(),
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(orders_in, messages_out),
                )
        except OSError as error:
            os.close(self.orders)
            os.close(self.messages)
            raise CspError(f"co-simulation: cannot start the simulator: {error}") from error
        finally:
            os.close(orders_in)
            os.close(messages_out)

    def _command(self) -> list[str]:
        if self.build.simulator != ICARUS:
            command = [str(self.build.folder / EXECUTABLE)]
            return [*command, "--trace", "--trace-file", str(self.wave)] if self.wave else command
        entry = cocotb_tools.config.lib_entry("vpi", "icarus")
        command = [str(find_icarus().vvp), "-n", "-m", entry, str(self.build.folder / IMAGE)]
        if self.wave is None:
            return [*command, "-none"]
        kind = "-fst" if self.wave.suffix == ".fst" else "-vcd"
        return [*command, kind, f"+wave={self.wave}"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.no_more()
        if self.wave is not None:  # what was ordered runs to its end, so that the file is whole
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(WAVE_SECONDS)
        os.close(self.messages)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def order(self, path: Path) -> None:
        """Ask for a job."""
        with contextlib.suppress(BrokenPipeError):  # it has died; reading says of what
            os.write(self.orders, f"{path}\n".encode())

    def no_more(self) -> None:
        """Say that there are no more jobs."""
        if self.orders >= 0:
            os.close(self.orders)
            self.orders = -1

    def has_message(self) -> bool:
        """Whether a message can be read without waiting."""
        return bool(self.lines) or bool(select.select([self.messages], [], [], 0)[0])

    def message(self) -> dict[str, Any]:
        """Wait for a message."""
        while not self.lines:
            if not select.select([self.messages], [], [], SILENCE)[0]:
                raise CspError(f"co-simulation: the simulator is silent for {SILENCE:.0f} s")
            data = os.read(self.messages, 1 << 16)
            if not data:
                raise CspError(f"co-simulation: {self._death()}")
            *lines, self.buffer = (self.buffer + data).split(b"\n")
            self.lines.extend(lines)
        message = json.loads(self.lines.popleft())
        assert isinstance(message, dict)
        return message

    def finish(self) -> None:
        """Wait until the process has ended, so that a waveform is complete."""
        deadline = time.monotonic() + SILENCE
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise CspError("co-simulation: the simulator does not end")
            time.sleep(0.005)
        if self.process.returncode:
            raise CspError(f"co-simulation: {self._death()}")

    def _death(self) -> str:
        """Say why the process has ended: its signal or exit code and what it said last."""
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        lines = self.log.read_text(errors="replace").splitlines()
        said = [line.strip() for line in lines if "error" in line.lower()] or lines
        last = said[-1].strip() if said else "it said nothing"
        return f"the simulator ended with {how}: {last}"


def check_wave(wave: Path, simulator: str) -> None:
    """Refuse a file that a simulator cannot write its waveform to, before it is built.

    Raises
    ------
    CspError
        It ends in something else than the simulator's kinds, or there is no such folder.
    """
    kinds = (".vcd", ".fst") if simulator == ICARUS else (".vcd",)
    if wave.suffix not in kinds:
        raise CspError(f"{wave}: a waveform of {simulator} ends in {' or '.join(kinds)}")
    if not wave.absolute().parent.is_dir():
        raise CspError(f"{wave}: there is no folder {wave.absolute().parent}")


def _libpython() -> str:
    path = find_libpython.find_libpython()
    if path is None:
        raise CspError("the shared library of this Python is missing (libpython3.x.so)")
    return str(path)
