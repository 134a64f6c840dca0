# SPDX-License-Identifier: Apache-2.0
"""The performance counters against plain sums."""

import pytest

from csp_hw.config import PRESETS
from csp_hw.counters import (
    COUNTERS,
    CYCLES,
    MACS,
    REST,
    SATURATIONS,
    SPENT,
    WORDS,
    Counters,
    MacEvents,
    counters_layout,
)
from tests.csp_hw.bench import between, chance, pick, plain, play, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"]
EVENTS = [name for name in COUNTERS if name != REST]


def test_names():
    assert list(COUNTERS) == [CYCLES, *SPENT, *WORDS, SATURATIONS, *MACS]
    assert len(set(COUNTERS)) == len(COUNTERS) == 15
    assert [(field.offset, field.width) for _, field in counters_layout()] == [
        *((32 * n, 32) for n in range(13)),
        (13 * 32, 48),
        (13 * 32 + 48, 48),
    ]


def test_random_events_and_clears():
    dut = Counters(CONFIG)
    rng = rng_of(1)
    total = dict.fromkeys(COUNTERS, 0)

    async def bench(ctx):
        for cycle in range(300):
            events = {name: between(rng, 0, 1) for name in EVENTS}
            for name in (SATURATIONS, *MACS):
                events[name] = between(rng, 0, CONFIG.rows * CONFIG.cols)
            clear = cycle < 200 and chance(rng, 0.02)
            ctx.set(dut.events, events)
            ctx.set(dut.clear, clear)
            await ctx.tick()
            assert plain(ctx.get(dut.counters)) == total  # of the cycles before
            # What no event accounts for is the rest.
            events[REST] = events[CYCLES] and not any(events[name] for name in SPENT[:-1])
            for name in COUNTERS:
                # An event in the cycle of the clear belongs to nobody.
                total[name] = 0 if clear else total[name] + events[name]

    simulate(dut, bench)
    assert total[SATURATIONS] > 100


def test_each_event_has_its_own_counter():
    dut = Counters(CONFIG)

    async def bench(ctx):
        for name in EVENTS:
            ctx.set(dut.clear, 1)
            ctx.set(dut.events, dict.fromkeys(EVENTS, 0))
            await ctx.tick()
            ctx.set(dut.clear, 0)
            ctx.set(dut.events[name], 1)
            await ctx.tick().repeat(3)
            ctx.set(dut.events[name], 0)
            await ctx.tick()
            counts = (name, REST) if name == CYCLES else (name,)
            assert plain(ctx.get(dut.counters)) == {n: 3 * (n in counts) for n in COUNTERS}

    simulate(dut, bench)


def test_all_that_happens_in_a_cycle_is_counted():
    dut = Counters(CONFIG)

    async def bench(ctx):
        for name in (SATURATIONS, *MACS):
            ctx.set(dut.events[name], CONFIG.rows * CONFIG.cols)
        await ctx.tick().repeat(21)
        for name in (SATURATIONS, *MACS):
            assert ctx.get(dut.counters[name]) == 20 * CONFIG.rows * CONFIG.cols

    simulate(dut, bench)


def test_wraps():
    dut = Counters(CONFIG)

    async def bench(ctx):
        for name in (CYCLES, *MACS):
            ctx.set(dut.events[name], 1)
        await ctx.tick()
        for name in (CYCLES, *MACS):
            ctx.set(dut.counts[name], 2**32 - 1)
            ctx.set(dut.events[name], 0 if name == CYCLES else 4)
        await ctx.tick()
        assert ctx.get(dut.counters.cycles) == 0
        for name in MACS:
            assert ctx.get(dut.counters[name]) == 2**32
            ctx.set(dut.counts[name], 2**48 - 3)
        await ctx.tick()
        for name in MACS:
            assert ctx.get(dut.counters[name]) == 1

    simulate(dut, bench)


@pytest.mark.parametrize(("rows", "cols"), [(1, 4), (3, 12), (8, 8), (64, 64)])
def test_macs(rows, cols):
    rng = rng_of(rows, cols)
    lanes = (1 << rows) - 1
    latency = MacEvents.LATENCY
    for last_filters in (1, cols - 1, cols):
        steps = []
        for n in range(60):
            live = pick(rng, [0, lanes, between(rng, 0, (1 << min(rows, 62)) - 1)])
            zeros = pick(rng, [0, lanes, between(rng, 0, (1 << min(rows, 62)) - 1)])
            steps.append(
                {
                    "product": {
                        "valid": chance(rng, 0.8) and n < 60 - latency,
                        "live": live,
                        "last_chunk": between(rng, 0, 1),
                    },
                    "zeros": zeros,
                    "last_filters": last_filters,
                }
            )
        seen = play(MacEvents(CONFIG.replace(rows=rows, cols=cols)), steps, ["useful", "gated"])
        for n in range(60 - latency):
            product = steps[n]["product"]
            live = product["live"] * product["valid"]
            filters = last_filters if product["last_chunk"] else cols
            assert seen[n + latency] == {
                "useful": live.bit_count() * filters,
                "gated": (live & steps[n + 1]["zeros"]).bit_count() * filters,
            }
