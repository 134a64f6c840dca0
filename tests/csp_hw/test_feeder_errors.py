# SPDX-License-Identifier: Apache-2.0
"""What stops the feeder, and that a reset is enough afterwards."""

import dataclasses

import pytest

from csp_algo.geometry import Geometry
from csp_hw.config import PRESETS
from csp_hw.feeder import Feeder, FeedError
from tests.csp_hw.bench import Source, between, plain, rng_of, simulate
from tests.csp_hw.feeder_bench import feed, make_pass, random_geometry, ring_bits_for, start

CONFIG = PRESETS["tiny_4x4"]
SMALL = Geometry(in_shape=(5, 6, 4), filters=1, kernel=(3, 3), padding=(1, 1, 1, 1))


def run_into_error(each, entries=None, *, cycles=5_000):
    """Feed a pass until it stops; give the error and all words that left."""
    dut = Feeder(each.schedule.config)
    sources = [
        Source(dut.i, each.words_in()),
        Source(dut.entries, each.entries() if entries is None else entries),
        Source(dut.positions, each.positions()),
    ]
    words = []
    code = None

    async def watcher(ctx):
        nonlocal code
        await start(ctx, dut, each)
        ctx.set(dut.tiles.ready, 1)
        ctx.set(dut.activations.ready, 1)
        quiet = 0
        while quiet < 200:
            _, _, valid, word, error, code = await ctx.tick().sample(
                dut.activations.valid, dut.activations.payload, dut.error, dut.error_code
            )
            assert bool(error) == (code != FeedError.NONE)
            if valid:
                words.append(plain(word))
            quiet = quiet + 1 if error and not valid else 0
        assert ctx.get(dut.busy)

    simulate(dut, watcher, background=[source.run for source in sources], cycles=cycles)
    return FeedError(code), words, [len(source.cycles) for source in sources]


@pytest.mark.parametrize("interleave", [0, 5, 255])
@pytest.mark.parametrize("good", [0, 1, 2])
def test_interleave(interleave, good):
    each = make_pass(rng_of(300, good), CONFIG, SMALL, density=1.0, tight=False)
    entries = each.entries()
    entries[good:] = [{"group": 7, "interleave": interleave}, {"group": 7, "interleave": 1}]
    each = dataclasses.replace(
        each, schedule=dataclasses.replace(each.schedule, tiles=each.schedule.tiles[: good + 2])
    )
    code, words, taken = run_into_error(each, entries)
    assert code is FeedError.INTERLEAVE
    assert words == each.words()[: len(words)]
    pixels = sum(entry["interleave"] for entry in entries[:good])
    expected = pixels * len(each.schedule.survivors)
    assert len(words) == expected
    assert taken[1] <= good + 2


@pytest.mark.parametrize("group", [0, 1, 2])
def test_order(group):
    each = make_pass(rng_of(301), CONFIG, SMALL, density=1.0, tight=False)
    entries = [{"group": 1, "interleave": 2}, {"group": group, "interleave": 1}]
    each = dataclasses.replace(
        each, schedule=dataclasses.replace(each.schedule, tiles=each.schedule.tiles[:2])
    )
    code, words, _ = run_into_error(each, entries)
    assert code is FeedError.ORDER
    assert len(words) == 2 * len(each.schedule.survivors)  # the first tile's


@pytest.mark.parametrize("seed", range(12))
def test_ring(seed):
    # Half of the smallest ring is too small for some tile; those before it come out right.
    rng = rng_of(302, seed)
    each = None
    while each is None or ring_bits_for(each.schedule)[0] == 0:
        geometry = random_geometry(rng, side=8)
        each = make_pass(rng, CONFIG, geometry, images=between(rng, 1, 2), density=0.5)
    each = dataclasses.replace(each, ring_bits=each.ring_bits - 1)
    code, words, _ = run_into_error(each)
    assert code is FeedError.RING
    expected = each.words()
    assert words == expected[: len(words)]
    assert len(words) < max(len(expected), 1)


def test_reset():
    rng = rng_of(303)
    passes = [make_pass(rng, CONFIG, SMALL, density=1.0) for _ in range(2)]

    async def prelude(ctx, dut):
        await start(ctx, dut, passes[0])
        ctx.set(dut.entries.payload, {"group": 0, "interleave": 4})
        ctx.set(dut.entries.valid, 1)
        ctx.set(dut.positions.valid, 1)
        ctx.set(dut.i.valid, 1)
        # The second of equal tiles is wrong.
        await ctx.tick().repeat(60)
        assert ctx.get(dut.error_code) == FeedError.ORDER
        for port in (dut.entries, dut.positions, dut.i):
            ctx.set(port.valid, 0)

    feed(CONFIG, passes, prelude=prelude)
