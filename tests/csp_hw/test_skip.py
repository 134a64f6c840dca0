# SPDX-License-Identifier: Apache-2.0
"""The skip controller and its two halves against plain loops over the counts."""

import pytest

from csp_hw.config import PRESETS
from csp_hw.skip import Assembler, Scanner, SkipController
from tests.csp_hw.bench import Source, between, chance, pass_through, pick, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"]
DENSITIES = [0.0, 0.05, 0.3, 0.7, 1.0]
GAPS = [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4)]


def random_counts(rng, taps, density):
    return [pick(rng, [1, 2, 255]) if chance(rng, density) else 0 for _ in range(taps)]


def words_of(tile, lookahead):
    """Give the words of a tile's counts, the last one padded with zeros."""
    padded = [*tile, *[0] * (-len(tile) % lookahead)]
    return [padded[n : n + lookahead] for n in range(0, len(padded), lookahead)]


def ref_survivors(tile):
    survivors = [count for count in tile if count] or [0]
    return [
        {"count": count, "end": int(n == len(survivors) - 1)} for n, count in enumerate(survivors)
    ]


def ref_blocks(tile, period, slots):
    survivors = [count for count in tile if count]
    blocks = [survivors[n : n + period] for n in range(0, len(survivors), period)] or [[]]
    return [
        {
            "counts": block + [0] * (slots - len(block)),
            "taps": len(block),
            "end": int(n == len(blocks) - 1),
        }
        for n, block in enumerate(blocks)
    ]


def scan(tiles, lookahead, *, gaps=(0.0, 0.0), seed=0):
    """Compare the scanner with the reference; give the cycles of its input and output."""
    dut = Scanner(CONFIG.replace(lookahead=lookahead))
    words = [word for tile in tiles for word in words_of(tile, lookahead)]
    expected = [survivor for tile in tiles for survivor in ref_survivors(tile)]
    source, sink = pass_through(
        dut,
        dut.i,
        words,
        dut.o,
        len(expected),
        gaps=gaps,
        seed=seed,
        constants={"taps": len(tiles[0])},
    )
    assert sink.words == expected
    assert len(source.cycles) == len(words)
    return words, source.cycles, sink.cycles


@pytest.mark.parametrize("lookahead", [1, 2, 4, 16])
@pytest.mark.parametrize("gaps", GAPS)
def test_scanner(lookahead, gaps):
    rng = rng_of(lookahead)
    for taps in (1, lookahead, lookahead + 1, 3 * lookahead, between(rng, 1, 50)):
        tiles = [random_counts(rng, taps, pick(rng, DENSITIES)) for _ in range(6)]
        scan(tiles, lookahead, gaps=gaps, seed=taps)


@pytest.mark.parametrize("gaps", GAPS)
def test_scanner_ends_of_tiles(gaps):
    # Empty tiles in a row; the last survivor in any position; tiles that end with zeros.
    for taps in (1, 4, 7, 8):
        empty = [0] * taps
        one = [[int(n == at) for n in range(taps)] for at in range(taps)]
        full = [3] * taps
        tiles = [empty, empty, full, empty, *one, empty, *one[::-1], full, full, empty, empty]
        scan(tiles, 4, gaps=gaps)


@pytest.mark.parametrize("lookahead", [1, 4, 8])
@pytest.mark.parametrize("density", DENSITIES)
def test_scanner_takes_as_many_cycles_as_a_word_has_survivors(lookahead, density):
    rng = rng_of(lookahead, 5)
    tiles = [random_counts(rng, 6 * lookahead, density) for _ in range(4)]
    words, taken, _ = scan(tiles, lookahead)
    for n in range(len(words) - 1):
        survivors = sum(count > 0 for count in words[n])
        assert taken[n + 1] - taken[n] == max(1, survivors), f"word {n}"


def test_scanner_gives_one_survivor_a_cycle():
    _, _, given = scan([[1] * 20] * 3, 4)
    assert given == list(range(given[0], given[0] + 60))


def test_largest_layer():
    # 65,535 taps of zeros would take too long at L = 1; here J needs all bits of the word count.
    tile = [0] * 65_535
    for at in (0, 40_000, 65_534):
        tile[at] = 7
    assert len(words_of(tile, 64)) == 1024
    scan([tile], 64)


def assemble(tiles, period, *, slots=8, gaps=(0.0, 0.0), seed=0):
    dut = Assembler(CONFIG.replace(max_period=slots))
    survivors = [survivor for tile in tiles for survivor in ref_survivors(tile)]
    expected = [block for tile in tiles for block in ref_blocks(tile, period, slots)]
    source, sink = pass_through(
        dut,
        dut.i,
        survivors,
        dut.o,
        len(expected),
        gaps=gaps,
        seed=seed,
        constants={"period": period},
    )
    assert sink.words == expected
    assert len(source.cycles) == len(survivors)
    return source.cycles, sink.cycles


@pytest.mark.parametrize(("slots", "period"), [(1, 1), (2, 1), (2, 2), (8, 1), (8, 5), (8, 8)])
@pytest.mark.parametrize("gaps", GAPS)
def test_assembler(slots, period, gaps):
    rng = rng_of(slots, period)
    tiles = [random_counts(rng, between(rng, 1, 20), pick(rng, DENSITIES)) for _ in range(10)]
    assemble([*tiles, [0], [0], [1] * (2 * period)], period, slots=slots, gaps=gaps)


@pytest.mark.parametrize("period", [1, 3, 8])
def test_assembler_takes_one_tap_a_cycle(period):
    taken, given = assemble([[1] * 17, [0], [0, 2], [3] * 16], period)
    assert taken == list(range(taken[0], taken[0] + 17 + 1 + 1 + 16))
    # A block is offered in the cycle in which its last tap is.
    assert set(given) <= set(taken)
    if period == 1:
        assert given == taken


def test_assembler_gathers_while_its_output_is_blocked():
    dut = Assembler(CONFIG)
    source = Source(dut.i, [{"count": 1, "end": 0}] * 8)

    async def blocked(ctx):
        ctx.set(dut.period, 4)
        for _ in range(20):
            await ctx.tick()
        assert source.cycles == [0, 1, 2]  # the fourth tap completes the block

    simulate(dut, blocked, background=[source.run])


def control(tiles, config, period, *, gaps=(0.0, 0.0), seed=0):
    dut = SkipController(config)
    words = [word for tile in tiles for word in words_of(tile, config.lookahead)]
    expected = [block for tile in tiles for block in ref_blocks(tile, period, config.max_period)]
    source, sink = pass_through(
        dut,
        dut.i,
        words,
        dut.o,
        len(expected),
        gaps=gaps,
        seed=seed,
        constants={"taps": len(tiles[0]), "period": period},
    )
    assert sink.words == expected
    return source.cycles, sink.cycles


@pytest.mark.parametrize("gaps", GAPS)
@pytest.mark.parametrize(("lookahead", "slots"), [(1, 1), (4, 8), (8, 2)])
def test_controller(lookahead, slots, gaps):
    config = CONFIG.replace(lookahead=lookahead, max_period=slots)
    rng = rng_of(lookahead, slots)
    for period in {1, slots, between(rng, 1, slots)}:
        taps = between(rng, 1, 40)
        tiles = [random_counts(rng, taps, pick(rng, DENSITIES)) for _ in range(6)]
        control(tiles, config, period, gaps=gaps, seed=period)


def test_controller_gives_a_block_of_one_tap_every_cycle():
    for slots in (1, 8):
        config = CONFIG.replace(max_period=slots)
        _, given = control([[1] * 30] * 2, config, 1)
        assert given == list(range(given[0], given[0] + 60))


def test_controller_runs_ahead_by_its_queues():
    # While nothing is taken, F blocks and F · T taps wait, and some in the stages between.
    config = CONFIG.replace(max_period=4, row_blocks=2)
    dut = SkipController(config)
    words = words_of([1] * 200, 4)
    taken = []

    async def source(ctx):
        ctx.set(dut.taps, 200)
        ctx.set(dut.period, 4)
        await ctx.tick()
        for word in words:
            ctx.set(dut.i.payload, word)
            ctx.set(dut.i.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.i.ready)
            taken.append(word)

    async def patient(ctx):
        for _ in range(150):
            await ctx.tick()
        waiting = 2 * 4 + 2 * 4  # taps in both queues
        assert waiting <= 4 * len(taken) <= waiting + 3 * 4
        assert ctx.get(dut.o.valid)

    simulate(dut, patient, background=[source])
