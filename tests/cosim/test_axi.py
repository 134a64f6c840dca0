# SPDX-License-Identifier: Apache-2.0
"""The memory ports as Verilog, under Verilator, on the memory of cocotbext-axi."""

import os
import re
import subprocess

import pytest

from sim.cosim.core.wrapper import module_ports
from sim.cosim.toolchain import find_verilator
from tests.cosim import axi_copier
from tests.cosim.tools import run_cocotb

#: Verilator's -Wall on how Amaranth writes Verilog: a name for each part of a structure, initial
#: values of registers, sums of different widths, `!` of words, the name of the file.
AMARANTH = {"UNUSEDSIGNAL", "PROCASSINIT", "WIDTHEXPAND", "WIDTHTRUNC", "DECLFILENAME"}


@pytest.fixture(scope="module")
def verilog():
    return axi_copier.copier_verilog()


def test_ports_have_the_names_of_axi(verilog):
    ports = module_ports(verilog, axi_copier.TOP)
    widths = {name: port.width for name, port in ports.items() if name.startswith("m_axi_")}
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
    results = run_cocotb("axi-copier", verilog, axi_copier.TOP, "tests.cosim.axi_tests", tmp_path)
    assert (results.count, results.failed) == (11, []), results.output
