# SPDX-License-Identifier: Apache-2.0
"""From a core's Verilog to something that can be run, made once for each content."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from csp_hw.config import CspConfig
from csp_hw.generate import Top, core_verilog
from csp_hw.register_map import REGISTERS
from sim.cosim import build as base
from sim.cosim.build import VERILATOR, Build, Report
from sim.cosim.core import wrapper

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
    verilog: str | None = None,
    registers: Mapping[str, int] | None = None,
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
    verilog : str, optional
        Text with a module ``csp_core`` to use in the place of what the configuration generates, …
    registers : mapping of str to int, optional
        … and the byte offset of each of its registers.
    simulator : str
        ``verilator``, or ``icarus`` for small arrays: it needs no compiler, and is slow.
    trace : bool
        Whether the simulator shall be able to write a waveform, which makes it slower.
    memory_bytes : int
        Size of the memory at most.
    report : callable, optional
        Told what is being done.

    Raises
    ------
    ConfigError
        The configuration is that of an engine only.
    CspError
        A tool is missing or fails, the cache cannot be written, or a port of the core is not what
        the bench expects.
    """
    tell = report or base.silent
    ports: dict[str, wrapper.Port] = {}

    def sources() -> dict[str, str]:
        core = verilog
        if core is None:
            core = base.generated(config, CORE, lambda: core_verilog(config), tell)
        ports.update(wrapper.module_ports(core, Top.CORE))
        folder = Path(__file__).parent
        return {
            BENCH: wrapper.bench_verilog(Top.CORE, ports, config.cols, memory_bytes),
            CORE: core,
            **{name: (folder / name).read_text(encoding="utf-8") for name in (MEMORY, DRIVER)},
        }

    folder = base.assemble(
        f"core-{base.slug(config)}",
        wrapper.BENCH,
        sources,
        simulator=simulator,
        trace=trace,
        tell=tell,
    )
    return CoreBuild(
        config=config,
        simulator=simulator,
        folder=folder,
        trace=trace,
        registers=registers or {register.name: register.offset for register in REGISTERS},
        ports=wrapper.managers(ports),
        memory_bytes=memory_bytes,
    )
