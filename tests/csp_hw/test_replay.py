# SPDX-License-Identifier: Apache-2.0
"""The replay buffer against a list."""

import gc

import pytest

from csp_hw.replay import ReplayBuffer
from tests.csp_hw.bench import Source, between, chance, rng_of, simulate


@pytest.mark.parametrize("depth", [-2, 0, 1, 3, 6])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_depth(depth):
    with pytest.raises(ValueError, match=f"^depth must be a power of two, not {depth}$"):
        ReplayBuffer(8, depth)
    gc.collect()  # what was refused is never elaborated, and says so when it goes


def check(depth, *, gap, keep, words=70, seed=0):
    """Read at random and release at random; ``keep`` is the chance to release nothing."""
    dut = ReplayBuffer(8, depth)
    rng = rng_of(seed, depth)
    sent = [between(rng, 0, 255) for _ in range(words)]
    assert len(dut.release) == depth.bit_length()  # all words at once
    source = Source(dut.i, sent, gap=gap, seed=seed)
    most = 0

    async def reader(ctx):
        nonlocal most
        base = kept = 0  # words released so far; words kept now
        due = None  # the word whose offset was given a cycle before
        while base < words:
            offset = release = 0
            if kept:
                offset = between(rng, 0, kept - 1)
                release = 0 if chance(rng, keep) else between(rng, 0, kept)
            ctx.set(dut.offset, offset)
            ctx.set(dut.release, release)
            _, _, valid, ready, available = await ctx.tick().sample(
                dut.i.valid, dut.i.ready, dut.available
            )
            assert available == kept
            assert ready == (kept < depth)
            if due is not None:
                assert ctx.get(dut.data) == due
            due = sent[base + offset] if kept else None
            most = max(most, kept)
            base += release
            kept += (valid & ready) - release
        ctx.set(dut.release, 0)
        assert len(source.cycles) == words

    simulate(dut, reader, background=[source.run])
    return source, most


@pytest.mark.parametrize("depth", [2, 4, 16])
@pytest.mark.parametrize("gap", [0.0, 0.6])
@pytest.mark.parametrize("keep", [0.0, 0.8])
def test_random(depth, gap, keep):
    _, most = check(depth, gap=gap, keep=keep)
    if keep and not gap:
        assert most == depth, "the buffer was never full"


def test_one_word_a_cycle():
    # One word in and one out in every cycle, with any number of words kept.
    depth = 4
    for kept in (1, 2, 3):
        dut = ReplayBuffer(8, depth)
        source = Source(dut.i, list(range(40)))

        async def reader(ctx, dut=dut, kept=kept):
            await ctx.tick().repeat(kept)
            ctx.set(dut.release, 1)
            await ctx.tick()
            for word in range(40):
                ctx.set(dut.release, word < 39)
                await ctx.tick()
                assert ctx.get(dut.data) == word
            assert ctx.get(dut.available) == 0

        simulate(dut, reader, background=[source.run])
        assert source.cycles == list(range(40))


def test_full_buffer_released_at_once():
    dut = ReplayBuffer(8, 4)
    source = Source(dut.i, list(range(8)))

    async def reader(ctx):
        for base in (0, 4):
            await ctx.tick().repeat(6)
            assert ctx.get(dut.available) == 4
            for offset in (3, 0, 2, 1, 1):  # again and again, in any order
                ctx.set(dut.offset, offset)
                await ctx.tick().repeat(2)
                assert ctx.get(dut.data) == base + offset
            ctx.set(dut.release, 4)
            await ctx.tick()
            ctx.set(dut.release, 0)
            assert ctx.get(dut.available) == 0
            assert ctx.get(dut.i.ready)

    simulate(dut, reader, background=[source.run])
