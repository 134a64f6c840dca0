# SPDX-License-Identifier: Apache-2.0
"""The replay store against lists."""

import gc

import pytest
from amaranth import signed
from amaranth.lib import data

from csp_hw.store import CREDITS, ReplayStore
from tests.csp_hw.bench import Sink, Source, between, chance, pick, rng_of, simulate


@pytest.mark.parametrize("depth", [-2, 0, 1, 3, 6])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_depth(depth):
    message = f"^depth must be a power of two, at least 2, not {depth}$"
    with pytest.raises(ValueError, match=message):
        ReplayStore(8, depth)
    gc.collect()  # what was refused is never elaborated, and says so when it goes


def taken(words, replays, resident):
    """Give how many words a pass takes."""
    if not words or not replays:
        return 0
    return words if resident else words * replays


def put(sent, replays, resident):
    """Give what a pass puts out of what it took."""
    return sent * replays if resident else sent


def check(dut, passes, *, gaps=(0.0, 0.0), seed=0):
    """Run passes of (words, replays, resident), one after the other.

    The words of all passes are on offer from the beginning: taking one too many shows in the next
    pass. Gives the source, the sink and, for each pass, the cycles of ``start`` and of the first
    one without ``busy``.
    """
    rng = rng_of(seed, 3)
    sent, wanted = [], []
    for number, one in enumerate(passes):
        words = [(17 * number + n) % 256 for n in range(taken(*one))]
        sent += words
        wanted += put(words, *one[1:])
    source = Source(dut.i, sent, gap=gaps[0], seed=seed)
    sink = Sink(dut.o, len(wanted), gap=gaps[1], seed=seed)
    times = []

    async def control(ctx):
        cycle = owed = 0
        for one in passes:
            for name, value in zip(("words", "replays", "resident"), one, strict=True):
                ctx.set(getattr(dut, name), value)
            ctx.set(dut.start, 1)
            begun, busy = cycle, True
            owed += len(put([0] * taken(*one), *one[1:]))
            while busy:
                await ctx.tick()
                cycle += 1
                ctx.set(dut.start, 0)
                # What was asked for in the cycle of `start` counts.
                for name, width in (("words", 24), ("replays", 24), ("resident", 1)):
                    ctx.set(getattr(dut, name), between(rng, 0, (1 << width) - 1))
                busy = ctx.get(dut.busy)
            assert len(sink.words) == owed, "busy fell too early"
            times.append((begun, cycle))
            while chance(rng, 0.5):  # nothing is taken between passes
                await ctx.tick()
                cycle += 1

    simulate(dut, sink.run, control, background=[source.run])
    assert sink.words == wanted
    assert len(source.cycles) == len(sent)
    return source, sink, times


@pytest.mark.parametrize("depth", [2, 4, 16])
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4)])
def test_random(depth, gaps):
    rng = rng_of(depth, *(int(10 * gap) for gap in gaps))
    passes = []
    for _ in range(12):
        resident = chance(rng, 0.5)
        limit = depth if resident else 3 * depth
        words = pick(rng, [1, depth, limit, between(rng, 0, limit)])
        passes.append((words, between(rng, 0, 6), int(resident)))
    check(ReplayStore(8, depth), passes, gaps=gaps, seed=depth)


@pytest.mark.parametrize("words", [1, 2, 3, 7, 8])
def test_resident_words_leave_without_a_gap(words):
    replays = 50 // words
    source, sink, times = check(ReplayStore(8, 8), [(words, replays, 1)])
    first = 1 + ReplayStore.LATENCY
    assert source.cycles == list(range(1, 1 + words))
    assert sink.cycles == list(range(first, first + words * replays))
    assert times == [(0, first + words * replays)]


@pytest.mark.parametrize("depth", [2, 8])
@pytest.mark.parametrize("words", [1, 3, 20])
def test_a_queue_moves_a_word_a_cycle(depth, words):
    replays = 60 // words
    source, sink, _ = check(ReplayStore(8, depth), [(words, replays, 0)])
    assert source.cycles == list(range(1, 61))
    assert sink.cycles == [cycle + ReplayStore.LATENCY for cycle in source.cycles]


def test_a_stalled_queue_is_full():
    dut = ReplayStore(8, 16)
    source = Source(dut.i, list(range(100)))

    async def control(ctx):
        ctx.set(dut.words, 100)
        ctx.set(dut.replays, 1)
        await ctx.tick()
        assert not ctx.get(dut.busy)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick().repeat(60)
        assert len(source.cycles) == 16 + CREDITS
        assert ctx.get(dut.o.payload) == 0
        assert ctx.get(dut.busy)

    simulate(dut, control, background=[source.run])


def test_first_replay_begins_before_the_last_word_came():
    dut = ReplayStore(8, 16)
    source, sink, _ = check(dut, [(16, 3, 1)], gaps=(0.7, 0.0))
    assert sink.cycles[0] == source.cycles[0] + ReplayStore.LATENCY
    assert sink.cycles[15] == source.cycles[15] + ReplayStore.LATENCY
    assert sink.cycles[15:] == list(range(sink.cycles[15], sink.cycles[15] + 33))


@pytest.mark.parametrize("one", [(0, 5, 0), (0, 5, 1), (5, 0, 0), (5, 0, 1), (0, 0, 0)])
def test_nothing_to_do(one):
    _, sink, times = check(ReplayStore(8, 8), [one, (2, 2, 1), one])
    assert sink.words == [17, 18] * 2
    for begun, idle in (times[0], times[2]):
        assert idle == begun + 1  # never busy


def test_largest_numbers():
    """All 24 bits count: what is left is what was asked for."""
    for resident in (0, 1):
        dut = ReplayStore(8, 4)

        async def control(ctx, dut=dut, resident=resident):
            words, replays = (3, 2**24 - 1) if resident else (2**24 - 1, 2**24 - 1)
            ctx.set(dut.words, words)
            ctx.set(dut.replays, replays)
            ctx.set(dut.resident, resident)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.o.ready, 1)
            await ctx.tick().repeat(300)
            assert ctx.get(dut.busy)
            assert ctx.get(dut.o.valid)
            assert ctx.get(dut.i.ready) == (not resident)

        simulate(dut, control)


def test_structured_words():
    shape = data.ArrayLayout(signed(8), 2)
    dut = ReplayStore(shape, 4)
    sent = [[-1, 5], [127, -128], [0, 3]]
    source = Source(dut.i, sent)
    sink = Sink(dut.o, 6)

    async def control(ctx):
        for name, value in (("words", 3), ("replays", 2), ("resident", 1), ("start", 1)):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await source.run(ctx)

    simulate(dut, sink.run, control)
    assert sink.words == sent * 2
