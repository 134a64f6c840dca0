# SPDX-License-Identifier: Apache-2.0
"""The drain in front of a pretended array that answers every request after its latency."""

import dataclasses

import pytest

from csp_hw.array import Array
from csp_hw.config import PRESETS
from csp_hw.drain import Drain
from csp_hw.issue import PRODUCT_LATENCY
from tests.csp_hw.bench import Sink, between, chance, plain, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"].replace(rows=2, depth=8, max_interleave=4)


@dataclasses.dataclass
class Tile:
    """A computed tile, as the issuer hands it on."""

    interleave: int
    live: int
    touched: int
    half: int
    overlaps: bool

    def payload(self):
        return {
            "tile": {"interleave": self.interleave, "live": self.live},
            "touched": self.touched,
            "half": self.half,
            "overlaps": int(self.overlaps),
        }


def stored(config, row, bank, address):
    """Give what the pretended array holds: another number in each place, never zero."""
    number = 1 + address + config.half_depth * (bank + 2 * row)
    return [number * 4 + col - 100 for col in range(config.cols)]


def ref_words(tile, config, chunks):
    """Give a tile's requests and words: pixel, row, chunk, innermost last."""
    requests, words = [], []
    for pixel in range(tile.interleave):
        for row in range(config.rows):
            for chunk in range(chunks):
                entry = chunk * tile.interleave + pixel
                place = 2 * entry + tile.half if tile.overlaps else entry
                requests.append({"row": row, "bank": place % 2, "address": place // 2})
                acc = stored(config, row, place % 2, place // 2)
                words.append(
                    {
                        "acc": acc if entry < tile.touched else [0] * config.cols,
                        "chunk": chunk,
                        "live": tile.live >> (pixel * config.rows + row) & 1,
                    }
                )
    return requests, words


def random_tiles(rng, config, chunks, count):
    tiles = []
    for number in range(count):
        interleave = between(rng, 1, min(config.max_interleave, config.depth // chunks))
        tiles.append(
            Tile(
                interleave=interleave,
                live=between(rng, 0, (1 << (interleave * config.rows)) - 1),
                touched=between(rng, 0, chunks * interleave),
                half=(number + 1) % 2,
                overlaps=2 * chunks * interleave <= config.depth,
            )
        )
    return tiles


class Run:
    """The drain between an issuer that keeps the rules, an array, and a sink with gaps."""

    def __init__(self, tiles, chunks, config=CONFIG, *, pause=0.0, gap=0.0, seed=0):
        self.config, self.tiles, self.chunks, self.pause = config, tiles, chunks, pause
        self.rng = rng_of(seed, 4)
        self.dut = Drain(config)
        expected = [ref_words(tile, config, chunks) for tile in tiles]
        self.requests = [request for requests, _ in expected for request in requests]
        self.words = [word for _, words in expected for word in words]
        self.lengths = [len(words) for _, words in expected]
        self.sink = Sink(self.dut.o, len(self.words), gap=gap, seed=seed)
        self.finished_in = []
        self.drained_in = []
        self.asked_in = []

    async def bench(self, ctx):
        dut, config = self.dut, self.config
        ctx.set(dut.chunks, self.chunks)
        # A cycle's sums were asked for `latency` cycles ago; otherwise they are nonsense.
        answers = [None] * Array.drain_latency(config)
        occupied = set()
        cycle = 0
        waiting = list(self.tiles)
        drained = []
        while cycle < 12 or self.busy_due(cycle) or waiting:
            needs = set()
            if waiting:
                needs = {waiting[0].half} if waiting[0].overlaps else {0, 1}
            finishes = bool(waiting) and not needs & occupied and not chance(self.rng, self.pause)
            ctx.set(dut.finished_valid, finishes)
            if finishes:
                ctx.set(dut.finished, waiting.pop(0).payload())
                occupied |= needs
                self.finished_in.append(cycle)
            else:
                ctx.set(dut.finished, Tile(1, 3, 0, 0, True).payload())
            request = answers.pop(0)
            ctx.set(dut.sums, [77] * config.cols if request is None else stored(config, **request))
            _, _, asked, done, busy = await ctx.tick().sample(dut.request, dut.drained, dut.busy)
            asked = plain(asked)
            answers.append(None)
            if asked.pop("valid"):
                assert len(self.asked_in) < len(self.requests), "a request too many"
                assert asked == self.requests[len(self.asked_in)]
                self.asked_in.append(cycle)
                answers[-1] = asked
            if done:
                tile = self.tiles[len(drained)]
                assert done == (1 << tile.half if tile.overlaps else 0b11)
                drained.append(tile)
                self.drained_in.append(cycle)
                occupied -= {0, 1} if done == 3 else {tile.half}
            # Busy from a tile's end until two cycles after its last word has left.
            assert busy == self.busy_due(cycle), f"cycle {cycle}"
            cycle += 1
        assert len(drained) == len(self.tiles)

    def busy_due(self, cycle):
        begun = sum(at <= cycle for at in self.finished_in)
        left = sum(at + 2 < cycle for at in self.sink.cycles)
        return left < sum(self.lengths[:begun])

    def play(self):
        simulate(self.dut, self.bench, self.sink.run)
        assert self.sink.words == self.words
        assert len(self.asked_in) == len(self.requests)
        # Each tile's first request keeps its distance: the product enters the array as it is
        # `finished`. A half is free from the cycle in which its last word is asked for.
        start = 0
        for number, length in enumerate(self.lengths):
            asked = self.asked_in[start : start + length]
            assert asked[0] >= self.finished_in[number] + PRODUCT_LATENCY + Array.DRAIN_DISTANCE - 1
            assert self.drained_in[number] == asked[-1] - 1
            start += length
        return self


@pytest.mark.parametrize("chunks", [1, 3, 4, 8])
@pytest.mark.parametrize(("pause", "gap"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.6), (0.9, 0.3)])
def test_random(chunks, pause, gap):
    tiles = random_tiles(rng_of(chunks), CONFIG, chunks, 6)
    Run(tiles, chunks, pause=pause, gap=gap, seed=chunks).play()


@pytest.mark.parametrize("rows", [1, 3])
def test_smallest(rows):
    config = CONFIG.replace(rows=rows, depth=4, max_interleave=1)
    for chunks in (1, 2, 4):
        tiles = random_tiles(rng_of(chunks, rows), config, chunks, 6)
        Run(tiles, chunks, config, gap=0.3).play()


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_one_word_a_cycle_also_across_tiles(chunks):
    # Two tiles are always waiting; nothing holds the words back.
    tiles = [Tile(4 // chunks, -1 & 0xFF, 4, n % 2, overlaps=True) for n in range(1, 7)]
    for tile in tiles:
        tile.live &= (1 << (tile.interleave * CONFIG.rows)) - 1
    run = Run(tiles, chunks).play()
    assert run.asked_in[0] == run.finished_in[0] + PRODUCT_LATENCY + Array.DRAIN_DISTANCE - 1
    count = len(run.words)
    assert count == 6 * 8
    assert run.asked_in == list(range(run.asked_in[0], run.asked_in[0] + count))
    assert run.sink.cycles == list(range(run.sink.cycles[0], run.sink.cycles[0] + count))


def test_stale_entries_read_as_zero():
    # Nothing touched, half touched, all touched; in one half and in both.
    for overlaps, interleave in ((True, 2), (False, 4)):
        tiles = [
            Tile(interleave, (1 << (2 * interleave)) - 1, touched, half, overlaps)
            for half, touched in enumerate((0, 1, 2 * interleave - 1, 2 * interleave, 0))
        ]
        for number, tile in enumerate(tiles):
            tile.half = number % 2
        run = Run(tiles, 2).play()
        zeros = sum(word["acc"] == [0] * 4 for word in run.sink.words)
        assert zeros == CONFIG.rows * sum(2 * interleave - tile.touched for tile in tiles)


def test_a_blocked_output_stops_the_requests_in_time():
    # The array cannot wait: what is asked for must fit the queue.
    config = CONFIG.replace(rows=2, depth=32)
    tile = Tile(2, 15, 32, 0, overlaps=False)
    dut = Drain(config)
    asked = 0

    async def blocked(ctx):
        nonlocal asked
        ctx.set(dut.chunks, 16)
        ctx.set(dut.finished, tile.payload())
        for cycle in range(150):
            ctx.set(dut.finished_valid, cycle == 1)
            _, _, request = await ctx.tick().sample(dut.request)
            asked += plain(request)["valid"]
        assert ctx.get(dut.busy)
        assert ctx.get(dut.o.valid)

    simulate(dut, blocked)
    assert asked == dut.queue_depth < 64
