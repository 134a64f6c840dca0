# SPDX-License-Identifier: Apache-2.0
"""The reading port against a naive memory: data, order, AXI's rules, faults, stopping, speed."""

import gc

import pytest
from amaranth import ResetInserter, Signal
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_hw.axi.ports import Fault
from csp_hw.axi.reader import OUTSTANDING, ReadManager, longest_burst
from tests.csp_hw.axi_memory import ReadMemory, in_a_row, run_of, word
from tests.csp_hw.bench import Sink, Source, between, chance, pick, rng_of, simulate

BASE = 0x12_3456_7000
SIZE = 1 << 20


def words_of(runs, data_bytes=8):
    """Give what runs read."""
    return [
        word(BASE + run["offset"] + n * data_bytes, data_bytes)
        for run in runs
        for n in range(run["beats"])
    ]


def random_runs(rng, count, data_bytes=8, longest=40):
    """Give runs: some touch, some cross pages, some are long, some are nothing."""
    runs, at = [], between(rng, 0, 3000)
    for _ in range(count):
        at = pick(rng, (at, at, at + 1, between(rng, 0, 4000), 4096 // data_bytes - 3))
        beats = pick(rng, (1, 1, 2, 3, 4, 8, between(rng, 0, longest)))
        runs.append(run_of(at * data_bytes, beats))
        at += beats
    return runs


class Rig:
    """A port and its memory; a source and a sink, with gaps ``streams``, for each client."""

    def __init__(self, depths, runs, *, data_bytes=8, streams=(0.0, 0.0), seed=0, **memory):
        self.dut = ReadManager(data_bytes, depths)
        longest = max(longest_burst(data_bytes, depth) for depth in depths)
        self.memory = ReadMemory(self.dut.axi, data_bytes, longest=longest, seed=seed, **memory)
        self.expected = [words_of(each, data_bytes) for each in runs]
        self.sources = [
            Source(self.dut.runs[n], each, gap=streams[0], seed=seed + n)
            for n, each in enumerate(runs)
        ]
        self.sinks = [
            Sink(self.dut.o[n], len(each), gap=streams[1], seed=seed + n)
            for n, each in enumerate(self.expected)
        ]

    def run(self, *, cycles=20_000):
        """Read all; check data, and that the port is at rest then."""

        async def watch(ctx):
            ctx.set(self.dut.base, BASE)
            ctx.set(self.dut.size, SIZE)
            while True:
                _, _, error = await ctx.tick().sample(self.dut.error)
                assert error == Fault.NONE

        background = [watch, self.memory.run, *(source.run for source in self.sources)]
        sinks = [sink.run for sink in self.sinks]
        simulate(self.dut, *sinks, background=background, cycles=cycles)
        for sink, expected in zip(self.sinks, self.expected, strict=True):
            assert sink.words == expected
        assert self.memory.pending == 0
        assert sum(burst.beats for burst in self.memory.bursts) == sum(map(len, self.expected))


gap = st.sampled_from((0.0, 0.5, 0.9))


@settings(max_examples=20, deadline=None)
@given(
    data_bytes=st.sampled_from((4, 8, 64)),
    depths=st.lists(st.sampled_from((4, 16, 64)), min_size=1, max_size=3),
    latency=st.sampled_from((1, 5, 40)),
    streams=st.tuples(gap, gap),
    gaps=st.tuples(gap, gap),
    seed=st.integers(0, 999),
)
def test_any(data_bytes, depths, latency, streams, gaps, seed):
    rng = rng_of(seed)
    runs = [random_runs(rng, between(rng, 0, 6), data_bytes) for _ in depths]
    memory = {"latency": latency, "gaps": gaps}
    Rig(depths, runs, data_bytes=data_bytes, streams=streams, seed=seed, **memory).run()


# --- Speed ----------------------------------------------------------------------------------------


def test_latencies():
    rig = Rig((16,), [[run_of(64, 2)]], latency=5)
    rig.run()
    (burst,) = rig.memory.bursts
    assert burst.offered == rig.sources[0].cycles[0] + 8
    assert rig.memory.beats[0] == burst.taken + 5
    assert rig.sinks[0].cycles == [beat + 3 for beat in rig.memory.beats]


@pytest.mark.parametrize(
    ("depth", "latency"), [(16, 3), (32, 15), (64, 30), (64, 39), (128, 87), (1024, 250)]
)
def test_a_beat_a_cycle(depth, latency):
    # From within a page, so that its end comes at an odd place.
    rig = Rig((depth,), [[run_of(4096 - 8 * 21, 1200)]], latency=latency)
    rig.run()
    assert in_a_row(rig.sinks[0].cycles)
    assert in_a_row(rig.memory.beats)


def test_short_runs_that_touch_are_read_at_full_speed():
    rig = Rig((64,), [[run_of(8 * n, 1) for n in range(300)]], latency=30)
    rig.run()
    assert in_a_row(rig.memory.beats[10:])
    assert len(rig.memory.bursts) < 30


@pytest.mark.parametrize("beats", [2, 4])
def test_short_runs_apart_are_read_at_full_speed(beats):
    runs = [run_of(8 * 50 * n, beats) for n in range(400 // beats)]
    rig = Rig((64,), [runs], latency=4 if beats == 2 else 30)
    rig.run()
    assert in_a_row(rig.memory.beats)


def test_clients_share_and_wait_for_nobody():
    # The first client's consumer sleeps; the others get all that memory gives.
    runs = [[run_of(0, 80)], [run_of(8192, 300)], [run_of(20_480, 300)]]
    rig = Rig((32, 64, 64), runs, latency=10)
    rig.sinks[0].gap = 0.95
    rig.run()
    others = rig.sinks[1].cycles, rig.sinks[2].cycles
    assert rig.sinks[0].cycles[-1] > 1000
    assert max(map(max, others)) < 25 + 600 + 80
    assert abs(others[0][-1] - others[1][-1]) < 40


def test_outstanding_bursts():
    runs = [[run_of(8 * 50 * n, 1) for n in range(60)]]
    rig = Rig((64,), runs, latency=60)
    rig.run()
    assert rig.memory.most_pending == OUTSTANDING


@pytest.mark.parametrize(("data_bytes", "depth"), [(8, 4), (8, 64), (64, 512), (4, 2048)])
def test_bursts_are_as_long_as_they_may_be(data_bytes, depth):
    longest = longest_burst(data_bytes, depth)
    assert longest == min(depth // 4, 256, 4096 // data_bytes)
    beats = 4096 // data_bytes + 3
    rig = Rig((depth,), [[run_of(0, beats)]], data_bytes=data_bytes)
    rig.run()
    bursts = [longest] * (beats // longest)
    tail = [beats % longest] if beats % longest else []
    assert [burst.beats for burst in rig.memory.bursts] == bursts + tail


# --- Faults ---------------------------------------------------------------------------------------

OUTSIDE = {
    "behind the end": (SIZE, 1),
    "over the end": (SIZE - 8, 2),
    "crooked": (4, 1),
    "crooked at the end": (SIZE - 4, 1),
    "far": (2**32 - 8, 2),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside(name):
    good = [run_of(0, 3), run_of(SIZE - 16, 2)]
    dut = ReadManager(8, (16, 16))
    memory = ReadMemory(dut.axi, 8)
    bad = Source(dut.runs[0], [*good, run_of(*OUTSIDE[name]), run_of(0, 1), run_of(0, 1)])
    other = Source(dut.runs[1], [run_of(800, 200)])
    sinks = [Sink(dut.o[0], 5), Sink(dut.o[1], 200)]

    async def main(ctx):
        ctx.set(dut.base, BASE)
        ctx.set(dut.size, SIZE)
        await ctx.tick().repeat(300)
        assert ctx.get(dut.error) == Fault.RANGE
        assert ctx.get(dut.quiet)

    testbenches = [sink.run for sink in sinks]
    simulate(dut, main, *testbenches, background=[memory.run, bad.run, other.run])
    assert sinks[0].words == words_of(good)
    assert sinks[1].words == words_of([run_of(800, 200)])


def check_fault(response, *others):
    """Read 40 beats, some with a faulty response; give the faults seen and the memory."""
    dut = ReadManager(8, (16, *[4 for _ in others]))
    memory = ReadMemory(dut.axi, 8, gaps=(0.0, 0.3), response=response)
    sources = [Source(dut.runs[0], [run_of(0, 40)])]
    sink = Sink(dut.o[0], 40)
    errors = []

    async def watch(ctx):
        ctx.set(dut.base, BASE)
        ctx.set(dut.size, SIZE)
        for cycle in range(200):
            for n, (since, run) in enumerate(others, 1):
                ctx.set(dut.runs[n].valid, cycle == since)
                ctx.set(dut.runs[n].payload, run)
            _, _, error = await ctx.tick().sample(dut.error)
            errors.append(error)

    background = [memory.run, *(source.run for source in sources)]
    simulate(dut, watch, sink.run, background=background)
    assert sink.words == words_of([run_of(0, 40)])
    return errors, memory


@pytest.mark.parametrize("response", [1, 2, 3])
@pytest.mark.parametrize("at", [0, 5, 39])
def test_faulty_answer(response, at):
    errors, memory = check_fault(lambda address: response * (address == BASE + 8 * at))
    before = memory.beats[at] + 2
    assert errors == [Fault.NONE] * before + [Fault.BUS] * (200 - before)


@pytest.mark.parametrize("since", [0, 100])
def test_the_first_fault_stays(since):
    errors, _ = check_fault(lambda address: 2 * (address >= BASE + 160), (since, run_of(SIZE, 1)))
    assert set(errors) == {Fault.NONE, Fault.BUS if since else Fault.RANGE}


# --- Stopping -------------------------------------------------------------------------------------


async def exchange(ctx, dut, rng, runs, words, cycles):
    """Offer runs and take words until the latter are enough or the cycles are over."""
    waiting = [list(each) for each in runs]
    offered = [False] * len(runs)
    got = [[] for _ in runs]
    for _ in range(cycles):
        ready = [not chance(rng, 0.3) for _ in runs]
        for n, each in enumerate(waiting):
            offered[n] = bool(each) and (offered[n] or not chance(rng, 0.2))
            if each:
                ctx.set(dut.runs[n].payload, each[0])
            ctx.set(dut.runs[n].valid, offered[n])
            ctx.set(dut.o[n].ready, ready[n])
        taken = [dut.runs[n].ready for n in range(len(runs))]
        outputs = [port for o in dut.o for port in (o.valid, o.payload)]
        _, _, *values = await ctx.tick().sample(*taken, *outputs)
        for n, each in enumerate(waiting):
            if offered[n] and values[n]:
                each.pop(0)
                offered[n] = False
            valid, payload = values[len(runs) + 2 * n :][:2]
            if valid and ready[n]:
                got[n].append(payload)
        if [len(each) for each in got] == words:
            break
    return got


def check_stop(after, memory_gaps, latency, seed):
    """Stop after some cycles, wait, reset, and read again."""
    dut = ReadManager(8, (4, 32))
    memory = ReadMemory(dut.axi, 8, latency=latency, gaps=memory_gaps, seed=seed)
    reset = Signal()
    rng = rng_of(seed, after)
    before = [random_runs(rng, 12), random_runs(rng, 12)]
    behind = [random_runs(rng, 4), random_runs(rng, 4)]

    async def main(ctx):
        ctx.set(dut.base, BASE)
        ctx.set(dut.size, SIZE)
        await exchange(ctx, dut, rng, before, None, after)
        ctx.set(dut.stop, 1)
        for _ in range(2000):
            _, _, quiet = await ctx.tick().sample(dut.quiet)
            if quiet:
                break
        else:
            raise AssertionError("never quiet")
        for _ in range(10):
            _, _, quiet, valid = await ctx.tick().sample(dut.quiet, dut.axi.ar.valid)
            assert quiet
            assert not valid
        assert memory.pending == 0
        assert not memory.answers.waiting
        assert all(burst.offered <= after for burst in memory.bursts)
        for n in range(2):
            ctx.set(dut.runs[n].valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        ctx.set(dut.stop, 0)
        expected = [words_of(each) for each in behind]
        got = await exchange(ctx, dut, rng, behind, [len(each) for each in expected], 10_000)
        assert got == expected
        assert ctx.get(dut.error) == Fault.NONE

    simulate(ResetInserter(reset)(dut), main, background=[memory.run])
    return memory


@pytest.mark.parametrize("case", range(3))
def test_stop(case):
    gaps, latency, seed = [((0.0, 0.0), 1, 1), ((0.8, 0.0), 3, 2), ((0.3, 0.6), 20, 3)][case]
    for after in range(1 + case, 45, 4):
        check_stop(after, gaps, latency, seed)


# --- Parameters -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_parameters():
    with pytest.raises(ValueError, match=r"^depths must name at least one client$"):
        ReadManager(8, ())
    for depth in (0, 1, 2, 3, 12):
        with pytest.raises(
            ValueError, match=f"^depths must be powers of two from 4 on, not {depth}$"
        ):
            ReadManager(8, (16, depth))
    for data_bytes in (0, 3, 256):
        with pytest.raises(
            ValueError, match=f"^data_bytes must be a power of two up to 128, not {data_bytes}$"
        ):
            ReadManager(data_bytes, (16,))
    gc.collect()  # what was refused is never elaborated, and says so when it goes
