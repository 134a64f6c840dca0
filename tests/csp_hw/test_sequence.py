# SPDX-License-Identifier: Apache-2.0
"""The layer sequencer: each layer gets its own tiles and counts, however early they come."""

import pytest

from csp_hw.config import CspConfig
from csp_hw.sequence import LayerSequencer
from tests.csp_hw.bench import Sink, Source, between, rng_of, simulate

CONFIG = CspConfig(rows=1, cols=4, depth=4, max_period=2, max_interleave=2, lookahead=4)


@pytest.mark.parametrize("gap", [0.0, 0.5])
@pytest.mark.parametrize("slow", ["layer", "tiles", "counts"])
def test_streams_are_cut_into_layers(gap, slow):
    rng = rng_of(int(10 * gap), len(slow))
    layers = [{"taps": between(rng, 1, 13), "tiles": between(rng, 1, 4)} for _ in range(8)]
    words = [n for n, layer in enumerate(layers) for _ in range(layer["tiles"])]
    sizes = [-(-layer["taps"] // 4) for layer in layers]
    beats = [n for n in words for _ in range(sizes[n])]
    lasts = [int(k == sizes[n] - 1) for n in words for k in range(sizes[n])]
    dut = LayerSequencer(CONFIG)
    # Each word carries its layer's number.
    tiles = [{"interleave": 1, "live": n % 4} for n in words]
    counts = [[n] * 4 for n in beats]
    gaps = {name: gap if name == slow else 0.0 for name in ("layer", "tiles", "counts")}
    sources = [
        Source(dut.layer, layers, gap=gaps["layer"], seed=1),
        Source(dut.tiles, tiles, gap=gaps["tiles"], seed=2),
        Source(dut.counts, counts, gap=gaps["counts"], seed=3),
    ]
    sinks = [
        Sink(dut.layer_tiles, len(tiles), gap=gap, seed=4),
        Sink(dut.layer_counts, len(counts), gap=gap, seed=5),
    ]

    async def stages(ctx):
        """Work on each tile until its counts are in; a word belongs to the layer at work."""
        current = -1
        seen = {"tiles": 0, "counts": 0}
        while True:
            due = words[: seen["tiles"]].count(current) < words.count(current)
            left = beats[: seen["counts"]].count(current) < beats.count(current)
            ctx.set(dut.working, left)
            _, _, taken, idle, is_due, tile, counted = await ctx.tick().sample(
                dut.taken,
                dut.idle,
                dut.due,
                dut.layer_tiles.valid & dut.layer_tiles.ready,
                dut.layer_counts.valid & dut.layer_counts.ready,
            )
            assert is_due == due
            assert idle == (not due and not left)
            assert not (taken and not idle)
            if tile:
                assert words[seen["tiles"]] == current
            if counted:
                assert beats[seen["counts"]] == current
            seen["tiles"] += tile
            seen["counts"] += counted
            current += taken

    simulate(dut, *(sink.run for sink in sinks), background=[s.run for s in sources] + [stages])
    ended = [{"counts": n, "last": last} for n, last in zip(counts, lasts, strict=True)]
    assert [sink.words for sink in sinks] == [tiles, ended]
