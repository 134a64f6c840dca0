# SPDX-License-Identifier: Apache-2.0
"""The planner of bursts: it covers the runs in order, in few bursts, and only within the window."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_hw.axi.bursts import BurstPlanner
from csp_hw.axi.ports import PAGE_BYTES
from tests.csp_hw.axi_memory import run_of
from tests.csp_hw.bench import Sink, Source, chance, rng_of, simulate

EVERYTHING = {"size": 2**32}


def stretches(runs, data_bytes):
    """Join runs that touch; give [first, end) in beats."""
    found = []
    for run in runs:
        first = run["offset"] // data_bytes
        if not run["beats"]:
            continue
        if found and found[-1][1] == first:
            found[-1][1] += run["beats"]
        else:
            found.append([first, first + run["beats"]])
    return found


def fewest(runs, data_bytes, burst):
    """Give the bursts, as (at, beats), that a greedy eye with full sight would cut."""
    page = PAGE_BYTES // data_bytes
    bursts = []
    for first, end in stretches(runs, data_bytes):
        while first < end:
            beats = min(burst, end - first, page - first % page)
            bursts.append((first, beats))
            first += beats
    return bursts


class Free:
    """Gives beats at random, and counts."""

    def __init__(self, dut, gap, seed):
        self.dut, self.gap, self.rng = dut, gap, rng_of(seed, 5)
        self.given = dut.free

    async def run(self, ctx):
        taken = 0
        port = self.dut.o
        while True:
            # Those that the bursts on offer so far took may come back, as with room in a queue.
            more = self.given - taken < self.dut.depth and not chance(self.rng, self.gap)
            ctx.set(self.dut.more, more)
            _, _, valid, ready, length = await ctx.tick().sample(
                port.valid, port.ready, port.payload.length
            )
            self.given += more
            if valid and ready:
                taken += length + 1
                assert taken <= self.given, "a burst without its beats"


def plan(dut, runs, count, *, window=None, gaps=(0.0, 0.0, 0.0), seed=0):
    """Offer runs, take ``count`` bursts; give the source, the sink and the bursts."""
    source = Source(dut.runs, runs, gap=gaps[0], seed=seed)
    sink = Sink(dut.o, count, gap=gaps[1], seed=seed)
    free = Free(dut, gaps[2], seed)

    async def main(ctx):
        for name, value in (window or EVERYTHING).items():
            ctx.set(getattr(dut, name), value)
        await sink.run(ctx)
        assert not ctx.get(dut.busy)

    simulate(dut, main, background=[source.run, free.run])
    return source, sink, [(word["at"], word["length"] + 1) for word in sink.words]


SIZES = [(4, 1), (4, 16), (8, 4), (8, 256), (16, 256), (64, 64), (64, 2)]


@pytest.mark.parametrize(("data_bytes", "burst"), SIZES)
def test_lone_runs_make_the_fewest_bursts(data_bytes, burst):
    page = PAGE_BYTES // data_bytes
    runs = []
    for at in (0, 1, burst - 1, page - 1, page - burst + 1, page, 3 * page - 2):
        for beats in {1, 2, burst - 1, burst, burst + 1, 2 * burst + 3} - {0}:
            before = runs[-1] if runs else run_of(0, 0)
            if before["offset"] + before["beats"] * data_bytes != at * data_bytes:
                runs.append(run_of(at * data_bytes, beats))
    expected = fewest(runs, data_bytes, burst)
    assert len(stretches(runs, data_bytes)) == len(runs)
    dut = BurstPlanner(data_bytes, burst, burst, free=burst)
    _, _, bursts = plan(dut, runs, len(expected))
    assert bursts == expected


@st.composite
def many_runs(draw):
    data_bytes, burst = draw(st.sampled_from(SIZES))
    burst = min(burst, 16)
    runs, at = [], draw(st.integers(0, 2000))
    for _ in range(draw(st.integers(1, 8))):
        step = draw(st.sampled_from((0, 0, 0, 1, -5, 300)))
        at = max(at + step, 0)
        beats = draw(st.one_of(st.integers(0, 5), st.integers(0, 40)))
        runs.append(run_of(at * data_bytes, beats))
        at += beats
    return data_bytes, burst, runs


@given(
    case=many_runs(),
    gaps=st.tuples(*3 * [st.sampled_from((0.0, 0.6))]),
    depth=st.sampled_from((1, 4)),
    full=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any(case, gaps, depth, full, seed):
    data_bytes, burst, runs = case
    depth *= burst
    dut = BurstPlanner(data_bytes, burst, depth, free=depth if full else 0)
    # How many bursts there are depends on when runs come, so all of them are taken as single beats.
    expected = [beat for first, end in stretches(runs, data_bytes) for beat in range(first, end)]
    source = Source(dut.runs, runs, gap=gaps[0], seed=seed)
    free = Free(dut, gaps[2], seed)
    found = []

    async def main(ctx):
        for name, value in EVERYTHING.items():
            ctx.set(getattr(dut, name), value)
        rng = rng_of(seed, 6)
        while len(found) < len(expected) or len(source.cycles) < len(runs) or ctx.get(dut.busy):
            ctx.set(dut.o.ready, not chance(rng, gaps[1]))
            _, _, valid, ready, word = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload
            )
            if valid and ready:
                beats = word.length + 1
                assert beats <= burst
                assert word.at % (PAGE_BYTES // data_bytes) + beats <= PAGE_BYTES // data_bytes
                found.extend(range(word.at, word.at + beats))
        assert not ctx.get(dut.outside)

    simulate(dut, main, background=[source.run, free.run])
    assert found == expected


def test_runs_that_touch_are_joined():
    # All runs are there before the first beat is free, but for a few at the start.
    runs = [run_of(4096 - 64 + 8 * n, 1) for n in range(40)]
    runs += [run_of(80_000 + 8 * n, 1) for n in range(20)]
    dut = BurstPlanner(8, 16, 32)
    expected = fewest(runs, 8, 16)
    _, _, bursts = plan(dut, runs, len(expected), gaps=(0.0, 0.0, 0.8))
    assert bursts == expected


def test_a_run_a_cycle_while_they_touch():
    runs = [run_of(8 * n, 1) for n in range(256)]
    dut = BurstPlanner(8, 16, 64, free=64)
    source, _, bursts = plan(dut, runs, 16)
    assert source.cycles == list(range(256))
    assert bursts == fewest(runs, 8, 16)


def test_runs_that_come_slowly_are_joined_too():
    # Each one is cut at once if it waits for nothing, but not if the next one is at hand.
    dut = BurstPlanner(8, 16, 64, free=64)
    runs = [run_of(8 * n, 1) for n in range(64)]
    found = []

    async def main(ctx):
        ctx.set(dut.size, 2**32)
        ctx.set(dut.o.ready, 1)
        for cycle in range(200):
            run = runs[cycle // 2] if cycle % 2 == 0 and cycle < 128 else None
            ctx.set(dut.runs.valid, run is not None)
            ctx.set(dut.runs.payload, run or runs[0])
            _, _, ready, valid, word = await ctx.tick().sample(
                dut.runs.ready, dut.o.valid, dut.o.payload
            )
            assert ready
            if valid:
                found.append((word.at, word.length + 1))

    simulate(dut, main)
    assert found == fewest(runs, 8, 16)


def test_cycles():
    # A run's first burst is on offer five cycles after its transfer, the next ones follow every
    # two cycles, also from run to run.
    runs = [run_of(0, 8), run_of(800, 3), run_of(8000, 2)]
    source, sink, _ = plan(BurstPlanner(8, 4, 16, free=16), runs, 4)
    assert source.cycles[0] == 0
    assert sink.cycles == [5, 7, 9, 11]


def test_cycles_from_the_last_free_beat():
    dut = BurstPlanner(8, 4, 16)
    free_in = 12
    seen = []

    async def main(ctx):
        ctx.set(dut.size, 2**32)
        ctx.set(dut.runs.payload, run_of(64, 3))
        for cycle in range(30):
            ctx.set(dut.runs.valid, cycle == 0)
            ctx.set(dut.more, cycle in (2, 3, free_in))
            ctx.set(dut.o.ready, cycle == 20)
            _, _, *values = await ctx.tick().sample(dut.o.valid, dut.busy)
            seen.append(values)

    simulate(dut, main)
    valid, busy = zip(*seen, strict=True)
    assert [cycle for cycle in range(30) if valid[cycle]] == list(range(free_in + 3, 21))
    assert [cycle for cycle in range(30) if busy[cycle]] == list(range(1, 21))


def test_no_more_is_joined_than_can_be_counted():
    runs = [run_of(n * (2**24 - 1) * 4, 2**24 - 1) for n in range(8)]
    dut = BurstPlanner(4, 4, 4)
    source = Source(dut.runs, runs)

    async def main(ctx):
        for name, value in EVERYTHING.items():
            ctx.set(getattr(dut, name), value)
        await ctx.tick().repeat(40)
        assert len(source.cycles) == 4  # two joined, two wait
        assert not ctx.get(dut.outside)

    simulate(dut, main, background=[source.run])


ROOM = {"size": 4096, "low": 512, "high": 2048}
BAD = {
    "before low": (504, 2),
    "at low, crooked": (513, 1),
    "crooked in the highest bit": (516, 1),
    "over high": (2040, 2),
    "behind high": (2048, 1),
    "far behind": (2**32 - 8, 1),
    "over the end of offsets": (2**32 - 8, 2**24 - 1),
    "long": (512, 2**24 - 1),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("gap", [0.0, 0.7])
def test_outside(name, gap):
    good = [run_of(512, 3), run_of(536, 5), run_of(2040, 1), run_of(512, 192)]
    runs = [*good, run_of(*BAD[name]), run_of(512, 1), run_of(512, 1), run_of(512, 1)]
    dut = BurstPlanner(8, 16, 64, free=64, limited=True)
    expected = [beat for first, end in stretches(good, 8) for beat in range(first, end)]
    source = Source(dut.runs, runs, gap=gap)
    free = Free(dut, 0.0, 0)
    found = []

    async def main(ctx):
        for port, value in ROOM.items():
            ctx.set(getattr(dut, port), value)
        ctx.set(dut.o.ready, 1)
        for _ in range(200):
            _, _, valid, word = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                found.extend(range(word.at, word.at + word.length + 1))
        assert ctx.get(dut.outside)
        assert len(source.cycles) <= len(good) + 2

    simulate(dut, main, background=[source.run, free.run])
    assert found == expected


@pytest.mark.parametrize("size", [0, 7, 8, 4095, 4096, 2**32 - 1, 2**32])
def test_size(size):
    # The window's last beat, and the first one behind it.
    window = {"size": size}
    inside = size // 8
    if inside:
        runs = [run_of(8 * (inside - 1), 1)]
        _, _, bursts = plan(BurstPlanner(8, 4, 4, free=4), runs, 1, window=window)
        assert bursts == [(inside - 1, 1)]
    if size < 2**32:
        dut = BurstPlanner(8, 4, 4, free=4)
        _, _, bursts = plan(dut, [run_of(8 * inside, 1)], 0, window=window)
        assert bursts == []


@pytest.mark.parametrize(
    ("burst", "most", "depth"), [(3, 16, 16), (0, 16, 16), (32, 16, 16), (512, 256, 1024)]
)
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_burst_is_checked(burst, most, depth):
    with pytest.raises(ValueError, match=f"^burst must be a power of two up to {most}, not"):
        BurstPlanner(8, burst, depth)
    gc.collect()


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_burst_is_within_a_page():
    with pytest.raises(ValueError, match=r"^burst must be a power of two up to 64, not 128$"):
        BurstPlanner(64, 128, 256)
    gc.collect()
