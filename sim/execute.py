# SPDX-License-Identifier: Apache-2.0
"""Whole networks on the core: each pass runs on the Verilog and is compared with golden."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from csp_algo.errors import CspError
from csp_algo.network import Network
from csp_hw.check import CHECKS
from csp_hw.config import CspConfig
from csp_hw.generate import core_verilog
from csp_hw.register_map import REGISTERS, ErrorCode
from sim import golden
from sim.cosim.build import VERILATOR, Report, generated, silent
from sim.cosim.core.build import CORE, CoreBuild, build_core
from sim.cosim.core.jobs import BASE, CoreJob, CoreOutcome, Timing
from sim.cosim.core.process import run_core_jobs
from sim.program.compiler import compile_network
from sim.program.maps import Bytes, Maps, pack_map
from sim.program.passes import Pass
from sim.program.plan import Choices
from sim.program.program import Program

#: Values of CONTROL: start, with the interrupt enabled.
START = 0b101
#: Value of STATUS that clears ``done`` and ``error``.
CLEAR = 0b110
#: Cycles that a pass may take beyond those of its steps, beats and drain, at least.
PATIENCE = 1_000_000


class PassRun(NamedTuple):
    """A pass that has run.

    Parameters
    ----------
    step : Pass
    cycles : int
        From the start to the interrupt.
    registers : dict of str to int
    different : int, optional
        Integers of the node that differ from the golden model; None before its last pass, and if
        they are on the chip only.
    compared : int
        Integers compared.
    """

    step: Pass
    cycles: int
    registers: Mapping[str | int, int]
    different: int | None
    compared: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A network and images, compiled for a core and computed by the golden model.

    Parameters
    ----------
    program : Program
    inputs : array [N, H, W, C]
    values : dict of str to array
        Of the golden model: all nodes that are in memory or on the chip.
    """

    program: Program
    inputs: Maps
    values: Mapping[str, Maps]

    @classmethod
    def make(
        cls, network: Network, config: CspConfig, inputs: Maps, choices: Choices | None = None
    ) -> "Task":
        """Compile a network, and compute it.

        Without choices, maps on the chip are copied to memory, so that all can be compared.

        Raises
        ------
        CspError
            Something does not fit; the message names the node and the value.
        """
        program = compile_network(network, config, len(inputs), choices or Choices(expose=True))
        keep = set(program.maps) - {network.input.name}
        values = golden.run(network, inputs, acc_bits=config.acc_bits, keep=keep).values
        return cls(program=program, inputs=inputs, values=values)

    @property
    def output(self) -> str:
        """Name of the last node."""
        return self.program.network.output.name

    @functools.cached_property
    def memory(self) -> Bytes:
        """The window as the golden model leaves it."""
        memory = self.program.memory(self.inputs)
        for name, place in self.program.shown.items():
            if name in self.values:
                # Maps may lie in each other's holes, and be parts of others.
                memory[place.offset : place.end] |= pack_map(place, self.values[name])
        return memory

    def read(self, step: Pass) -> Maps:
        """Give what a convolution reads, bytes [N, H, W, C] as its schedule has them.

        Raises
        ------
        CspError
            The pass is a pooling alone.
        """
        if not step.input.on_chip:
            return self.program.read(step, self.memory)
        source = self.program.maps[step.sources[0]]
        return self.program.read(step, pack_map(source, self.values[source.name]), source.offset)


def core_registers() -> dict[str, int]:
    """Give the byte offset of each register by its name."""
    return {register.name: register.offset for register in REGISTERS}


def build(
    config: CspConfig,
    *,
    simulator: str = VERILATOR,
    trace: bool = False,
    report: Report | None = None,
) -> CoreBuild:
    """Give a simulator of a core, from the cache if it was built before.

    Raises
    ------
    CspError
        A tool is missing or fails, or the cache cannot be written.
    """
    verilog = generated(config, CORE, lambda: core_verilog(config), report or silent)
    return build_core(
        config,
        verilog,
        core_registers(),
        simulator=simulator,
        trace=trace,
        report=report,
    )


def window(memory: Maps) -> list[tuple[str, int]]:
    """Give the register writes that tell of the memory."""
    return [
        ("BASE_LOW", BASE & 0xFFFF_FFFF),
        ("BASE_HIGH", BASE >> 32),
        ("SIZE_LOW", len(memory)),
    ]


def jobs(
    task: Task,
    *,
    timing: Timing | Mapping[str, Timing] | None = None,
    stalls: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Iterator[CoreJob]:
    """Give a run for each pass, one behind the other in the same memory."""
    program = task.program
    memory = program.memory(task.inputs)
    padding = -len(memory) % program.config.cols
    image = np.pad(memory, (0, padding))
    for number, (step, offset) in enumerate(zip(program.passes, program.descriptors, strict=True)):
        regions = []
        if step.node in program.shown:
            place = program.shown[step.node]
            regions.append((place.offset, place.end + -place.end % program.config.cols))
        writes = [] if number else [*window(memory), ("COUNT", 1)]
        work = sum(_work(step)) * (16 if stalls else 4)
        yield CoreJob(
            image=None if number else image,
            reset=number == 0,
            timing=timing or Timing(),
            stalls=stalls or {},
            seed=seed,
            writes=[*writes, ("DESCRIPTORS", offset), ("STATUS", CLEAR), ("CONTROL", START)],
            timeout=PATIENCE + work,
            regions=regions,
            expected=max(_work(step)),
        )


def run(
    task: Task,
    built: CoreBuild,
    *,
    timing: Timing | Mapping[str, Timing] | None = None,
    stalls: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Iterator[PassRun]:
    """Run all passes; give each as it ends, compared with the golden model.

    Raises
    ------
    CspError
        The core reports an error, or the simulator fails.
    """
    work = jobs(task, timing=timing, stalls=stalls, seed=seed)
    return compared(task, run_core_jobs(built, work))


def compared(task: Task, outcomes: Iterator[CoreOutcome]) -> Iterator[PassRun]:
    """Take the outcomes of a task's jobs; give each pass compared with the golden model.

    Raises
    ------
    CspError
        The core reports an error.
    """
    steps = task.program.passes
    last = {step.node: number for number, step in enumerate(steps)}
    for number, step in enumerate(steps):
        outcome = next(outcomes)
        _check(step, outcome)
        different, count = None, 0
        if last[step.node] == number and step.node in task.program.shown:
            expected = task.values[step.node]
            count = expected.size
            found = _value(task.program, step, outcome)
            different = int(np.count_nonzero(found != expected))
        yield PassRun(step, outcome.cycles, outcome.registers, different, count)


def _value(program: Program, step: Pass, outcome: CoreOutcome) -> Maps:
    """Give the map that a pass wrote from the region that was looked at."""
    place = program.shown[step.node]
    whole = np.zeros(program.size, dtype=np.uint8)
    whole[place.offset : place.end] = outcome.memory[0][: place.end - place.offset]
    return program.value(step.node, whole)


def _work(step: Pass) -> tuple[int, ...]:
    """Give the cycles of a pass by what they are spent on, about."""
    schedule = step.schedule
    parts = (step.weight_beats, *(loops.total for loops in step.moved))
    return parts if schedule is None else (*parts, schedule.issued)


def _check(step: Pass, outcome: CoreOutcome) -> None:
    status = outcome.registers["STATUS"]
    if status >> 2 & 1:
        code, detail = ErrorCode(status >> 8 & 0x1F), outcome.registers["ERROR_DETAIL"]
        check = f", check {CHECKS[detail]}" if code is ErrorCode.DESCRIPTOR else ""
        raise CspError(f"{step.title}: the core reports {code.name}{check}")
