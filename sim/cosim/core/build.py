# SPDX-License-Identifier: Apache-2.0
"""From a core's Verilog to something that can be run, made once for each content."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from csp_hw.config import CspConfig
from sim.cosim import build as base
from sim.cosim.build import VERILATOR, Build, Report
from sim.cosim.core import wrapper

#: Module of the core.
TOP = "csp_core"
CORE, BENCH, MEMORY, DRIVER = "csp_core.v", "csp_core_bench.v", "memory.v", "driver.v"
MEBIBYTE = 1 << 20
#: Size of the memory at most; how much of it there is, each job says.
MEMORY_BYTES = 64 * MEBIBYTE


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoreBuild(Build):
    """A simulator that is ready to run one configuration of the core.

    Parameters
    ----------
    config, simulator, folder, trace
        See :class:`sim.cosim.build.Build`.
    registers : mapping of str to int
        Byte offset of each register.
    ports : tuple of str
        Names of the AXI4 managers.
    memory_bytes : int
        Size of the memory at most.
    """

    registers: Mapping[str, int]
    ports: tuple[str, ...]
    memory_bytes: int

    @property
    def beat_bytes(self) -> int:
        """Bytes of a beat of the managers."""
        return self.config.cols


def build_core(
    config: CspConfig,
    verilog: str,
    registers: Mapping[str, int],
    *,
    simulator: str = VERILATOR,
    trace: bool = False,
    memory_bytes: int = MEMORY_BYTES,
    report: Report | None = None,
) -> CoreBuild:
    """Give a simulator of a core, from the cache if it was built before.

    Parameters
    ----------
    config : CspConfig
    verilog : str
        With the module ``csp_core``.
    registers : mapping of str to int
        Byte offset of each register by its name.
    simulator : str
        ``verilator``, or ``icarus`` for small arrays: it needs no compiler, and is slow.
    trace : bool
        Whether the simulator shall be able to write a waveform, which makes it slower.
    memory_bytes : int
        Size of the memory at most. Icarus takes some ten times as much.
    report : callable, optional
        Told what is being done.

    Raises
    ------
    CspError
        A tool is missing or fails, the cache cannot be written, or a port of the core is not what
        the bench expects.
    """
    ports = wrapper.module_ports(verilog, TOP)

    def sources() -> dict[str, str]:
        folder = Path(__file__).parent
        return {
            BENCH: wrapper.bench_verilog(TOP, ports, config.cols, memory_bytes),
            CORE: verilog,
            **{name: (folder / name).read_text(encoding="utf-8") for name in (MEMORY, DRIVER)},
        }

    folder = base.assemble(
        f"core-{base.slug(config)}",
        wrapper.BENCH,
        sources,
        simulator=simulator,
        trace=trace,
        tell=report or base.silent,
    )
    return CoreBuild(
        config=config,
        simulator=simulator,
        folder=folder,
        trace=trace,
        registers=dict(registers),
        ports=wrapper.managers(ports),
        memory_bytes=memory_bytes,
    )
