# SPDX-License-Identifier: Apache-2.0
"""One run of the core: the memory, the registers, what disturbs it; and what came out."""

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError, check_int
from sim.cosim.core.build import CoreBuild
from sim.cosim.core.protocol import (
    ANSWER_RULES,
    CHANNELS,
    MOST_OUTSTANDING,
    PORT_SETTINGS,
    RULES,
    STALL_STEPS,
    Response,
    packed,
    settings_fields,
    status_fields,
    unpacked,
)

Bytes = npt.NDArray[np.uint8]
Region = tuple[int, int]

#: Where the memory begins unless a job says otherwise: above 2^32, so that no bit is lost unseen.
BASE = 0x1_8000_0000
#: Longest latency of a port, in cycles.
LATENCY_LIMIT = (1 << PORT_SETTINGS["read_latency"]) - 1
#: The channel of the registers among the stalls.
REGISTERS = "registers"


class Write(NamedTuple):
    """A write to a register, by its name or its offset."""

    register: str | int
    value: int
    strobe: int = 0b1111


class WriteOrder(enum.Enum):
    """Which of a write's channels the memory takes first; a manager may not wait for either."""

    FREE = "free"
    ADDRESS_FIRST = "address"  # no data before their address was taken
    DATA_FIRST = "data"  # no address before data are on offer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast a port of the memory is; memory.v has the formulas.

    Parameters
    ----------
    read_latency : int
        Cycles from the one in which an address is taken to the first one with its first beat.
    write_latency : int
        Cycles from the last beat, or the address, to the answer.
    read_rate, write_rate : int, optional
        Bytes a cycle; a whole beat if they are not given.
    outstanding : int
        Bursts, 1 … 16, that are taken before the first of them was answered; of reads and of
        writes.
    order : WriteOrder
    """

    read_latency: int = 20
    write_latency: int = 20
    read_rate: int | None = None
    write_rate: int | None = None
    outstanding: int = MOST_OUTSTANDING
    order: WriteOrder = WriteOrder.FREE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inject:
    """A region of the memory that does not answer as it should.

    Parameters
    ----------
    low, high : int
        Bytes low … high − 1 of the memory.
    response : Response
        SLVERR, DECERR, or SILENCE: the port never answers again until reset.
    reads : bool
        Whether it concerns beats that are read; they do not show the memory.
    writes : bool
        Whether it concerns bursts that write; nothing of them is written.
    """

    low: int
    high: int
    response: Response = Response.SLVERR
    reads: bool = True
    writes: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CoreJob:
    """A run: load the memory, reset, write registers, wait, read registers, look at the memory.

    Parameters
    ----------
    image : uint8 array, optional
        The memory, whole beats; there is no more of it. Without it the memory stays what the job
        before has left.
    patches : mapping of int to bytes
        Replace whole beats of the memory, by their offset.
    base : int
        Address of the memory's first byte; the registers are not told of it.
    reset : bool
        Whether the core is reset first. Without, it goes on after the job before: image, timing
        and all that follows stay what they were; only registers, waiting and regions count.
    timing : Timing, or mapping of str to Timing
        Of all ports, or of each by its name.
    stalls : mapping of str to float
        For ``ar``, ``r``, ``aw``, ``w``, ``b`` (of all ports) and ``registers`` the probability
        that the channel stands still in a cycle, in steps of 1/256.
    seed : int
        Of the stalls.
    guard : (int, int), optional
        Bytes low … high − 1 that may be written; a write elsewhere is a fault.
    inject : Inject, optional
    writes : sequence of Write
        In order; plain tuples will do. The last one is taken for the start.
    wait : int, optional
        Wait so many cycles, whatever happens. Without it, wait for the interrupt.
    timeout : int
        Cycles after which the interrupt is given up; an error, unless
    give_up : bool
        says that it is none.
    reads : sequence of str or int, optional
        Registers to read at the end; all of them if not given.
    regions : sequence of (int, int), optional
        Bytes low … high − 1 to look at afterwards, whole beats; the whole memory if not given.
    count_reads : bool
        Whether to give how often the maps' port read each beat.
    strict : bool
        Whether a broken rule or a register that answers with an error is an error; waiting then
        ends at once. Else they are only told.
    expected : int
        Cycles that it will take, for the report of progress.
    """

    image: Bytes | None = None
    patches: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    base: int = BASE
    reset: bool = True
    timing: Timing | Mapping[str, Timing] = Timing()
    stalls: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seed: int = 0
    guard: Region | None = None
    inject: Inject | None = None
    writes: Sequence[Write | tuple[str | int, int]] = ()
    wait: int | None = None
    timeout: int = 10_000_000
    give_up: bool = False
    reads: Sequence[str | int] | None = None
    regions: Sequence[Region] | None = None
    count_reads: bool = False
    strict: bool = True
    expected: int = 0


class Traffic(NamedTuple):
    """What moved through a port of the memory since reset."""

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int
    errors: int  # beats read and bursts written without OKAY
    error_cycle: int  # since reset, in which the first of them came; 0 if none did


class Fault(NamedTuple):
    """Rules that a port has broken since reset; cycle and address are the first one's."""

    port: str
    rules: tuple[str, ...]
    cycle: int
    address: int

    def __str__(self) -> str:
        return f"{self.port}: {'; '.join(self.rules)} (cycle {self.cycle}, {self.address:#x})"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CoreOutcome:
    """What a job gave.

    Parameters
    ----------
    irq : bool
        Whether the interrupt was raised at the end.
    cycles : int
        From the cycle in which the last register write was taken to the first one with the
        interrupt, which is 1 if they follow each other; 0 if there was none.
    quiet : int
        Cycles from the last one in which something moved on a manager's port to the first one with
        the interrupt; 0 if there was none.
    finished : int
        The first cycle with the interrupt, since reset; 0 if there was none.
    cycle : int
        Cycles since reset.
    registers : dict of (str or int) to int
    responses : dict of (str or int) to Response
        Of the registers that did not answer OKAY, the last time.
    memory : tuple of uint8 arrays
        The regions, in their order.
    traffic : dict of str to Traffic
        For each port.
    faults : tuple of Fault
        One for each port that broke a rule; ``registers`` is one, too.
    reads : uint8 array, optional
        How often the maps' port read each beat of the memory since it was loaded; 255 is 255 or
        more.
    """

    irq: bool
    cycles: int
    quiet: int
    finished: int
    cycle: int
    registers: dict[str | int, int]
    responses: dict[str | int, Response]
    memory: tuple[Bytes, ...]
    traffic: dict[str, Traffic]
    faults: tuple[Fault, ...]
    reads: Bytes | None

    def value(self, name: str) -> int:
        """Give a register, or one of 64 bits that has a low and a high part."""
        if name in self.registers:
            return self.registers[name]
        return self.registers[f"{name}_LOW"] | self.registers[f"{name}_HIGH"] << 32


class Writer:
    """Turns the jobs of one process into files."""

    def __init__(self, build: CoreBuild) -> None:
        self.build = build
        self.size = 0  # of the memory, after the jobs so far

    def write(self, path: Path, job: CoreJob) -> None:
        """Write a job to a file, and its image to files beside it.

        Raises
        ------
        CspError
            It asks for something that cannot be.
        """
        if not job.reset and (job.image is not None or job.patches):
            raise CspError("the memory can be written during reset only")
        loads = []
        if job.image is not None:
            loads.append(self._load(path, 0, job.image, self.build.memory_bytes))
            self.size = len(job.image)
        if not self.size:
            raise CspError("the first job of a process must have an image")
        for offset, data in job.patches.items():
            loads.append(self._load(path, offset, np.frombuffer(data, dtype=np.uint8), self.size))
        for name, low in (("base", 0), ("wait", 0), ("timeout", 1)):
            value = getattr(job, name)
            if value is not None:
                check_int(name, value, low, (1 << (64 if name == "base" else 32)) - 1)
        writes = [Write(*write) for write in job.writes]
        for write in writes:
            check_int(f"value of {write.register}", write.value, 0, 0xFFFFFFFF)
            check_int(f"strobe of {write.register}", write.strobe, 0, 0b1111)
        for low, high in _regions(job, self.size):
            if high > self.size:
                raise CspError(f"bytes {low} … {high} are outside of the memory of {self.size}")
        order = {
            "reset": job.reset,
            "settings": packed(settings_fields(self.build.ports), self._settings(job)),
            "loads": loads,
            "writes": [[self._offset(w.register), w.value, w.strobe] for w in writes],
            "wait": job.wait,
            "timeout": job.timeout,
            "give_up": job.give_up,
            "reads": [self._offset(register) for register in _read(job, self.build)],
            "dumps": [self._beats(region) for region in _regions(job, self.size)],
            "tell": self._beats((0, self.size)) if job.count_reads else None,
            "size": self.size,
            "expected": job.expected,
        }
        path.write_text(json.dumps(order))

    def _load(self, path: Path, offset: int, data: Bytes, limit: int) -> list[Any]:
        """Write a file for memory.v, the last byte of each beat first."""
        if data.dtype != np.uint8 or data.ndim != 1 or not len(data):
            raise CspError("what is loaded must be uint8 [n], n at least 1")
        first, count = self._beats((offset, offset + len(data)))
        if offset + len(data) > limit:
            raise CspError(f"{len(data)} bytes at {offset} do not fit into {limit}")
        name = f"{path.stem}.load{offset}"
        data.reshape(-1, self.build.beat_bytes)[:, ::-1].tofile(path.with_name(name))
        return [name, first, count]

    def _beats(self, region: Region) -> list[int]:
        """Give first and number of a region's beats."""
        low, high = region
        beat = self.build.beat_bytes
        if low % beat or high % beat or low > high:
            raise CspError(f"bytes {low} … {high} are no whole beats of {beat}")
        return [low // beat, (high - low) // beat]

    def _offset(self, register: str | int) -> int:
        if isinstance(register, int):
            return register
        if register not in self.build.registers:
            raise CspError(f"the core has no register {register}")
        return self.build.registers[register]

    def _settings(self, job: CoreJob) -> dict[str, int]:
        """Give the settings of memory and driver by their names."""
        inject = job.inject
        low, high = _ordered("guard", job.guard or (0, self.size))
        values = {
            "base": job.base,
            "size": self.size,
            "guard_low": low,
            "guard_high": high,
            # Neighbouring seeds must not give similar noise.
            "seed": int(np.random.default_rng(job.seed).integers(1, 1 << 63)),
            "driver_stall": _steps(job.stalls, REGISTERS),
            "halt": int(job.strict),
        }
        if inject is not None:
            low, high = _ordered("inject", (inject.low, inject.high))
            values |= {
                "inject_low": low,
                "inject_high": high,
                "inject": inject.response,
                "inject_reads": int(inject.reads),
                "inject_writes": int(inject.writes),
            }
        unknown = set(job.stalls) - {*CHANNELS, REGISTERS}
        if unknown:
            raise CspError(f"there is no channel {min(unknown)}")
        for port in self.build.ports:
            timing = job.timing if isinstance(job.timing, Timing) else job.timing.get(port)
            if timing is None:
                raise CspError(f"there is no timing of port {port}")
            for name, value in _port_settings(timing, self.build.beat_bytes).items():
                values[f"{port}_{name}"] = value
            for channel in CHANNELS:
                values[f"{port}_{channel}_stall"] = _steps(job.stalls, channel)
        return values

    def read(self, path: Path, job: CoreJob) -> CoreOutcome:
        """Read the outcome of a job.

        Raises
        ------
        CspError
            The job is strict, and a rule was broken or a register answered with an error.
        """
        answer = json.loads(path.read_text())
        status = unpacked(status_fields(self.build.ports), answer["status"])
        beat = self.build.beat_bytes
        names = _read(job, self.build)
        asked = [*(Write(*write).register for write in job.writes), *names]
        responses = {
            name: Response(response)
            for name, response in zip(asked, answer["responses"], strict=True)
            if response != Response.OKAY
        }
        reads = None
        if job.count_reads:
            reads = _little_endian(path.with_suffix(".tell"))[: answer["size"] // beat]
        last = status["cycle"] - status["quiet"] - 1  # in which something moved
        outcome = CoreOutcome(
            irq=bool(status["irq"]),
            cycles=max(0, status["finished"] - status["started"]),
            quiet=max(0, status["finished"] and status["finished"] - last),
            finished=status["finished"],
            cycle=status["cycle"],
            registers=dict(zip(names, answer["values"], strict=True)),
            responses=responses,
            memory=tuple(
                _little_endian(path.with_suffix(f".dump{number}"))
                for number in range(len(_regions(job, answer["size"])))
            ),
            traffic={
                port: Traffic(*(status[f"{port}_{name}"] for name in Traffic._fields))
                for port in self.build.ports
            },
            faults=tuple(_faults(status, self.build.ports)),
            reads=reads,
        )
        if job.strict:
            for fault in outcome.faults:
                raise CspError(f"co-simulation: {fault}")
            for name, response in responses.items():
                where = name if isinstance(name, str) else f"{name:#05x}"
                raise CspError(f"co-simulation: register {where} answered {response.name}")
        return outcome


def _read(job: CoreJob, build: CoreBuild) -> Sequence[str | int]:
    return list(build.registers) if job.reads is None else job.reads


def _regions(job: CoreJob, size: int) -> Sequence[Region]:
    return [(0, size)] if job.regions is None else job.regions


def _ordered(name: str, region: Region) -> Region:
    low, high = region
    if not 0 <= low <= high:
        raise CspError(f"{name} must be 0 ≤ low ≤ high, not {low} … {high}")
    return region


def _steps(stalls: Mapping[str, float], channel: str) -> int:
    probability = stalls.get(channel, 0.0)
    steps = round(STALL_STEPS * probability)
    if not 0 <= steps < STALL_STEPS:
        raise CspError(f"the stalls of {channel} must be 0 … 255/256, not {probability}")
    return steps


def _port_settings(timing: Timing, beat: int) -> dict[str, int]:
    values = {
        "read_latency": timing.read_latency,
        "write_latency": timing.write_latency,
        "read_rate": beat if timing.read_rate is None else timing.read_rate,
        "write_rate": beat if timing.write_rate is None else timing.write_rate,
        "outstanding": timing.outstanding,
    }
    for name, value in values.items():
        end = {"outstanding": MOST_OUTSTANDING}.get(name, beat if "rate" in name else LATENCY_LIMIT)
        check_int(name, value, 1, end)
    values["data_first"] = int(timing.order is WriteOrder.DATA_FIRST)
    values["address_first"] = int(timing.order is WriteOrder.ADDRESS_FIRST)
    return values


def _little_endian(path: Path) -> Bytes:
    """Read what memory.v dumped, 32-bit numbers of this machine."""
    return np.fromfile(path, dtype="=u4").astype("<u4").view(np.uint8)


def _faults(status: dict[str, int], ports: Sequence[str]) -> list[Fault]:
    def broken(bits: int, rules: Sequence[str]) -> tuple[str, ...]:
        return tuple(rule for number, rule in enumerate(rules) if bits >> number & 1)

    found = [
        Fault(
            port,
            broken(status[f"{port}_faults"], RULES),
            status[f"{port}_fault_cycle"],
            status[f"{port}_fault_address"],
        )
        for port in ports
    ]
    found.append(Fault(REGISTERS, broken(status["answer_faults"], ANSWER_RULES), 0, 0))
    return [fault for fault in found if fault.rules]
