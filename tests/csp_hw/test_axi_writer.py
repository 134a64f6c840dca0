# SPDX-License-Identifier: Apache-2.0
"""The writing port against a naive memory: data, AXI's rules, joining, faults, stopping, speed."""

import gc

import pytest
from amaranth import ResetInserter, Signal
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_hw.axi.ports import Fault
from csp_hw.axi.writer import OUTSTANDING, WriteManager
from tests.csp_hw.axi_memory import WriteMemory, in_a_row, run_of
from tests.csp_hw.bench import Source, between, chance, pick, rng_of, simulate

BASE = 0x7654_3210_F000
SIZE = 1 << 20
#: Cycles after everything is written in which something more would show.
AFTERMATH = 30


def random_runs(rng, count, data_bytes=8):
    """Give runs that touch, or leave a gap of a beat, or begin elsewhere."""
    runs, at = [], between(rng, 0, 3000)
    for _ in range(count):
        at = pick(rng, (at, at, at + 1, between(rng, 0, 4000), 4096 // data_bytes - 3))
        beats = pick(rng, (1, 1, 2, 3, 4, 8, between(rng, 0, 40)))
        runs.append(run_of(at * data_bytes, beats))
        at += beats
    return runs


def random_words(rng, runs, data_bytes=8):
    count = sum(run["beats"] for run in runs)
    return [int.from_bytes(rng.bytes(data_bytes), "little") for _ in range(count)]


def written(runs, words, data_bytes=8, strobe=None):
    """Give the bytes of memory that words leave, by address."""
    strobe = (1 << data_bytes) - 1 if strobe is None else strobe
    beats = [run["offset"] + n * data_bytes for run in runs for n in range(run["beats"])]
    return {
        BASE + beat + k: word >> 8 * k & 0xFF
        for beat, word in zip(beats, words, strict=False)
        for k in range(data_bytes)
        if strobe >> k & 1
    }


def set_window(ctx, dut, *, size=SIZE, low=0, high=2**32, strobe=None):
    ctx.set(dut.base, BASE)
    ctx.set(dut.size, size)
    ctx.set(dut.low, low)
    ctx.set(dut.high, high)
    ctx.set(dut.strobe, (1 << dut.data_bytes) - 1 if strobe is None else strobe)


class Rig:
    """A port and its memory; sources, with gaps ``streams``, of runs and of beats."""

    def __init__(self, depth, runs, *, data_bytes=8, streams=(0.0, 0.0), seed=0, **memory):
        self.dut = WriteManager(data_bytes, depth)
        longest = self.dut.longest_burst
        self.memory = WriteMemory(self.dut.axi, data_bytes, longest=longest, seed=seed, **memory)
        self.seen = []  # (quiet, idle, error) of each cycle
        self.words = random_words(rng_of(seed, 7), runs, data_bytes)
        self.runs = Source(self.dut.runs, runs, gap=streams[0], seed=seed)
        self.beats = Source(self.dut.i, self.words, gap=streams[1], seed=seed + 1)

    def run(self, *, strobe=None, cycles=20_000):
        """Write all; check memory, and that the port is at rest then."""
        dut, memory = self.dut, self.memory
        count = len(self.words)

        async def main(ctx):
            set_window(ctx, dut, strobe=strobe)
            after = 0
            while after < AFTERMATH:
                _, _, *seen = await ctx.tick().sample(dut.quiet, dut.idle, dut.error)
                self.seen.append(tuple(seen))
                done = len(memory.beats) >= count and memory.pending == 0
                after = after + 1 if done else 0
            assert self.seen[-1] == (1, 1, Fault.NONE)

        background = [memory.run, self.runs.run, self.beats.run]
        simulate(dut, main, background=background, cycles=cycles)
        assert memory.bytes == written(self.runs.words, self.words, dut.data_bytes, strobe)
        assert len(memory.beats) == count
        # It is never idle between the first run's transfer and the last acknowledgement.
        idle = [cycle for cycle, (_, idle, _) in enumerate(self.seen) if idle]
        starts = zip(self.runs.cycles, self.runs.words, strict=True)
        first = next((cycle for cycle, run in starts if run["beats"]), None)
        assert not [cycle for cycle in idle if count and first < cycle <= memory.beats[-1]]


gap = st.sampled_from((0.0, 0.5, 0.9))


@settings(max_examples=30, deadline=None)
@given(
    data_bytes=st.sampled_from((4, 8, 64)),
    depth=st.sampled_from((2, 8, 32)),
    streams=st.tuples(gap, gap),
    gaps=st.tuples(gap, gap, gap),
    order=st.sampled_from(("any", "aw", "w")),
    latency=st.sampled_from((1, 30)),
    seed=st.integers(0, 999),
)
def test_any(data_bytes, depth, streams, gaps, order, latency, seed):
    rng = rng_of(seed)
    # Some runs of 0 beats only, in which case nothing may happen.
    runs = [run for run in random_runs(rng, between(rng, 1, 8), data_bytes) if run["beats"]]
    memory = {"gaps": gaps, "order": order, "latency": latency}
    rig = Rig(depth, runs, data_bytes=data_bytes, streams=streams, seed=seed, **memory)
    rig.run(strobe=pick(rng, (None, 0b0110, 1)))


def test_runs_of_no_beats_write_nothing():
    rig = Rig(8, [run_of(64, 0), run_of(80, 2), run_of(0, 0), run_of(0, 0), run_of(96, 2)])
    rig.run()
    assert sum(burst.beats for burst in rig.memory.bursts) == 4


# --- Speed and joining ----------------------------------------------------------------------------


def test_latencies():
    rig = Rig(8, [run_of(64, 2)])
    rig.run()
    (burst,) = rig.memory.bursts
    assert rig.runs.cycles == [0]
    assert burst.offered == 7
    assert rig.memory.beats == [burst.offered + 2, burst.offered + 3]


def test_latency_from_the_last_beat():
    rig = Rig(8, [run_of(64, 4)], streams=(0.0, 0.9))
    rig.run()
    (burst,) = rig.memory.bursts
    assert burst.offered == rig.beats.cycles[-1] + 6


@pytest.mark.parametrize("depth", [16, 32, 128])
def test_a_beat_a_cycle(depth):
    rig = Rig(depth, [run_of(4096 - 8 * 21, 700)], latency=20)
    rig.run()
    assert in_a_row(rig.beats.cycles)
    # Up to the page's end, then from page to page; what is left.
    longest = depth // 2
    expected = [21 % longest or longest, longest, (700 - 21) % longest or longest]
    assert {burst.beats for burst in rig.memory.bursts} == set(expected)
    assert len(rig.memory.bursts) == -(-21 // longest) + -(-(700 - 21) // longest)


@pytest.mark.parametrize("beats", [2, 3, 4, 7])
def test_short_runs_apart_are_written_at_full_speed(beats):
    runs = [run_of(8 * 50 * n, beats) for n in range(280 // beats)]
    rig = Rig(32, runs, latency=4)
    rig.run()
    assert in_a_row(rig.memory.beats)
    assert [burst.beats for burst in rig.memory.bursts] == [beats] * len(runs)


@pytest.mark.parametrize("beats", [1, 2, 3])
def test_short_runs_that_touch_become_long_bursts(beats):
    count = 360
    rig = Rig(32, [run_of(8 * n, beats) for n in range(0, count, beats)])
    rig.run()
    assert in_a_row(rig.memory.beats[1:])
    assert len(rig.memory.bursts) <= count / 16 + 3


def test_what_is_left_of_a_run_is_written_without_waiting_for_another():
    rig = Rig(32, [run_of(0, 19)])
    rig.run()
    assert [burst.beats for burst in rig.memory.bursts] == [16, 3]


def test_unacknowledged_bursts():
    runs = [run_of(8 * 50 * n, 2) for n in range(50)]
    rig = Rig(32, runs, latency=90)
    rig.run()
    assert rig.memory.most_pending == OUTSTANDING


# --- Faults ---------------------------------------------------------------------------------------

RANGE = {"size": 8192, "low": 512, "high": 4096}
OUTSIDE = {
    "before low": (RANGE, 504, 2),
    "over high": (RANGE, 4088, 2),
    "behind high": (RANGE, 4096, 1),
    "crooked": (RANGE, 516, 1),
    "over the end": ({**RANGE, "high": 2**32}, 8184, 2),
    "far": ({**RANGE, "high": 2**32, "size": 2**32}, 2**32 - 8, 2),
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_outside(name, gap):
    window, offset, beats = OUTSIDE[name]
    good = [run_of(512, 3), run_of(4088, 1), run_of(600, 40)]
    dut = WriteManager(8, 32)
    memory = WriteMemory(dut.axi, 8, gaps=(gap, gap, gap))
    runs = Source(dut.runs, [*good, run_of(offset, beats), run_of(512, 1), run_of(512, 1)])
    words = random_words(rng_of(3), [run_of(0, 80)])
    data = Source(dut.i, words)

    async def main(ctx):
        set_window(ctx, dut, **window)
        await ctx.tick().repeat(500)
        assert ctx.get(dut.error) == Fault.RANGE
        assert ctx.get(dut.quiet)
        assert not ctx.get(dut.idle)

    simulate(dut, main, background=[memory.run, runs.run, data.run])
    assert memory.bytes == written(good, words)


@pytest.mark.parametrize("response", [1, 2, 3])
def test_faulty_answer(response):
    dut = WriteManager(8, 8)
    memory = WriteMemory(
        dut.axi, 8, response=lambda address: response * (address == BASE + 32), latency=5
    )
    runs = Source(dut.runs, [run_of(0, 20)])
    data = Source(dut.i, range(20))
    errors = []

    async def main(ctx):
        set_window(ctx, dut)
        for cycle in range(100):
            if cycle == 60:  # what goes wrong later does not change it
                ctx.set(dut.runs.payload, run_of(SIZE, 1))
                ctx.set(dut.runs.valid, 1)
            _, _, error = await ctx.tick().sample(dut.error)
            errors.append(error)

    simulate(dut, main, background=[memory.run, runs.run, data.run])
    # The second burst of four ends with the eighth beat.
    fault = memory.beats[7] + 5 + 1
    assert errors == [Fault.NONE] * fault + [Fault.BUS] * (100 - fault)


def test_a_run_outside_before_a_faulty_answer():
    dut = WriteManager(8, 8)
    memory = WriteMemory(dut.axi, 8, response=lambda _: 2, latency=40)
    runs = Source(dut.runs, [run_of(0, 4), run_of(4, 1)])
    data = Source(dut.i, range(8))

    async def main(ctx):
        set_window(ctx, dut)
        await ctx.tick().repeat(100)
        assert memory.bursts
        assert memory.pending == 0
        assert ctx.get(dut.error) == Fault.RANGE

    simulate(dut, main, background=[memory.run, runs.run, data.run])


# --- Stopping -------------------------------------------------------------------------------------


async def send(ctx, dut, rng, runs, words, cycles):
    """Offer runs and beats until all are written or the cycles are over."""
    queues = [(dut.runs, list(runs)), (dut.i, list(words))]
    offered = [False, False]
    for _ in range(cycles):
        for n, (port, queue) in enumerate(queues):
            offered[n] = bool(queue) and (offered[n] or not chance(rng, 0.3))
            if queue:
                ctx.set(port.payload, queue[0])
            ctx.set(port.valid, offered[n])
        _, _, *ready, idle = await ctx.tick().sample(dut.runs.ready, dut.i.ready, dut.idle)
        for n, (_, queue) in enumerate(queues):
            if offered[n] and ready[n]:
                queue.pop(0)
                offered[n] = False
        if idle and not any(queue for _, queue in queues):
            break


def check_stop(after, seed, **memory):
    """Stop after some cycles, wait, reset, and write again."""
    dut = WriteManager(8, 8)
    memory = WriteMemory(dut.axi, 8, longest=4, seed=seed, **memory)
    reset = Signal()
    rng = rng_of(seed, after)
    before, behind = random_runs(rng, 12), random_runs(rng, 4)
    words = [random_words(rng, runs) for runs in (before, behind)]

    async def main(ctx):
        set_window(ctx, dut)
        await send(ctx, dut, rng, before, words[0], after)
        ctx.set(dut.stop, 1)
        for _ in range(2000):
            _, _, quiet = await ctx.tick().sample(dut.quiet)
            if quiet:
                break
        else:
            raise AssertionError("never quiet")
        for _ in range(10):
            _, _, *valid = await ctx.tick().sample(
                dut.quiet, dut.axi.aw.valid, dut.axi.w.valid, dut.axi.b.valid
            )
            assert valid == [1, 0, 0, 0]
        assert memory.pending == 0
        assert not memory.full
        assert all(burst.offered <= after for burst in memory.bursts)
        # Only a beat that was on offer and the next one may still be written, and they come first.
        late = [s for s, at in zip(memory.strobes, memory.beats, strict=True) if at >= after]
        assert not any(late[2:])
        count = memory.strobes.count(0xFF)
        assert memory.bytes == written(before, words[0][:count])
        memory.bytes.clear()
        ctx.set(dut.runs.valid, 0)
        ctx.set(dut.i.valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        ctx.set(dut.stop, 0)
        await send(ctx, dut, rng, behind, words[1], 10_000)
        assert memory.bytes == written(behind, words[1])
        assert ctx.get(dut.error) == Fault.NONE

    simulate(ResetInserter(reset)(dut), main, background=[memory.run])


@pytest.mark.parametrize("order", ["any", "aw", "w"])
@pytest.mark.parametrize("gaps", [(0.0, 0.0, 0.0), (0.8, 0.3, 0.3), (0.2, 0.8, 0.0)])
def test_stop(order, gaps):
    for after in range(1 + len(order) % 2, 30, 3):
        check_stop(after, after % 5, order=order, gaps=gaps, latency=3)


# --- Parameters -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_parameters():
    for depth in (0, 1, 3, 12):
        with pytest.raises(ValueError, match=f"^depth must be a power of two, not {depth}$"):
            WriteManager(8, depth)
    with pytest.raises(ValueError, match=r"^data_bytes must be a power of two up to 128, not 6$"):
        WriteManager(6, 16)
    assert WriteManager(8, 1024).longest_burst == 256
    assert WriteManager(64, 1024).longest_burst == 64
    gc.collect()  # what was refused is never elaborated, and says so when it goes
