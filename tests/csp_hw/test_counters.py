# SPDX-License-Identifier: Apache-2.0
"""The performance counters against plain sums."""

from csp_hw.config import PRESETS
from csp_hw.counters import COUNTERS, CYCLES, SATURATIONS, SPENT, WORDS, Counters, counters_layout
from tests.csp_hw.bench import between, chance, plain, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"]


def test_names():
    assert list(COUNTERS) == [CYCLES, *SPENT, *WORDS, SATURATIONS]
    assert len(set(COUNTERS)) == len(COUNTERS) == 13
    assert [(field.offset, field.width) for _, field in counters_layout()] == [
        (32 * n, 32) for n in range(13)
    ]


def test_random_events_and_clears():
    dut = Counters(CONFIG)
    rng = rng_of(1)
    total = dict.fromkeys(COUNTERS, 0)

    async def bench(ctx):
        for _ in range(300):
            events = {name: between(rng, 0, 1) for name in COUNTERS}
            events[SATURATIONS] = between(rng, 0, CONFIG.rows * CONFIG.cols)
            clear = chance(rng, 0.02)
            ctx.set(dut.events, events)
            ctx.set(dut.clear, clear)
            await ctx.tick()
            for name in COUNTERS:
                # An event in the cycle of the clear belongs to nobody.
                total[name] = 0 if clear else total[name] + events[name]
            assert plain(ctx.get(dut.counters)) == total

    simulate(dut, bench)
    assert total[SATURATIONS] > 100


def test_each_event_has_its_own_counter():
    dut = Counters(CONFIG)

    async def bench(ctx):
        for name in COUNTERS:
            ctx.set(dut.clear, 1)
            ctx.set(dut.events, dict.fromkeys(COUNTERS, 0))
            await ctx.tick()
            ctx.set(dut.clear, 0)
            ctx.set(dut.events[name], 1)
            await ctx.tick().repeat(3)
            assert plain(ctx.get(dut.counters)) == {n: 3 * (n == name) for n in COUNTERS}

    simulate(dut, bench)


def test_all_saturations_of_a_cycle_are_counted():
    dut = Counters(CONFIG)

    async def bench(ctx):
        ctx.set(dut.events[SATURATIONS], CONFIG.rows * CONFIG.cols)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.counters[SATURATIONS]) == 20 * CONFIG.rows * CONFIG.cols

    simulate(dut, bench)


def test_wraps():
    dut = Counters(CONFIG)

    async def bench(ctx):
        ctx.set(dut.counters.cycles, 2**32 - 1)
        ctx.set(dut.events.cycles, 1)
        await ctx.tick()
        assert ctx.get(dut.counters.cycles) == 0

    simulate(dut, bench)
