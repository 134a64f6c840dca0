# SPDX-License-Identifier: Apache-2.0
"""The map memory behind the managers that use it: data, order, banks, speed, ranges, stopping."""

from typing import NamedTuple

import pytest
from amaranth import Elaboratable, Module
from amaranth.lib import wiring
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_hw.axi.bursts import BurstPlanner
from csp_hw.axi.ports import LOCAL_OFFSET, Fault
from csp_hw.axi.reader import ReadManager
from csp_hw.axi.writer import WriteManager
from csp_hw.config import preset
from csp_hw.map_memory import BANKS, READ_LATENCY, WRITE_LATENCY, MapMemory
from tests.csp_hw.axi_memory import ReadMemory, WriteMemory, in_a_row, run_of, word
from tests.csp_hw.bench import Sink, Source, between, chance, pick, rng_of, simulate

TINY = preset("tiny_4x4")
BASE = 0x12_3456_7000
SIZE = 1 << 20
DEPTH = 64


class Ports(Elaboratable):
    """The managers of maps, residuals and results, and the memory between them."""

    def __init__(self, config):
        beat, local = config.cols, config.map_bytes
        self.inputs = ReadManager(beat, [DEPTH], local_bytes=local)
        self.residual = ReadManager(beat, [DEPTH], local_bytes=local)
        self.results = WriteManager(beat, DEPTH, local_bytes=local)
        self.kept = MapMemory(config)
        self.managers = (self.inputs, self.residual, self.results)

    def elaborate(self, _platform):
        m = Module()
        for name in ("inputs", "residual", "results", "kept"):
            m.submodules[name] = getattr(self, name)
        for name in ("inputs", "residual", "results"):
            wiring.connect(m, getattr(self, name).local, getattr(self.kept, name))
        return m


def random_beats(rng, runs, config):
    count = sum(run["beats"] for run in runs)
    return [int.from_bytes(rng.bytes(config.cols), "little") for _ in range(count)]


class Phase(NamedTuple):
    """What moves between two times at which all is at rest: runs, and beats that are written."""

    written: list
    beats: list
    reads: dict


class Rig:
    """Phases one after the other; what is read outside is what :func:`word` gives."""

    def __init__(self, config, *, gaps=(0.0, 0.0), latency=3, seed=0):
        self.config, self.gaps, self.seed = config, gaps, seed
        self.dut = Ports(config)
        self.bytes = {}  # that were written, by their offset
        self.strobe = (1 << config.cols) - 1
        self.outside = {
            name: ReadMemory(getattr(self.dut, name).axi, config.cols, latency=latency, seed=seed)
            for name in ("inputs", "residual")
        }
        self.memory = WriteMemory(self.dut.results.axi, config.cols, latency=latency, seed=seed)
        self.phases, self.expected, self.sinks = [], [], []
        self.answers = {"inputs": [], "residual": []}  # cycles of beats from the chip
        self.asks = {"inputs": [], "residual": [], "results": []}
        self.stored, self.done = [], []
        self.arrived = 0

    def add(self, written, beats, inputs=(), residual=()):
        """Take a phase, and note what it reads and writes."""
        cols = self.config.cols
        phase = Phase(written, beats, {"inputs": list(inputs), "residual": list(residual)})
        self.phases.append(phase)
        self.expected.append(
            {
                name: [
                    self.beat(run["offset"] + n * cols) for run in runs for n in range(run["beats"])
                ]
                for name, runs in phase.reads.items()
            }
        )
        left = iter(beats)
        for run in written:
            for n in range(run["beats"]):
                data = next(left).to_bytes(cols, "little")
                for k in range(cols):
                    if self.strobe >> k & 1:
                        self.bytes[run["offset"] + n * cols + k] = data[k]

    def beat(self, offset):
        cols = self.config.cols
        if offset < LOCAL_OFFSET:
            return word(BASE + offset, cols)
        return int.from_bytes(bytes(self.bytes.get(offset + k, 0) for k in range(cols)), "little")

    async def together(self, ctx, benches=6):
        """Wait for all testbenches."""
        self.arrived += 1
        until = -(-self.arrived // benches) * benches
        while self.arrived < until:
            await ctx.tick()

    def reader(self, name):
        async def asks(ctx):
            for phase in self.phases:
                port = getattr(self.dut, name).runs[0]
                await Source(port, phase.reads[name], gap=self.gaps[0], seed=self.seed).run(ctx)
                await self.together(ctx)

        async def takes(ctx):
            for number, expected in enumerate(self.expected):
                sink = Sink(
                    getattr(self.dut, name).o[0],
                    len(expected[name]),
                    gap=self.gaps[1],
                    seed=self.seed + number,
                )
                await sink.run(ctx)
                assert sink.words == expected[name], (name, number)
                await self.together(ctx)

        return asks, takes

    def writer(self):
        port = self.dut.results

        async def runs(ctx):
            for phase in self.phases:
                await Source(port.runs, phase.written, gap=self.gaps[0], seed=self.seed).run(ctx)
                await self.together(ctx)

        async def data(ctx):
            for phase in self.phases:
                await Source(port.i, phase.beats, gap=self.gaps[1], seed=self.seed).run(ctx)
                for _ in range(2 * DEPTH):  # until it shows that it is not idle
                    await ctx.tick()
                idle = 0
                while not idle:
                    _, _, idle = await ctx.tick().sample(port.idle)
                await self.together(ctx)

        return runs, data

    async def watch(self, ctx):
        for manager in self.dut.managers:
            ctx.set(manager.base, BASE)
            ctx.set(manager.size, SIZE)
        results, kept = self.dut.results, self.dut.kept
        ctx.set(results.strobe, self.strobe)
        ctx.set(results.high, 1 << 32)
        signals = [kept.inputs.asks.valid, kept.residual.asks.valid, kept.results.asks.valid]
        signals += [kept.inputs.answers.valid, kept.residual.answers.valid]
        signals += [kept.results.beats.valid & kept.results.beats.ready, kept.results.done]
        lists = [*self.asks.values(), *self.answers.values(), self.stored, self.done]
        cycle = 0
        while True:
            _, _, *seen = await ctx.tick().sample(
                *signals, *(manager.error for manager in self.dut.managers)
            )
            for flag, cycles in zip(seen, lists, strict=False):
                if flag:
                    cycles.append(cycle)
            assert seen[len(signals) :] == [Fault.NONE] * 3
            cycle += 1

    def run(self, *, cycles=60_000):
        benches = [*self.reader("inputs"), *self.reader("residual"), *self.writer()]
        background = [self.watch, *(each.run for each in self.outside.values()), self.memory.run]
        simulate(self.dut, *benches, background=background, cycles=cycles)
        bus = {BASE + at: byte for at, byte in self.bytes.items() if at < LOCAL_OFFSET}
        assert self.memory.bytes == bus


def random_rig(config, seed, gaps, latency):
    """Give a rig whose phases write to some places and read, inside and outside, from others."""
    rng = rng_of(seed)
    rig = Rig(config, gaps=gaps, latency=latency, seed=seed)
    rig.strobe = between(rng, 1, (1 << config.cols) - 1)
    part = config.map_bytes // config.cols // 16

    def runs(parts, inside):
        made = []
        for _ in range(between(rng, 0, 8)):
            beats = between(rng, 1, part)
            at = between(rng, 0, 1000)
            if chance(rng, inside):
                at = LOCAL_OFFSET // config.cols + pick(rng, parts) * part
                at += between(rng, 0, part - beats)
            made.append(run_of(at * config.cols, beats))
        return made

    # A sixteenth of the memory is written or read in a phase.
    parts = list(range(16))
    everything = [run_of(LOCAL_OFFSET + n * part * config.cols, part) for n in parts]
    rig.add(everything, random_beats(rng, everything, config))
    for _ in range(3):
        rng.shuffle(parts)
        written = runs(parts[:8], 0.6)
        beats = random_beats(rng, written, config)
        rig.add(written, beats, runs(parts[8:], 0.6), runs(parts[8:], 0.6))
    return rig


gap = st.sampled_from((0.0, 0.5, 0.8))


@settings(max_examples=4, deadline=None)
@given(
    cols=st.sampled_from((4, 8, 32)),
    gaps=st.tuples(gap, gap),
    latency=st.sampled_from((1, 20)),
    seed=st.integers(0, 999),
)
def test_any(cols, gaps, latency, seed):
    random_rig(TINY.replace(cols=cols, map_bytes=1 << 13), seed, gaps, latency).run()


# --- Speed ----------------------------------------------------------------------------------------


def speed(config, inputs, residual, *, beats=200):
    """Write, then read at two offsets at once; give the rig."""
    rng = rng_of(1)
    rig = Rig(config)
    runs = [run_of(LOCAL_OFFSET + at, beats) for at in dict.fromkeys((inputs, residual))]
    rig.add(runs, random_beats(rng, runs, config))
    rig.add(
        [], [], [run_of(LOCAL_OFFSET + inputs, beats)], [run_of(LOCAL_OFFSET + residual, beats)]
    )
    rig.run()
    return rig


def test_latencies():
    config = TINY.replace(map_bytes=1 << 13)
    rig = Rig(config)
    run = run_of(LOCAL_OFFSET + 64, 2)
    rig.add([run], [0x1234, 0x5678])
    rig.add([], [], [run], [run])
    rig.run()
    assert rig.answers["residual"][0] == rig.asks["residual"][0] + READ_LATENCY
    assert rig.done == [rig.stored[-1] + WRITE_LATENCY]
    assert rig.stored[0] == rig.asks["results"][0] + 2


def test_a_beat_a_cycle():
    config = TINY.replace(map_bytes=1 << 13)
    rig = speed(config, 8, config.map_bytes // BANKS)
    assert in_a_row(rig.answers["inputs"])
    assert in_a_row(rig.answers["residual"])
    # Two runs: the beats of each follow each other as they come.
    assert in_a_row(rig.stored[:200])


def test_one_bank_for_both():
    config = TINY.replace(map_bytes=1 << 13)
    rig = speed(config, 8, 1024)
    assert in_a_row(rig.answers["residual"])
    assert rig.answers["inputs"][-1] > rig.answers["residual"][-1]


# --- Ranges ---------------------------------------------------------------------------------------


def refused(run, **limits):
    """Give whether a planner of a core with 8 KiB takes a run for one that is outside."""
    dut = BurstPlanner(4, 16, 64, free=64, limited=bool(limits), local_bytes=1 << 13)
    found = []

    async def bench(ctx):
        ctx.set(dut.size, SIZE)
        for name, value in limits.items():
            ctx.set(getattr(dut, name), value)
        await Source(dut.runs, [run]).run(ctx)
        for _ in range(8):
            await ctx.tick()
        found.append((ctx.get(dut.outside), ctx.get(dut.o.valid)))

    simulate(dut, bench)
    ((outside, offered),) = found
    assert outside != offered
    return bool(outside)


@pytest.mark.parametrize(
    ("offset", "beats", "expected"),
    [
        (LOCAL_OFFSET, 2048, False),
        (LOCAL_OFFSET + 8188, 1, False),
        (LOCAL_OFFSET, 2049, True),
        (LOCAL_OFFSET + 8192, 1, True),
        (LOCAL_OFFSET + 2, 1, True),
        (LOCAL_OFFSET - 4, 1, True),
        (LOCAL_OFFSET - 4, 2, True),
        ((1 << 32) - 4, 1, True),
        ((1 << 32) - 4, 2, True),
        (SIZE - 4, 1, False),
        (SIZE - 4, 2, True),
    ],
)
def test_range(offset, beats, expected):
    assert refused(run_of(offset, beats)) == expected
    assert refused(run_of(offset, beats), low=0, high=1 << 32) == expected


def test_results_have_their_own_range():
    limits = {"low": LOCAL_OFFSET + 64, "high": LOCAL_OFFSET + 128}
    assert not refused(run_of(LOCAL_OFFSET + 64, 16), **limits)
    for offset, beats in ((64, 17), (60, 1), (128, 1)):
        assert refused(run_of(LOCAL_OFFSET + offset, beats), **limits)


# --- Stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 9, 13, 24, 40])
def test_stop(after):
    """After ``stop`` at any time all comes to rest, and no byte but those of two beats changes."""
    config = TINY.replace(map_bytes=1 << 13)
    dut = Ports(config)
    beats, changed = 40, []

    async def bench(ctx):
        for port in dut.managers:
            ctx.set(port.size, SIZE)
        ctx.set(dut.results.high, 1 << 32)
        ctx.set(dut.results.strobe, 15)
        for port in (dut.inputs.runs[0], dut.residual.runs[0], dut.results.runs):
            ctx.set(port.payload, run_of(LOCAL_OFFSET, beats))
            ctx.set(port.valid, 1)
        ctx.set(dut.results.i.valid, 1)
        ctx.set(dut.results.i.payload, 0x11223344)
        for port in (dut.inputs.o[0], dut.residual.o[0]):
            ctx.set(port.ready, 1)
        for _ in range(after):
            await ctx.tick()
        for port in dut.managers:
            ctx.set(port.stop, 1)
        quiet = 0
        for _ in range(3 * DEPTH):
            stored = dut.kept.results.beats
            _, _, moved, beat, *quiet = await ctx.tick().sample(
                stored.valid & stored.ready, stored.payload, *(p.quiet for p in dut.managers)
            )
            if moved and beat.strb:
                changed.append(beat)
        assert quiet == [1, 1, 1]
        assert not ctx.get(dut.kept.results.beats.valid)
        assert not ctx.get(dut.kept.inputs.answers.valid)

    simulate(dut, bench)
    assert len(changed) <= 2
