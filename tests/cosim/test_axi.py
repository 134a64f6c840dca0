# SPDX-License-Identifier: Apache-2.0
"""The memory ports as Verilog, under Verilator, on the memory of cocotbext-axi."""

import os
import re
import subprocess
import sys

import cocotb_tools.config
import find_libpython
import pytest

from sim.cosim import cache
from sim.cosim.build import BENCH, ENGINE, EXECUTABLE, _Verilated
from sim.cosim.toolchain import find_verilator
from tests.cosim import axi_copier

#: Verilator's -Wall on how Amaranth writes Verilog: a name for each part of a structure, initial
#: values of registers, sums of different widths, `!` of words, the name of the file.
AMARANTH = {"UNUSEDSIGNAL", "PROCASSINIT", "WIDTHEXPAND", "WIDTHTRUNC", "DECLFILENAME"}


@pytest.fixture(scope="module")
def verilog():
    return axi_copier.copier_verilog()


def test_ports_have_the_names_of_axi(verilog):
    ports = axi_copier.ports_of(verilog)
    widths = {name: width for name, (_, width) in ports.items() if name.startswith("m_axi_")}
    assert widths == {
        **{f"m_axi_{channel}addr": 64 for channel in ("ar", "aw")},
        **{f"m_axi_{channel}len": 8 for channel in ("ar", "aw")},
        **{f"m_axi_{channel}size": 3 for channel in ("ar", "aw")},
        **{f"m_axi_{channel}burst": 2 for channel in ("ar", "aw")},
        **{f"m_axi_{channel}cache": 4 for channel in ("ar", "aw")},
        **{f"m_axi_{channel}prot": 3 for channel in ("ar", "aw")},
        **{f"m_axi_{channel}id": 1 for channel in ("ar", "aw", "r", "b")},
        **{f"m_axi_{channel}data": 64 for channel in "rw"},
        **{f"m_axi_{channel}resp": 2 for channel in "rb"},
        **{f"m_axi_{channel}last": 1 for channel in "rw"},
        "m_axi_wstrb": 8,
        **{
            f"m_axi_{channel}{wire}": 1
            for channel in ("ar", "r", "aw", "w", "b")
            for wire in ("valid", "ready")
        },
    }


def test_warnings(verilog, tmp_path):
    (tmp_path / "top.v").write_text(verilog)
    tool = find_verilator()
    command = [str(tool.binary), "--lint-only", "-Wall", "--top-module", axi_copier.TOP, "top.v"]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "VERILATOR_ROOT": str(tool.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    kinds = set(re.findall(r"^%Warning-(\w+):", result.stderr, re.MULTILINE))
    assert kinds == AMARANTH
    unused = re.findall(
        r"^%Warning-UNUSEDSIGNAL: top\.v.*'(m_axi_\w+)'$", result.stderr, re.MULTILINE
    )
    assert sorted(unused) == ["m_axi_bid", "m_axi_rid"]  # both are constant by contract


def test_copies(verilog, tmp_path):
    tools = _Verilated(trace=False)
    bench = axi_copier.bench_verilog(verilog)

    def make(folder):
        (folder / ENGINE).write_text(verilog)
        (folder / BENCH).write_text(bench)
        tools.make(folder, lambda *_: None)

    folder = cache.obtain(f"axi-copier-{cache.digest([tools.key, verilog, bench])}", make)
    results = tmp_path / "results.xml"
    environment = {
        **os.environ,
        "COCOTB_TEST_MODULES": "tests.cosim.axi_tests",
        "COCOTB_TOPLEVEL": axi_copier.BENCH,
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
        [str(folder / EXECUTABLE)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert results.exists(), done.stdout + done.stderr
    text = results.read_text()
    assert text.count("<testcase ") == 11
    assert not re.findall("<(failure|error|skipped)", text), done.stdout + done.stderr
