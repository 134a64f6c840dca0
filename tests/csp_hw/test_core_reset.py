# SPDX-License-Identifier: Apache-2.0
"""Resets of the cores: nothing is transferred during one, and nothing that comes early is lost."""

import pytest
from amaranth import ClockDomain, Module, ResetSignal, Signal

from csp_hw.axi.packet_reader import DEPTH
from csp_hw.config import PRESETS
from csp_hw.core import MAP_PORT, RESULT_PORT, TABLE_PORT, Core
from csp_hw.stream_core import RESULTS, STREAMS, StreamCore
from tests.csp_hw.bench import simulate

CONFIG = PRESETS["tiny_4x4"]
PORTS = (TABLE_PORT, MAP_PORT, RESULT_PORT)
#: What the core lets go out, and what it takes.
FLAGS = {
    Core: [
        *(f"{port}_{name}" for port in PORTS for name in ("arvalid", "rready")),
        *(f"{RESULT_PORT}_{name}" for name in ("awvalid", "wvalid", "bready")),
    ],
    StreamCore: [f"{RESULTS}_tvalid", *(f"{prefix}_tready" for prefix in STREAMS.values())],
}


def with_reset(dut):
    """Give a module with a block in it, and the block's reset."""
    m, reset = Module(), Signal()
    m.domains.sync = ClockDomain()
    m.d.comb += ResetSignal().eq(reset)
    m.submodules.dut = dut
    return m, reset


@pytest.mark.parametrize("top", FLAGS)
def test_nothing_moves_in_a_reset(top):
    dut = top(CONFIG)
    flags = [getattr(dut, name) for name in FLAGS[top]]
    whole, reset = with_reset(dut)

    async def bench(ctx):
        for cycles in (1, 2, 5):
            await ctx.tick().repeat(20)
            assert any(ctx.get(flag) for flag in flags)
            ctx.set(reset, 1)
            for _ in range(cycles):
                assert not any(ctx.get(flag) for flag in flags)
                await ctx.tick()
            ctx.set(reset, 0)
            # The ports leave it later.
            assert not any(ctx.get(flag) for flag in flags)

    simulate(whole, bench)


def test_beats_that_come_at_once_are_kept():
    dut = StreamCore(CONFIG)
    prefix = STREAMS["weights"]
    valid, ready = (getattr(dut, f"{prefix}_t{name}") for name in ("valid", "ready"))
    whole, reset = with_reset(dut)

    async def bench(ctx):
        await ctx.tick().repeat(20)
        ctx.set(valid, 1)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        taken = 0
        for _ in range(40):
            _, _, takes = await ctx.tick().sample(ready)
            taken += takes
        # As many as there are places: what was taken in a reset would be forgotten.
        assert taken == DEPTH + 2

    simulate(whole, bench)
