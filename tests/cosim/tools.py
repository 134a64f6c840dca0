# SPDX-License-Identifier: Apache-2.0
"""What the tests of the co-simulation share."""

import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import cocotb_tools.config
import find_libpython
import pytest

from csp_hw.config import CspConfig
from sim.cosim.build import EXECUTABLE, VERILATOR, assemble, silent
from sim.cosim.core.wrapper import module_ports

#: As small as it gets, so that it is built soon.
TINY = CspConfig(rows=2, cols=4, depth=8, max_period=2, max_interleave=2, lookahead=2)

#: Icarus Verilog is the second simulator; the first one comes with the dependencies.
needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is not installed"
)

#: Module around a top that Python drives.
BENCH = "csp_bench"


class Results(NamedTuple):
    """How many of cocotb's tests there were, which did not pass, and all that was printed."""

    count: int
    failed: list[str]
    output: str


def open_verilog(text, top, rename=None):
    """Give a module around a top, whose ports are variables that Python may write or read."""
    lines = ["`timescale 1ns / 1ps", f"module {BENCH};"]
    wires = []
    for port, (direction, width) in _ports(text, top).items():
        name = (rename or {}).get(port, port)
        kind, access, init = ("reg", "rw", " = 0") if direction == "input" else ("wire", "rd", "")
        bits = f"[{width - 1}:0] " if width > 1 else ""
        lines.append(f"  {kind} {bits}{name} /* verilator public_flat_{access} */{init};")
        wires.append(f".{port}({name})")
    return "\n".join([*lines, f"  {top} top ({', '.join(wires)});", "endmodule"]) + "\n"


def _ports(text, top):
    return {name: (port.direction, port.width) for name, port in module_ports(text, top).items()}


def run_cocotb(name, text, top, tests, folder, rename=None):
    """Run the cocotb tests of a module on a top, under Verilator."""
    sources = {f"{top}.v": text, f"{BENCH}.v": open_verilog(text, top, rename)}
    built = assemble(name, BENCH, lambda: sources, simulator=VERILATOR, trace=False, tell=silent)
    results = folder / "results.xml"
    environment = {
        **os.environ,
        "COCOTB_TEST_MODULES": tests,
        "COCOTB_TOPLEVEL": BENCH,
        "TOPLEVEL_LANG": "verilog",
        "COCOTB_RESULTS_FILE": str(results),
        "COCOTB_REWRITE_ASSERTION_FILES": "",
        "COCOTB_LOG_LEVEL": "ERROR",
        "COCOTB_RANDOM_SEED": "1",
        "GPI_USERS": f"{find_libpython.find_libpython()};{cocotb_tools.config.pygpi_entry_point()}",
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [str(built / EXECUTABLE)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    found = results.read_text() if results.exists() else ""
    failed = re.findall("<(failure|error|skipped)", found)
    return Results(found.count("<testcase "), failed, output)
