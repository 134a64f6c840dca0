# SPDX-License-Identifier: Apache-2.0
"""Runs inside the simulator: the copier on the memory of cocotbext-axi, an outside witness."""

import cocotb
import numpy as np
from amaranth.hdl import Const
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from csp_hw.axi.ports import Fault, loop_layout
from tests.cosim.axi_copier import COMMANDS, DATA_BYTES, PREFIX

#: Bytes of memory, and where the window begins in it.
MEMORY, BASE, SIZE = 1 << 20, 0x4_0000, 1 << 17
HALF = SIZE // 2  # what is read lies below, what is written above
PATIENCE = 20_000
CHANNELS = {"read_if": ("ar", "r"), "write_if": ("aw", "w", "b")}


def pauses(rng, probability):
    """Give for each cycle whether a channel pauses."""
    while True:
        yield rng.random() < probability


class Bench:
    """The copier and its memory."""

    def __init__(self, dut, seed, probability):
        self.dut = dut
        self.rng = np.random.default_rng(seed)
        Clock(dut.clk, 2, "ns").start()
        self.ram = AxiRam(AxiBus.from_prefix(dut, PREFIX), dut.clk, dut.rst, size=MEMORY)
        self.memory = self.rng.integers(0, 256, MEMORY, dtype=np.uint8)
        self.ram.write(0, self.memory.tobytes())
        for side, channels in CHANNELS.items():
            for channel in channels:
                port = getattr(getattr(self.ram, side), f"{channel}_channel")
                port.set_pause_generator(pauses(self.rng.spawn(1)[0], probability))

    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    async def reset(self):
        dut = self.dut
        for name in COMMANDS:
            dut[f"{name}__valid"].value = 0
        dut.base.value, dut.size.value, dut.strobe.value = BASE, SIZE, (1 << DATA_BYTES) - 1
        dut.low.value = HALF
        dut.stop.value = 0
        dut.rst.value = 1
        for _ in range(4):
            await FallingEdge(dut.clk)
        dut.rst.value = 0

    async def command(self, name, **fields):
        """Send a command."""
        layout = loop_layout()
        value = Const(layout.const(fields).as_value().value, layout.size).value
        self.dut[f"{name}__payload"].value = value
        self.dut[f"{name}__valid"].value = 1
        taken = False
        while not taken:
            await RisingEdge(self.dut.clk)
            taken = self.dut[f"{name}__ready"].value == 1
        await FallingEdge(self.dut.clk)
        self.dut[f"{name}__valid"].value = 0

    def loops(self, beats, half):
        """Choose loops of so many beats within a half of the window."""
        count1 = self.pick([n for n in (1, 2, 3, 4, 6, 8) if beats % n == 0])
        rest = beats // count1
        count2 = self.pick([n for n in (1, 2, 4, 5) if rest % n == 0])
        run = rest // count2
        pitch1 = DATA_BYTES * (run + self.pick((0, 0, 1, 5)))
        pitch2 = pitch1 * count1 + DATA_BYTES * self.pick((0, 0, 3))
        room = (HALF - pitch2 * count2) // DATA_BYTES
        offset = half * HALF + DATA_BYTES * self.pick(range(room))
        counts = {"count1": count1, "pitch1": pitch1, "count2": count2, "pitch2": pitch2}
        return {"offset": offset, "beats": run, **counts}

    @staticmethod
    def places(command):
        """Give the bytes of memory that a command goes over, in their order."""
        n2, n1, n = np.meshgrid(
            np.arange(command["count2"]),
            np.arange(command["count1"]),
            np.arange(command["beats"] * DATA_BYTES),
            indexing="ij",
        )
        at = command["offset"] + n2 * command["pitch2"] + n1 * command["pitch1"] + n
        return BASE + at.ravel()

    async def settled(self, port):
        """Wait until an output is 1."""
        for _ in range(PATIENCE):
            await FallingEdge(self.dut.clk)
            if port.value == 1:
                return
        raise AssertionError(f"{port._name} stays 0")

    async def copy(self, count):
        """Copy with several commands, all of which wait from the beginning."""
        sizes = [self.pick((1, 4, 12, 40, 240, 720)) for _ in range(count)]
        commands = {
            name: [self.loops(beats, name == "target") for beats in sizes] for name in COMMANDS
        }

        async def feed(name):
            for each in commands[name]:
                await self.command(name, **each)

        tasks = [cocotb.start_soon(feed(name)) for name in COMMANDS]
        for task in tasks:
            await task
        await self.settled(self.dut.idle)
        assert self.dut.quiet.value == 1
        assert self.dut.read_error.value == self.dut.write_error.value == Fault.NONE
        for left, right, target in zip(*commands.values(), strict=True):
            result = self.memory[self.places(left)] ^ self.memory[self.places(right)]
            self.memory[self.places(target)] = result
        found = np.frombuffer(self.ram.read(0, MEMORY), np.uint8)
        assert np.array_equal(found, self.memory), np.flatnonzero(found != self.memory)[:10]


@cocotb.test
@cocotb.parametrize(probability=[0.0, 0.3, 0.8], seed=[1, 2])
async def copies(dut, probability, seed):
    bench = Bench(dut, seed, probability)
    await bench.reset()
    await bench.copy(12)


@cocotb.test
@cocotb.parametrize(after=[9, 20, 33, 60, 101])
async def stops_and_starts_again(dut, after):
    bench = Bench(dut, after, 0.4)
    await bench.reset()
    for name in COMMANDS:
        await bench.command(name, **bench.loops(720, name == "target"))
    for _ in range(after):
        await FallingEdge(dut.clk)
    dut.stop.value = 1
    await bench.settled(dut.quiet)
    # What was written up to here is right, wherever it ended.
    found = np.frombuffer(bench.ram.read(0, MEMORY), np.uint8)
    outside = np.ones(MEMORY, bool)
    outside[BASE + HALF : BASE + SIZE] = False
    assert np.array_equal(found[outside], bench.memory[outside])
    bench.memory = found.copy()
    await bench.reset()
    await bench.copy(4)
