# SPDX-License-Identifier: Apache-2.0
"""The core with streams as Verilog, under Verilator, on the streams of cocotbext-axi."""

from csp_hw.config import preset
from csp_hw.generate import Top, top_verilog
from sim.cosim.build import generated, silent
from tests.cosim.tools import run_cocotb

#: cocotbext-axi knows no strobes; what travels beside each beat is called user there.
RENAME = {"m_axis_results_tstrb": "m_axis_results_tuser"}


def test_network_and_errors(tmp_path):
    config, top = preset("tiny_4x4"), Top.STREAM
    text = generated(config, f"{top}.v", lambda: top_verilog(config, top), silent)
    results = run_cocotb("stream-core", text, top, "tests.cosim.stream_tests", tmp_path, RENAME)
    assert (results.count, results.failed) == (30, []), results.output[-8000:]
