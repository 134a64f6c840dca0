# SPDX-License-Identifier: Apache-2.0
"""The buffer behind a pipeline that cannot stall: order, time and room."""

import gc

import pytest

from csp_hw.buffer import ResultBuffer
from tests.csp_hw.bench import Sink, chance, rng_of, simulate

DEPTH = 4


def run(gap, share, *, words=60, seed=0):
    """Write words while they have a place; give the cycles of the writes and the sink."""
    dut = ResultBuffer(8, DEPTH)
    sink = Sink(dut.o, words, gap=gap, seed=seed)
    rng = rng_of(seed, 9)
    cycles = []

    async def writer(ctx):
        cycle = 0
        while len(cycles) < words:
            # A transfer gives its place back in the next cycle.
            inside = len(cycles) - sum(taken < cycle for taken in sink.cycles)
            writes = inside < DEPTH and chance(rng, share)
            ctx.set(dut.write, writes)
            ctx.set(dut.data, len(cycles))
            await ctx.tick()
            cycles.extend([cycle] * writes)
            cycle += 1
        ctx.set(dut.write, 0)

    simulate(dut, sink.run, background=[writer])
    assert sink.words == list(range(words))
    return cycles, sink.cycles


@pytest.mark.parametrize("gap", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_words_leave_in_order(gap, share):
    run(gap, share, seed=int(10 * gap))


def test_one_word_a_cycle():
    written, taken = run(0.0, 1.0)
    assert written == list(range(60))
    assert taken == [cycle + 2 for cycle in written]


@pytest.mark.parametrize("depth", [0, 1, 12])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_depth(depth):
    with pytest.raises(ValueError, match=f"^depth must be a power of two, not {depth}$"):
        ResultBuffer(8, depth)
    gc.collect()  # what was refused is never elaborated, and says so when it goes
