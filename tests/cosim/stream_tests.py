# SPDX-License-Identifier: Apache-2.0
"""Runs inside the simulator: a network on the core with streams, each of them with pauses.

Sources and sink are those of cocotbext-axi, an outside witness. They stand for DMAs: each stream
is fed from the program's memory, by what the descriptors say.
"""

import dataclasses

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamSink,
    AxiStreamSource,
)

from csp_hw.check import CHECKS
from csp_hw.config import preset
from csp_hw.control import LEAVE_CYCLES
from csp_hw.descriptor import DESCRIPTOR_BYTES, Kind, pack, unpack
from csp_hw.register_map import REGISTERS, ErrorCode
from sim import execute
from tests.cosim.core_attacks import ABORT, BEATS, small_task

CONFIG = preset("tiny_4x4")
TASK = small_task(CONFIG)
STEPS = len(TASK.program.passes)
PLACES = {register.name: register.offset for register in REGISTERS}
TABLES = ("params", "tiles", "counts", "weights")
STREAMS = ("descriptors", *TABLES, "input", "residual")
#: Cycles in which all is over.
PATIENCE = 400_000
#: Passes that are run after an error: one without, one with a residual.
AFTER = 2


def loop(fields, name):
    """Give the byte offset of each beat of a map, in order."""
    n2, n1, beat = np.meshgrid(
        np.arange(fields[f"{name}_count2"]),
        np.arange(fields[f"{name}_count1"]),
        np.arange(fields[f"{name}_beats"]),
        indexing="ij",
    )
    steps = n2 * fields[f"{name}_pitch2"] + n1 * fields[f"{name}_pitch1"] + beat * CONFIG.cols
    return (fields[f"{name}_offset"] + steps).ravel()


def whole(data):
    """Pad to whole beats."""
    return bytes(data) + bytes(-len(data) % CONFIG.cols)


@dataclasses.dataclass
class Run:
    """Some passes of the program, as descriptors and packets that a test may spoil.

    ``spoil`` names a stream, a pass and the beats that its packet has too many, or too few.
    """

    passes: int = STEPS
    resident: bool = True
    changes: dict = dataclasses.field(default_factory=dict)
    spoil: tuple = ("", 0, 0)
    withhold: str = ""

    def __post_init__(self):
        self.memory = TASK.program.memory(TASK.inputs)
        self.fields = []
        for number in range(self.passes):
            offset = TASK.program.descriptors[number]
            fields = unpack(self.memory[offset : offset + DESCRIPTOR_BYTES].tobytes())
            if not self.resident:
                fields |= {"weights_resident": 0, "counts_resident": 0}
            self.fields.append(fields | self.changes.get(number, {}))

    def spoilt(self, name, number, packet):
        """Give a packet as it is sent."""
        stream, where, beats = self.spoil
        if (stream, where) != (name, number) or not beats:
            return packet
        more = beats * CONFIG.cols
        return packet + bytes(more) if more > 0 else packet[:more]

    def table_packets(self, name):
        """Give the packets of a table, of all passes."""
        for number, step in enumerate(TASK.program.passes[: self.passes]):
            fields = self.fields[number]
            if fields["kind"] == Kind.POOL:
                continue
            offset, size = fields[f"{name}_offset"], len(step.data[name])
            again = 1
            if name in ("counts", "weights") and not fields[f"{name}_resident"]:
                again = fields["tiles"]
            for _ in range(again):
                packet = whole(self.memory[offset : offset + size])
                yield self.spoilt(name, number, packet)

    def map_packet(self, name, number):
        """Give the packet of a map of a pass, as the memory is now."""
        fields = self.fields[number]
        if name == "residual" and not fields["residual"]:
            return None
        at = loop(fields, "input" if name == "input" else "add")
        beats = self.memory[at[:, None] + np.arange(CONFIG.cols)]
        return self.spoilt(name, number, beats.tobytes())

    def store(self, number, frame):
        """Put a packet of results where it belongs."""
        fields = self.fields[number]
        at = loop(fields, "output")
        beats = np.frombuffer(bytes(frame.tdata), np.uint8).reshape(-1, CONFIG.cols)
        assert len(beats) == len(at), f"pass {number}: {len(beats)} results, not {len(at)}"
        strobe = fields["strobe_low"] | fields["strobe_high"] << 32
        assert set(frame.tuser) == {strobe & ((1 << CONFIG.cols) - 1)}
        assert frame.tkeep is None or all(frame.tkeep)
        for lane in range(CONFIG.cols):
            if strobe >> lane & 1:
                self.memory[at + lane] = beats[:, lane]


class Bench:
    """The core, a driver of its registers, and what stands for DMAs."""

    def __init__(self, dut, seed, share):
        self.dut = dut
        self.rng = np.random.default_rng(seed)
        self.failed = False
        Clock(dut.clk, 2, "ns").start()
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.sources = {
            name: AxiStreamSource(self.bus(f"s_axis_{name}"), dut.clk, dut.rst) for name in STREAMS
        }
        self.sink = AxiStreamSink(self.bus("m_axis_results"), dut.clk, dut.rst)
        if share:
            for port in (*self.sources.values(), self.sink):
                port.set_pause_generator(self.pauses(self.rng.spawn(1)[0], share))

    def bus(self, prefix):
        return AxiStreamBus.from_prefix(self.dut, prefix)

    @staticmethod
    def pauses(rng, share):
        """Give for each cycle whether a stream pauses; some pauses are long."""
        while True:
            length = int(rng.choice([1, 1, 1, 30]))
            pause = bool(rng.random() < share)
            for _ in range(length):
                yield pause

    async def reset(self):
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)

    async def write(self, name, value):
        await self.master.write(PLACES[name], value.to_bytes(4, "little"))

    async def read(self, name):
        answer = await self.master.read(PLACES[name], 4)
        return int.from_bytes(answer.data, "little")

    async def feed(self, run):
        """Play the DMAs: tables run ahead, maps follow the results of the pass before."""
        sources = {name: port for name, port in self.sources.items() if name != run.withhold}
        if "descriptors" in sources:
            packet = b"".join(map(pack, run.fields))
            sources["descriptors"].send_nowait(run.spoilt("descriptors", 0, packet))
        for name in TABLES:
            if name in sources:
                for packet in run.table_packets(name):
                    sources[name].send_nowait(packet)
        for number in range(run.passes):
            for name in ("input", "residual"):
                packet = run.map_packet(name, number)
                if packet is not None and name in sources:
                    sources[name].send_nowait(packet)
            frame = await self.sink.recv(compact=False)
            if frame.tkeep is not None and not any(frame.tkeep[-CONFIG.cols :]):
                return  # cut off
            run.store(number, frame)

    async def begin(self, run, **options):
        """Start DMAs and core; after an error, what comes before the start is lost."""
        if self.failed:
            await self.start(run, **options)
            return cocotb.start_soon(self.feed(run))
        task = cocotb.start_soon(self.feed(run))
        await ClockCycles(self.dut.clk, 20)
        await self.start(run, **options)
        return task

    async def start(self, run, *, timeout=0x10000):
        await self.write("COUNT", run.passes)
        await self.write("TIMEOUT", timeout)
        await self.write("STATUS", execute.CLEAR)
        await self.write("CONTROL", execute.START)

    async def done(self):
        """Wait for the interrupt; give the error, if there was one."""
        for _ in range(PATIENCE // 16):
            if self.dut.irq.value == 1:
                break
            await ClockCycles(self.dut.clk, 16)
        else:
            raise AssertionError(f"no interrupt after {PATIENCE} cycles")
        status = await self.read("STATUS")
        assert status & 0b1011 in (0b1010, 0b1000), f"STATUS is {status:#x}"
        return ErrorCode(status >> 8 & 0x1F) if status & 0b100 else None

    async def good(self, run):
        """Run passes that nothing is wrong with, and look at all of the memory."""
        task = await self.begin(run)
        code = await self.done()
        assert code is None, code
        await task
        self.failed = False
        nodes = {step.node for step in TASK.program.passes[run.passes :]}
        values = {name: value for name, value in TASK.values.items() if name not in nodes}
        if nodes:  # a concatenation that is not complete
            values = {name: value for name, value in values.items() if name != "both"}
        differ = TASK.program.mismatches(run.memory, values)
        assert differ
        assert not any(differ.values()), differ
        assert self.sink.empty()
        assert all(port.idle() for port in self.sources.values())
        await self.counted(run)

    async def counted(self, run):
        """Compare the counters with what was sent."""
        steps = TASK.program.passes[: run.passes]
        moved = {name: sum(getattr(step, beats) for step in steps) for name, beats in BEATS.items()}
        tables = sum(len(packet) for name in TABLES for packet in run.table_packets(name))
        descriptors = run.passes * DESCRIPTOR_BYTES
        moved["WEIGHT_PORT_BEATS"] = (tables + descriptors) // CONFIG.cols
        moved["LAYER_COUNT"] = run.passes
        assert {name: await self.read(name) for name in moved} == moved

    async def bad(self, run, code, layer, *, detail=0, timeout=0x10000, abort_after=None):
        """Run something that ends in an error; the core gets rid of all that was sent."""
        task = await self.begin(run, timeout=timeout)
        if abort_after is not None:
            await ClockCycles(self.dut.clk, abort_after)
            await self.write("CONTROL", ABORT)
        found = await self.done()
        assert found is code, found
        self.failed = True
        task.cancel()
        told = [await self.read(name) for name in ("ERROR_LAYER", "ERROR_DETAIL", "LAYER_COUNT")]
        assert told == [told[0], detail, told[0]]
        assert layer in (None, told[0]), told
        for name, port in self.sources.items():
            await cocotb.triggers.with_timeout(port.wait(), PATIENCE, "ns")
            assert port.empty(), name
        await ClockCycles(self.dut.clk, 2)
        # A packet that was cut off has ended.
        assert not self.sink.active
        while not self.sink.empty():
            self.sink.recv_nowait(compact=False)


@cocotb.test
@cocotb.parametrize(share=[0.0, 0.3], resident=[True, False])
async def network(dut, share, resident):
    bench = Bench(dut, 1, share)
    await bench.reset()
    await bench.good(Run(resident=resident))


@cocotb.test
async def pass_after_pass(dut):
    """A start for each, all of them without a reset."""
    bench = Bench(dut, 2, 0.3)
    await bench.reset()
    for passes in (1, 2, 3, STEPS):
        await bench.good(Run(passes=passes))


@cocotb.test
async def strobes(dut):
    """A descriptor that leaves bytes out, as a part of a concatenation may: they are told."""
    bench = Bench(dut, 8, 0.2)
    await bench.reset()
    task = await bench.begin(Run(passes=1, changes={0: {"strobe_low": 0b0101}}))
    assert await bench.done() is None
    await task


@cocotb.test
@cocotb.parametrize(stream=STREAMS, beats=[-1, 1])
async def wrong_length(dut, stream, beats):
    """A packet that ends a beat too early, or too late."""
    bench = Bench(dut, 3, 0.2)
    await bench.reset()
    layer = 1 if stream == "residual" else 0
    run = Run(passes=AFTER, resident=False, spoil=(stream, layer, beats))
    code = ErrorCode.STREAM_SHORT if beats < 0 else ErrorCode.STREAM_LONG
    if stream == "descriptors":
        layer = AFTER - 1
    await bench.bad(run, code, layer)
    await bench.good(Run(passes=AFTER))


@cocotb.test
@cocotb.parametrize(stream=["descriptors", "counts", "input", "residual"])
async def nothing_comes(dut, stream):
    bench = Bench(dut, 4, 0.0)
    await bench.reset()
    layer = 1 if stream == "residual" else 0
    run = Run(passes=AFTER, withhold=stream)
    await bench.bad(run, ErrorCode.TIMEOUT, layer, timeout=3000)
    await bench.good(Run(passes=AFTER))


@cocotb.test
@cocotb.parametrize(after=[50, 700, 1500, 2800])
async def abort(dut, after):
    bench = Bench(dut, 5, 0.2)
    await bench.reset()
    await bench.bad(Run(), ErrorCode.ABORTED, None, abort_after=after)
    await bench.good(Run(passes=AFTER))


@cocotb.test
async def wrong_descriptors(dut):
    bench = Bench(dut, 6, 0.2)
    await bench.reset()
    detail = CHECKS.index("period")
    await bench.bad(
        Run(passes=2, changes={1: {"period": 0}}), ErrorCode.DESCRIPTOR, 1, detail=detail
    )
    tiles = TASK.program.passes[0].fields["tiles"]
    await bench.bad(Run(passes=2, changes={0: {"tiles": tiles + 1}}), ErrorCode.STREAM_SHORT, 0)
    # More results than the pass has, or fewer.
    beats = TASK.program.passes[0].fields["output_beats"]
    for other, code in ((beats + 1, ErrorCode.STREAM_SHORT), (beats - 1, ErrorCode.STREAM_LONG)):
        run = Run(passes=1, changes={0: {"output_beats": other}})
        await bench.bad(run, code, 0)
    # A tile without pixels.
    run = Run(passes=1)
    run.memory[run.fields[0]["tiles_offset"] + 3] = 0
    await bench.bad(run, ErrorCode.TILES, 0)
    await bench.good(Run(passes=AFTER))


@cocotb.test
async def result_that_nobody_takes(dut):
    """The error is told, but the core is busy until its beat is taken."""
    bench = Bench(dut, 7, 0.0)
    await bench.reset()
    bench.sink.pause = True
    run = Run(passes=1)
    task = await bench.begin(run, timeout=3000)
    await RisingEdge(dut.irq)
    status = await bench.read("STATUS")
    assert status & 0b1111 == 0b1101
    assert status >> 8 == ErrorCode.TIMEOUT
    task.cancel()
    bench.sink.pause = False
    cut = await bench.sink.recv(compact=False)
    assert cut.tkeep == [1] * CONFIG.cols + [0] * CONFIG.cols
    await ClockCycles(dut.clk, 4 + LEAVE_CYCLES)
    assert await bench.read("STATUS") & 1 == 0
    for port in bench.sources.values():
        await port.wait()
    bench.failed = True
    await bench.good(Run(passes=AFTER))
