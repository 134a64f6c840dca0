# SPDX-License-Identifier: Apache-2.0
"""The bench around a core: registers, memory images, jobs in a row, and cores that break rules."""

import dataclasses
import re

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_hw.config import preset
from sim.cosim.build import ICARUS
from sim.cosim.core import protocol, wrapper
from sim.cosim.core.build import BENCH, DRIVER, MEMORY, build_core
from sim.cosim.core.jobs import BASE, CoreJob, Inject, Response, Timing, Write, Writer
from sim.cosim.core.process import run_core_jobs
from sim.cosim.core.wrapper import Port, bench_verilog, managers, module_ports
from tests.cosim import standin
from tests.cosim.standin import PORTS, REGISTERS, standin_verilog
from tests.cosim.tools import needs_icarus

CONFIG = preset("tiny_4x4")
BEAT = CONFIG.cols
SIZE, HALF = 1 << 15, 1 << 14
IMAGE = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)


@pytest.fixture(scope="module")
def verilog():
    return standin_verilog(BEAT)


@pytest.fixture(scope="module")
def verilator(verilog):
    return build_core(CONFIG, verilog=verilog, registers=REGISTERS, memory_bytes=SIZE)


def job(**options):
    """Give a job that adds 1 to 64 words of the memory."""
    base = options.get("base", BASE)
    writes = [
        ("SOURCE_LOW", base & 0xFFFFFFFF),
        ("SOURCE_HIGH", base >> 32),
        ("TARGET_LOW", base + HALF & 0xFFFFFFFF),
        ("TARGET_HIGH", base + HALF >> 32),
        ("BURSTS", 8),
        ("LENGTH", 7),
        ("PORT", 1),
        ("CONTROL", 1),
    ]
    return CoreJob(**{"image": IMAGE, "timeout": 50_000, "writes": writes} | options)


def quiet(**options):
    """Give a job that does nothing."""
    given = {"image": IMAGE, "wait": 1, "reads": (), "regions": ()}
    return CoreJob(**given | options)


def error_of(build, *jobs):
    with pytest.raises(CspError) as caught:
        list(run_core_jobs(build, jobs))
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("co-simulation: ")


# --- Registers ------------------------------------------------------------------------------------


def test_registers(verilator):
    writes = [("LENGTH", 0x12345678), Write("LENGTH", 0xAABBCCDD, 0b0101), (REGISTERS["PACE"], 5)]
    for stalls in ({}, {"registers": 0.8}):
        first = quiet(writes=writes, reads=["LENGTH", "PACE", REGISTERS["LENGTH"]], stalls=stalls)
        one, other = run_core_jobs(verilator, [first, quiet(reads=None)])
        assert one.registers == {
            "LENGTH": 0x12BB56DD,
            "PACE": 5,
            REGISTERS["LENGTH"]: 0x12BB56DD,
        }
        assert one.value("PACE") == 5
        # Reset clears them; all are read unless some are named.
        assert other.registers == dict.fromkeys(REGISTERS, 0)


def test_registers_of_two_parts(verilator):
    writes = [("SOURCE_LOW", 0x89ABCDEF), ("SOURCE_HIGH", 0x01234567)]
    (outcome,) = run_core_jobs(verilator, [quiet(writes=writes, reads=None)])
    assert outcome.value("SOURCE") == 0x0123456789ABCDEF


def test_a_register_that_refuses(verilator):
    bad = quiet(writes=[("STATUS", 0), (0x7FC, 1)], reads=[0x7F8, "STATUS"])
    (outcome,) = run_core_jobs(verilator, [dataclasses.replace(bad, strict=False)])
    assert outcome.responses == {0x7FC: Response.SLVERR, 0x7F8: Response.SLVERR}
    assert error_of(verilator, bad) == "register 0x7fc answered SLVERR"
    assert error_of(verilator, quiet(writes=[("AR_FIRST", 0)])) == (
        "register AR_FIRST answered SLVERR"
    )


def test_unknown_register(verilator):
    assert error_of(verilator, quiet(reads=["LENGHT"])) == "the core has no register LENGHT"


# --- Memory ---------------------------------------------------------------------------------------


def test_regions(verilator):
    regions = [(0, 4), (SIZE - 8, SIZE), (12, 12), (400, 4000)]
    (outcome,) = run_core_jobs(verilator, [quiet(regions=regions)])
    for (low, high), data in zip(regions, outcome.memory, strict=True):
        np.testing.assert_array_equal(data, IMAGE[low:high])


def test_images_and_patches(verilator):
    """An image replaces the memory and its size; without one it stays."""
    small = np.arange(64, dtype=np.uint8)
    patches = {8: bytes(range(100, 108)), 60: b"abcd"}
    patched = small.copy()
    patched[8:16] = range(100, 108)
    patched[60:] = list(b"abcd")
    jobs = [
        quiet(regions=None),
        quiet(regions=None, image=small),
        quiet(regions=None, image=None, patches=patches),
        quiet(regions=None, image=small, patches=patches),
        quiet(regions=None, image=None),
    ]
    wanted = [IMAGE, small, patched, patched, patched]
    for outcome, image in zip(run_core_jobs(verilator, jobs), wanted, strict=True):
        np.testing.assert_array_equal(outcome.memory[0], image)


def test_what_a_job_writes_the_next_one_reads(verilator):
    """Three times, each with a reset and without."""
    swap = dict(job().writes)
    swap |= {"SOURCE_LOW": swap["TARGET_LOW"], "TARGET_LOW": swap["SOURCE_LOW"]}
    del swap["CONTROL"]
    start = [("STATUS", 0), ("CONTROL", 1)]
    jobs = [
        job(),
        job(image=None, writes=[*swap.items(), *start]),
        job(image=None, reset=False, writes=start),
        job(image=None, reset=False, writes=start, regions=[(0, 256)]),
    ]
    *_, last = run_core_jobs(verilator, jobs)
    expected = IMAGE[:256].view("<u4") + np.uint32(2)
    np.testing.assert_array_equal(last.memory[0].view("<u4"), expected)
    # Counted since reset.
    assert last.traffic["act"].read_beats == 3 * 64
    assert last.traffic["res"].write_bursts == 3 * 8


@needs_icarus
@pytest.mark.parametrize("beat", [8, 32])
def test_wide_beats(beat):
    """Every byte comes to its place, whatever the width; Icarus is built in no time."""
    config = dataclasses.replace(CONFIG, cols=beat)
    simulator = build_core(
        config,
        verilog=standin_verilog(beat),
        registers=REGISTERS,
        simulator=ICARUS,
        memory_bytes=SIZE,
    )
    (outcome,) = run_core_jobs(simulator, [job(count_reads=True)])
    count = 64 * beat
    words = IMAGE[:count].reshape(-1, beat)
    wanted = [int.from_bytes(word.tobytes(), "little") + 1 for word in words]
    got = outcome.memory[0][HALF : HALF + count].reshape(-1, beat)
    assert [int.from_bytes(word.tobytes(), "little") for word in got] == wanted
    np.testing.assert_array_equal(outcome.memory[0][:HALF], IMAGE[:HALF])
    assert outcome.reads.tolist() == [1] * 64 + [0] * (SIZE // beat - 64)


# --- Waiting --------------------------------------------------------------------------------------


def test_cycles_are_from_the_last_write_to_the_interrupt(verilator):
    plain, late = run_core_jobs(verilator, [job(), job(timing=Timing(write_latency=1000))])
    registers = plain.registers
    # The write is taken, the DMA starts a cycle later and asks in the one after that.
    assert plain.cycles == registers["B_LAST"] - registers["AR_FIRST"] + 4
    assert late.cycles == plain.cycles + 980
    # The last that moves is the answer, whenever it comes; two registers follow.
    assert late.quiet == plain.quiet == 2
    assert late.finished - plain.finished == 980


def test_waiting_for_cycles(verilator):
    """Whatever happens; the DMA is done long before."""
    short, long = run_core_jobs(verilator, [job(wait=20), job(wait=5000)])
    assert not short.irq
    assert short.registers["STATUS"] == 0b001
    assert long.irq
    assert long.registers["STATUS"] == 0b010
    assert 0 < long.cycles < 1000
    assert 5000 < long.cycle < 5300


def test_no_interrupt(verilator):
    message = error_of(verilator, job(writes=[], timeout=3000))
    assert re.fullmatch(
        r"no interrupt after 3000 cycles \(cycle 300\d\), nothing moved for 300\d; waiting: "
        r"nothing; wgt read 0 beats and wrote 0; act read 0 beats and wrote 0; res read 0 beats "
        r"and wrote 0",
        message,
    )


def test_an_interrupt_that_is_given_up(verilator):
    none, some = run_core_jobs(
        verilator, [job(writes=[], timeout=3000, give_up=True), job(give_up=True)]
    )
    assert not none.irq
    assert none.cycle >= 3000
    assert none.cycles == none.quiet == none.finished == 0
    assert some.irq


def test_progress(verilator):
    seen = []
    stuck = [*job().writes[:-1], ("MODE", standin.STUCK), ("CONTROL", 1)]
    jobs = [job(writes=stuck, wait=200_000), job(writes=stuck, wait=200_000, expected=400_000)]
    list(run_core_jobs(verilator, jobs, progress=seen.append))
    assert seen
    assert all(0 <= told.share <= 1 for told in seen)
    assert all(told.share <= 0.5 for told in seen if told.job == 1)
    cycles = [told.cycle for told in seen]
    assert cycles == sorted(cycles)


@needs_icarus
@pytest.mark.parametrize(("name", "start"), [("w.vcd", b"$date"), ("w.fst", b"\x00")])
def test_waveform_of_icarus(tmp_path, verilog, name, start):
    simulator = build_core(
        CONFIG, verilog=verilog, registers=REGISTERS, simulator=ICARUS, memory_bytes=SIZE
    )
    list(run_core_jobs(simulator, [job()], wave=tmp_path / name))
    data = (tmp_path / name).read_bytes()
    assert data.startswith(start)
    assert len(data) > 10_000


@pytest.mark.soak
def test_waveform_of_verilator(tmp_path, verilog):
    simulator = build_core(
        CONFIG, verilog=verilog, registers=REGISTERS, memory_bytes=SIZE, trace=True
    )
    (outcome,) = run_core_jobs(simulator, [job()], wave=tmp_path / "w.vcd")
    text = (tmp_path / "w.vcd").read_text()
    assert "$scope module core $end" in text
    assert "$scope module memory $end" in text
    assert text.count("\n#") > 2 * outcome.cycles


@pytest.mark.soak
def test_64_mebibytes(verilog):
    """Loaded and dumped in seconds."""
    simulator = build_core(CONFIG, verilog=verilog, registers=REGISTERS)
    image = np.random.default_rng(1).integers(0, 256, simulator.memory_bytes, dtype=np.uint8)
    (outcome,) = run_core_jobs(simulator, [job(image=image, regions=None, count_reads=True)])
    image[HALF : HALF + 256] = (image[:256].view("<u4") + np.uint32(1)).view(np.uint8)
    np.testing.assert_array_equal(outcome.memory[0], image)
    assert outcome.reads.sum() == 64


# --- Jobs that cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None}, "the first job of a process must have an image"),
        ({"image": IMAGE.astype(np.int8)}, "what is loaded must be uint8 [n], n at least 1"),
        ({"image": IMAGE[:0]}, "what is loaded must be uint8 [n], n at least 1"),
        ({"image": IMAGE[:-1]}, "bytes 0 … 32767 are no whole beats of 4"),
        ({"image": np.tile(IMAGE, 2)}, "65536 bytes at 0 do not fit into 32768"),
        ({"patches": {SIZE: bytes(4)}}, "4 bytes at 32768 do not fit into 32768"),
        ({"patches": {3: bytes(4)}}, "bytes 3 … 7 are no whole beats of 4"),
        ({"reset": False}, "the memory can be written during reset only"),
        ({"regions": [(8, 4)]}, "bytes 8 … 4 are no whole beats of 4"),
        ({"regions": [(0, SIZE + 4)]}, "bytes 0 … 32772 are outside of the memory of 32768"),
        ({"stalls": {"x": 0.1}}, "there is no channel x"),
        ({"stalls": {"r": 1.0}}, "the stalls of r must be 0 … 255/256, not 1.0"),
        ({"timing": Timing(read_latency=0)}, "read_latency must be 1 … 65535, not 0"),
        ({"timing": Timing(write_rate=5)}, "write_rate must be 1 … 4, not 5"),
        ({"timing": Timing(outstanding=17)}, "outstanding must be 1 … 16, not 17"),
        ({"timing": {"act": Timing()}}, "there is no timing of port wgt"),
        ({"writes": [("NONE", 1)]}, "the core has no register NONE"),
        ({"writes": [("PACE", 1 << 32)]}, "value of PACE must be 0 … 4294967295, not 4294967296"),
        ({"guard": (8, 4)}, "guard must be 0 ≤ low ≤ high, not 8 … 4"),
        ({"inject": Inject(low=8, high=4)}, "inject must be 0 ≤ low ≤ high, not 8 … 4"),
        ({"base": -1}, "base must be 0 … 18446744073709551615, not -1"),
        ({"wait": -1}, "wait must be 0 … 4294967295, not -1"),
        ({"timeout": 0}, "timeout must be 1 … 4294967295, not 0"),
    ],
)
def test_jobs_that_cannot_be(verilator, tmp_path, options, message):
    with pytest.raises(CspError) as caught:
        Writer(verilator).write(tmp_path / "1.job", quiet(**options))
    assert str(caught.value) == message


def test_timing_of_each_port(verilator):
    slow = {name: Timing(read_latency=20 if name == "act" else 500) for name in PORTS}
    plain, outcome = run_core_jobs(verilator, [job(), job(timing=slow)])
    assert outcome.cycles == plain.cycles
    slow = {name: Timing(read_latency=500 if name == "act" else 20) for name in PORTS}
    (outcome,) = run_core_jobs(verilator, [job(timing=slow)])
    assert outcome.cycles == plain.cycles + 480


# --- Cores that break rules -----------------------------------------------------------------------

#: Behaviours of the core below; writing the register 0 chooses one.
(
    LOUD_IN_RESET,
    UNKNOWN_ADDRESS,
    UNKNOWN_VALID,
    UNKNOWN_DATA,
    UNKNOWN_STROBE,
    ANSWER_WITHDRAWN,
    ANSWER_CHANGED,
    ANSWER_UNASKED,
    ANSWER_UNKNOWN,
    ANSWER_IN_RESET,
    ANSWER_MISSING,
    ANSWER_TOO_EARLY,
) = range(1, 13)

FAKE = """
module csp_core(
    input clk, input rst, output irq,
    input [11:0] s_axil_awaddr, input s_axil_awvalid, output s_axil_awready,
    input [31:0] s_axil_wdata, input [3:0] s_axil_wstrb, input s_axil_wvalid,
    output s_axil_wready, output [1:0] s_axil_bresp, output s_axil_bvalid, input s_axil_bready,
    input [11:0] s_axil_araddr, input s_axil_arvalid, output s_axil_arready,
    output [31:0] s_axil_rdata, output [1:0] s_axil_rresp, output s_axil_rvalid,
    input s_axil_rready,
    output [63:0] m_axi_res_araddr, output m_axi_res_arvalid, input m_axi_res_arready,
    input [31:0] m_axi_res_rdata, input m_axi_res_rvalid, output m_axi_res_rready,
    output [63:0] m_axi_res_awaddr, output m_axi_res_awvalid, input m_axi_res_awready,
    output reg [31:0] m_axi_res_wdata, output [3:0] m_axi_res_wstrb, output m_axi_res_wvalid,
    input m_axi_res_wready, input m_axi_res_bvalid, output m_axi_res_bready
);
  reg [31:0] mode = 0;  // survives reset
  reg [31:0] age = 0;
  reg written = 0, asked = 0;
  wire take = s_axil_awvalid & s_axil_wvalid & ~written & mode != 11;
  wire ask = s_axil_arvalid & ~asked;
  assign irq = 0;
  assign s_axil_awready = take;
  assign s_axil_wready = take;
  assign s_axil_bvalid = written | (mode == 10 & rst) | (mode == 12 & s_axil_awvalid);
  assign s_axil_bresp = 0;
  assign s_axil_arready = ask;
  assign s_axil_rvalid = asked & ~(mode == 6 & age[0]) | (mode == 8 & age == 20);
  assign s_axil_rdata = mode == 7 ? age : mode == 9 ? 32'hx : 7;
  assign s_axil_rresp = 0;
  wire writes = mode == 4 | mode == 5;
  wire go = ~rst & age > 20;
  assign m_axi_res_araddr = mode == 2 ? 64'hx : 64'h180000000;
  assign m_axi_res_arvalid = mode == 1 ? rst : mode == 3 & go ? 1'bx : mode == 2 & go;
  assign m_axi_res_rready = 1;
  assign m_axi_res_awaddr = 64'h180000000;
  assign m_axi_res_awvalid = writes & go;
  assign m_axi_res_wstrb = mode == 5 ? 4'b1x00 : 4'b1111;
  assign m_axi_res_wvalid = writes & go;
  assign m_axi_res_bready = 1;
  always @(posedge clk) begin
    age <= rst ? 0 : age + 1;
    m_axi_res_wdata <= mode == 4 ? 32'hxx : 0;
    written <= ~rst & (take | written & ~s_axil_bready);
    asked <= ~rst & (ask | asked & ~(s_axil_rready & s_axil_rvalid));
    if (take) mode <= s_axil_wdata;
  end
endmodule
"""


@needs_icarus
def test_rules_that_need_unknown_bits_or_resets():
    fake = build_core(
        CONFIG, verilog=FAKE, registers={"MODE": 0}, simulator=ICARUS, memory_bytes=SIZE
    )
    assert fake.ports == ("res",)
    expected = {
        LOUD_IN_RESET: ("res", protocol.RESET),
        UNKNOWN_ADDRESS: ("res", protocol.UNKNOWN),
        UNKNOWN_VALID: ("res", protocol.UNKNOWN),
        UNKNOWN_DATA: ("res", protocol.UNKNOWN),
        UNKNOWN_STROBE: ("res", protocol.UNKNOWN),
        ANSWER_WITHDRAWN: ("registers", protocol.ANSWER_HELD),
        ANSWER_CHANGED: ("registers", protocol.ANSWER_HELD),
        ANSWER_UNASKED: ("registers", protocol.UNASKED),
        ANSWER_TOO_EARLY: ("registers", protocol.UNASKED),
        ANSWER_UNKNOWN: ("registers", protocol.ANSWER_UNKNOWN),
        ANSWER_IN_RESET: ("registers", protocol.ANSWER_RESET),
    }
    stalls = {"registers": 0.7}
    jobs = [
        asked
        for mode in expected
        for asked in (
            quiet(writes=[("MODE", mode)], strict=False, stalls=stalls),
            quiet(
                writes=[("MODE", mode)],
                wait=40,
                reads=["MODE"] * 5,
                strict=False,
                stalls=stalls,
            ),
            quiet(writes=[("MODE", 0)], strict=False),
            quiet(wait=40, reads=["MODE"], stalls=stalls),
        )
    ]
    outcomes = run_core_jobs(fake, jobs)
    for wanted in expected.values():
        next(outcomes)
        found = {(fault.port, rule) for fault in next(outcomes).faults for rule in fault.rules}
        assert wanted in found
        assert {port for port, _ in found} == {wanted[0]}
        next(outcomes)
        assert not next(outcomes).faults
    outcomes.close()
    missing = quiet(writes=[("MODE", ANSWER_MISSING), ("MODE", 0)])
    assert error_of(fake, missing) == "register 0x000 does not answer"


# --- The Verilog around it ------------------------------------------------------------------------


def test_ports_of_a_module():
    text = """
module other(clk);
  input clk;
endmodule
module csp_core(clk, \
 a, b , c);
  input clk;
  wire clk;
  output [31:0] a;
  reg [31:0] a = 32'd0;
  output b;
  input [0:0] c;
  input not_a_port;
endmodule
"""
    ports = {
        "clk": Port("input", 1),
        "a": Port("output", 32),
        "b": Port("output", 1),
        "c": Port("input", 1),
    }
    assert module_ports(text, "csp_core") == ports
    short = (
        "module csp_core(input wire clk, output reg [31:0] a, output b, input [0:0] c);\nendmodule"
    )
    assert module_ports(short, "csp_core") == ports
    with pytest.raises(CspError, match="the Verilog has no module csp_cor with a list of ports"):
        module_ports(text, "csp_cor")
    with pytest.raises(CspError, match="csp_core: port d has no direction that can be read"):
        module_ports(text.replace("c);", "c, d);"), "csp_core")


def test_managers(verilog):
    ports = module_ports(verilog, "csp_core")
    assert managers(ports) == PORTS


@pytest.mark.parametrize(
    ("name", "port", "message"),
    [
        ("irq", None, "csp_core: irq is missing, not output [1]"),
        ("m_axi_act_araddr", None, "csp_core has m_axi_act_arvalid but no m_axi_act_araddr"),
        ("m_axi_res_wdata", None, "csp_core has m_axi_res_wvalid but no m_axi_res_wdata"),
        ("m_axi_res_bready", None, "csp_core has m_axi_res_bvalid but no m_axi_res_bready"),
        (
            "m_axi_act_araddr",
            Port("output", 32),
            "csp_core: m_axi_act_araddr is output [32], not output [64]",
        ),
        (
            "m_axi_wgt_rdata",
            Port("input", 64),
            "csp_core: m_axi_wgt_rdata is input [64], not input [32]",
        ),
        ("s_axil_rdata", None, "csp_core: s_axil_rdata is missing, not output [32]"),
        ("strange", Port("input", 1), "csp_core: nothing is known of the input strange"),
        (
            "m_axi_act_aruser",
            Port("output", 20),
            "csp_core: m_axi_act_arcache, m_axi_act_aruser have more than 16 bits",
        ),
    ],
)
def test_ports_that_do_not_fit(verilog, name, port, message):
    ports = module_ports(verilog, "csp_core")
    ports.pop(name, None)
    if port:
        ports[name] = port
    with pytest.raises(CspError) as caught:
        bench_verilog("csp_core", ports, BEAT, SIZE)
    assert str(caught.value) == message


def test_what_may_be_missing_or_more(verilog):
    ports = module_ports(verilog, "csp_core")
    for name in ("len", "size", "burst", "cache"):
        del ports[f"m_axi_act_ar{name}"]
    for name in ("resp", "last", "id"):
        del ports[f"m_axi_act_r{name}"]
    ports["debug"] = Port("output", 7)
    ports["m_axi_res_buser"] = Port("input", 3)
    text = bench_verilog("csp_core", ports, BEAT, SIZE)
    assert ".m_axi_res_buser(3'd0)" in text
    assert "debug" not in text
    assert "assign arsize[3 +: 3] = 3'h2;" in text


def test_no_manager_or_a_crooked_memory(verilog):
    ports = module_ports(verilog, "csp_core")
    few = {name: port for name, port in ports.items() if not name.startswith("m_axi")}
    with pytest.raises(CspError, match="csp_core has no AXI4 manager m_axi_…"):
        bench_verilog("csp_core", few, BEAT, SIZE)
    with pytest.raises(CspError, match="memory_bytes 6 is no multiple of 4"):
        bench_verilog("csp_core", ports, BEAT, 6)


def test_rules_have_the_numbers_of_the_verilog(verilator):
    """The same rules, in the same order."""
    for file, rules in ((MEMORY, protocol.RULES), (DRIVER, protocol.ANSWER_RULES)):
        text = (verilator.folder / file).read_text()
        block = text[text.index("// Rules; sim/cosim/core/protocol.py") :].split("\n\n")[0]
        found = re.findall(r"localparam (\w+) = (\d+);", block)
        assert [int(number) for _, number in found] == list(range(len(rules)))
        prefix = "" if file == MEMORY else "ANSWER_"
        for (name, _), rule in zip(found, rules, strict=True):
            known = getattr(protocol, prefix + name, None) or getattr(protocol, name)
            assert known == rule
    assert (verilator.folder / BENCH).is_file()
    assert wrapper.BENCH in (verilator.folder / BENCH).read_text()
