# SPDX-License-Identifier: Apache-2.0
"""The issuer against nested loops, with words that arrive and banks that drain at random."""

import dataclasses

import pytest

from csp_hw.config import PRESETS
from csp_hw.issue import PRODUCT_LATENCY, Issuer
from tests.csp_hw.bench import Source, between, chance, pick, plain, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"].replace(rows=2, depth=8, max_period=4, max_interleave=2)
STALLS = ("stalled_counts", "stalled_activations", "stalled_weights", "stalled_bank")


@dataclasses.dataclass
class Tile:
    """A tile's command and its blocks, each a list of counts; no block: nothing survives."""

    interleave: int
    live: int
    blocks: list


def random_tile(rng, config, chunks, *, interleave=None, density=0.8):
    interleave = interleave or between(rng, 1, min(config.max_interleave, config.depth // chunks))
    live = between(rng, 0, (1 << (interleave * config.rows)) - 1)
    blocks = []
    if chance(rng, density):
        for _ in range(between(rng, 1, 3)):
            length = between(rng, 1, config.max_period)
            blocks.append([between(rng, 1, chunks) for _ in range(length)])
    return Tile(interleave, live, blocks)


def ref_products(tiles, config, chunks):
    """Give every product of every tile, and each tile's end: chunk, pixel, tap, innermost last."""
    products, ends = [], []
    activations = weights = 0  # words of the streams before this block, this chunk
    half = 0
    for tile in tiles:
        half ^= 1
        overlaps = 2 * chunks * tile.interleave <= config.depth
        touched = set()
        for counts in tile.blocks:
            for chunk in range(max(counts)):
                run = [slot for slot, count in enumerate(counts) if count > chunk]
                for pixel in range(tile.interleave):
                    entry = chunk * tile.interleave + pixel
                    place = 2 * entry + half if overlaps else entry
                    for number, slot in enumerate(run):
                        last = number == len(run) - 1
                        products.append(
                            {
                                "activation": activations + pixel * len(counts) + slot,
                                "weight": weights + number,
                                "last": int(last),
                                "fresh": int(entry not in touched) if last else None,
                                "bank": place % 2,
                                "word": place // 2,
                                "last_chunk": int(chunk == chunks - 1),
                                "live": tile.live >> (pixel * config.rows)
                                & ((1 << config.rows) - 1),
                            }
                        )
                    touched.add(entry)
                weights += len(run)
            activations += tile.interleave * len(counts)
        assert touched == set(range(len(touched)))  # a prefix: the high-water mark says it all
        ends.append(
            {
                "products": len(products),
                "tile": {"interleave": tile.interleave, "live": tile.live},
                "touched": len(touched),
                "half": half,
                "overlaps": int(overlaps),
            }
        )
    return products, ends, activations, weights


class LateSource(Source):
    """A source that begins when the layer's constants have been there for two cycles."""

    async def run(self, ctx):
        await ctx.tick().repeat(2)
        self.cycle += 2
        await super().run(ctx)


class Run:
    """The issuer between two replay buffers that fill, and a drain that empties, at random."""

    def __init__(self, tiles, chunks, config=CONFIG, *, gap=0.0, drain=(1, 1), seed=0):
        self.config, self.tiles, self.chunks = config, tiles, chunks
        self.gap, self.drain_cycles = gap, drain
        self.rng = rng_of(seed, 3)
        words = config.row_words, config.run_words
        self.dut = dut = Issuer(config, *words)
        self.depth = dict(zip(("activations", "weights"), words, strict=True))
        self.products, self.ends, *sent = ref_products(tiles, config, chunks)
        self.left = dict(zip(self.depth, sent, strict=True))  # words that have not arrived
        blocks = []
        for tile in tiles:
            for number, counts in enumerate(tile.blocks or [[]]):
                padded = counts + [0] * (config.max_period - len(counts))
                end = number >= len(tile.blocks) - 1
                blocks.append({"counts": padded, "taps": len(counts), "end": int(end)})
        commands = [{"interleave": tile.interleave, "live": tile.live} for tile in tiles]
        self.sources = [
            LateSource(dut.blocks, blocks, gap=gap, seed=seed),
            LateSource(dut.tiles, commands, gap=gap, seed=seed + 1),
        ]
        self.issued_in = []  # cycles
        self.seen = []
        self.finished = []
        self.spent = dict.fromkeys(("issued", *STALLS, "nothing"), 0)

    async def bench(self, ctx):
        dut = self.dut
        ctx.set(dut.chunks, self.chunks)
        names = [*(f"{kind}_{what}" for kind in self.depth for what in ("offset", "release"))]
        names += ["issued", *STALLS, "finished_valid", "finished", "given", "open", "product"]
        ports = [getattr(dut, name) for name in names] + [dut.tiles.valid]
        kept = dict.fromkeys(self.depth, 0)
        known = dict.fromkeys(self.depth, 0)  # of those kept: not the one that has just come
        base = dict.fromkeys(self.depth, 0)
        draining = []  # (cycle in which it is done, tile)
        occupied = set()
        coming = PRODUCT_LATENCY * [None]
        cycle = quiet = 0
        while quiet < 12:
            for kind in self.depth:
                ctx.set(getattr(dut, f"{kind}_available"), kept[kind])
            drained = 0
            if draining and draining[0][0] <= cycle:
                tile = draining.pop(0)[1]
                drained = 1 << tile["half"] if tile["overlaps"] else 0b11
                occupied -= {half for half in (0, 1) if drained >> half & 1}
            ctx.set(dut.drained, drained)
            _, _, *values, tiles_valid = await ctx.tick().sample(*ports)
            at = dict(zip(names, map(plain, values), strict=True))

            # The product follows later; nothing else is valid.
            expected = coming.pop(0)
            assert at["product"]["valid"] == (expected is not None)
            if expected is not None:
                self.check(at["product"], expected)
            else:
                assert not at["product"]["last"]
            coming.append(self.take(at, kept, base) if at["issued"] else None)
            if at["issued"]:
                # No tile's bank is written before it was drained.
                assert coming[-1]["bank"] not in occupied
                self.issued_in.append(cycle)
            self.account(at, known, tiles_valid)
            if at["finished_valid"]:  # of the cycle before
                end = {"products": len(self.seen) - at["issued"], **at["finished"]}
                self.finished.append(end)
                occupied |= {end["half"]} if end["overlaps"] else {0, 1}
                after = max([cycle, *(done for done, _ in draining)])
                draining.append((after + between(self.rng, *self.drain_cycles), end))
            for kind in self.depth:
                release = at[f"{kind}_release"]
                assert release <= kept[kind]
                base[kind] += release
                kept[kind] -= release
                known[kind] = kept[kind]
                if self.left[kind] and kept[kind] < self.depth[kind] and self.arrives():
                    kept[kind] += 1
                    self.left[kind] -= 1
            cycle += 1
            quiet = quiet + 1 if len(self.finished) == len(self.ends) else 0
        assert not at["open"]
        assert kept == {"activations": 0, "weights": 0}, "words were left"

    def arrives(self):
        return not chance(self.rng, self.gap)

    def take(self, at, kept, base):
        """Compare the words that are read with the product that is due."""
        assert len(self.seen) < len(self.products), "a product too many"
        expected = self.products[len(self.seen)]
        for kind, name in (("activations", "activation"), ("weights", "weight")):
            offset = at[f"{kind}_offset"]
            assert offset < kept[kind], f"reads {kind} that are not there"
            assert base[kind] + offset == expected[name], f"product {len(self.seen)}"
        self.seen.append(expected)
        return expected

    def check(self, product, expected):
        for name in ("last", "bank", "word", "last_chunk", "live", "fresh"):
            if expected[name] is not None:
                assert product[name] == expected[name], f"{name} of product {len(self.seen) - 1}"

    def account(self, at, known, tiles_valid):
        """Check that every cycle with something to do is spent on one thing, for a reason."""
        reasons = [name for name in ("issued", *STALLS) if at[name]]
        assert len(reasons) == (1 if at["open"] or at["given"] or tiles_valid else 0)
        self.spent[reasons[0] if reasons else "nothing"] += 1
        if at["stalled_activations"]:
            assert at["activations_offset"] >= known["activations"]
        if at["stalled_weights"]:
            assert at["activations_offset"] < known["activations"]
            assert at["weights_offset"] >= known["weights"]
        if at["stalled_bank"]:
            assert not at["open"]

    def play(self):
        simulate(self.dut, self.bench, background=[source.run for source in self.sources])
        assert len(self.seen) == len(self.products)
        assert self.finished == self.ends
        return self

    @property
    def bubbles(self):
        """Cycles between the first and the last product in which none was issued."""
        return self.issued_in[-1] - self.issued_in[0] + 1 - len(self.issued_in)


@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("gap", "drain"), [(0.0, (1, 1)), (0.4, (1, 20)), (0.0, (15, 40))])
def test_random(chunks, gap, drain):
    rng = rng_of(chunks)
    tiles = [random_tile(rng, CONFIG, chunks) for _ in range(7)]
    Run(tiles, chunks, gap=gap, drain=drain, seed=chunks).play()


@pytest.mark.parametrize("seed", range(4))
def test_random_configurations(seed):
    rng = rng_of(seed, 8)
    config = CONFIG.replace(
        rows=between(rng, 1, 3),
        depth=pick(rng, [4, 16]),
        max_period=pick(rng, [1, 2, 8]),
        max_interleave=pick(rng, [1, 4]),
        row_blocks=2,
    )
    chunks = between(rng, 1, 4)
    tiles = [random_tile(rng, config, chunks) for _ in range(8)]
    Run(tiles, chunks, config, gap=pick(rng, [0.0, 0.3]), drain=(1, 8), seed=seed).play()


def test_smallest():
    config = CONFIG.replace(rows=1, depth=4, max_period=1, max_interleave=1, row_blocks=2)
    rng = rng_of(1)
    for chunks in (1, 2, 3, 4):
        tiles = [Tile(1, n & 1, [[between(rng, 1, chunks)] for _ in range(3)]) for n in range(5)]
        Run(tiles, chunks, config).play()


def test_no_bubble_across_taps_chunks_blocks_and_tiles():
    # Everything is there and the drain is fast: products in every cycle from first to last.
    for interleave, chunks in [(1, 1), (2, 2), (1, 4)]:
        blocks = [[1, chunks, 1], [chunks], [1] * 4, [1], [chunks, chunks]]
        tiles = [Tile(interleave, 3, blocks) for _ in range(4)]
        run = Run(tiles, chunks)
        # The buffers are filled before the first tile is asked for.
        run.sources.pop()
        late = Source(run.dut.tiles, [{"interleave": interleave, "live": 3}] * 4)

        async def command(ctx, late=late):
            for _ in range(40):
                await ctx.tick()
            await late.run(ctx)

        simulate(run.dut, run.bench, background=[run.sources[0].run, command])
        assert run.finished == run.ends
        assert run.bubbles == 0
        assert run.spent["issued"] == len(run.products)
        assert run.spent["stalled_activations"] == run.spent["stalled_weights"] == 0
        assert run.spent["stalled_bank"] == 0
        assert (
            run.spent["stalled_counts"] == 3
        )  # the command comes, finds a place, and loads a block


def test_a_tile_waits_for_its_half_only():
    # The drain takes long: the second tile does not wait, the third waits for the first.
    tiles = [Tile(1, 3, [[1, 1]]) for _ in range(3)]
    run = Run(tiles, 2, drain=(30, 30)).play()
    first, *_, third_tile, _ = run.issued_in
    assert run.issued_in[:4] == list(range(first, first + 4))
    assert third_tile > first + 30
    assert run.spent["stalled_bank"] >= 25


def test_a_tile_that_needs_both_halves_waits_for_all():
    tiles = [
        Tile(1, 3, [[2, 1]]),  # half 1
        Tile(1, 3, [[2, 1]]),  # half 0
        Tile(2, 15, [[3, 1]]),  # 3 · 2 entries of 8: both halves
        Tile(1, 3, [[1]]),  # fits a half again, but both are taken
        Tile(2, 9, [[1]]),
    ]
    run = Run(tiles, 3, drain=(12, 12))
    assert [end["overlaps"] for end in run.ends] == [1, 1, 0, 1, 0]
    run.play()
    assert run.bubbles >= 3 * 10


def test_tiles_without_survivors_cost_one_cycle():
    tiles = [Tile(1, 3, []) for _ in range(6)] + [Tile(1, 3, [[1]])]
    run = Run(tiles, 1, CONFIG, drain=(1, 1)).play()
    assert [end["touched"] for end in run.finished] == [0] * 6 + [1]
    # Two more each to wait for the half of the tile before the last.
    assert run.issued_in[0] <= 2 + 3 * 6


def test_all_of_the_accumulation_buffer():
    # K · I = depth: the last entry is touched, and the mark still fits.
    tiles = [Tile(2, 15, [[4, 4, 4, 4]]), Tile(2, 15, [[4]]), Tile(2, 15, [[4, 1]])]
    run = Run(tiles, 4).play()
    assert [end["touched"] for end in run.finished] == [8, 8, 8]
    assert not any(end["overlaps"] for end in run.finished)
