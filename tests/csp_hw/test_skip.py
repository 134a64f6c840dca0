# SPDX-License-Identifier: Apache-2.0
"""The skip controller and its two halves against plain loops over the counts."""

import pytest

from csp_hw.config import PRESETS
from csp_hw.skip import Assembler, Scanner, SkipController
from tests.csp_hw.bench import Sink, Source, between, chance, pass_through, pick, rng_of, simulate

CONFIG = PRESETS["tiny_4x4"]
DENSITIES = [0.0, 0.05, 0.3, 0.7, 1.0]
GAPS = [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4)]


def random_counts(rng, taps, density):
    return [pick(rng, [1, 2, 255]) if chance(rng, density) else 0 for _ in range(taps)]


def words_of(tile, lookahead):
    """Give the words of a tile's counts, the last one padded with zeros."""
    padded = [*tile, *[0] * (-len(tile) % lookahead)]
    return [padded[n : n + lookahead] for n in range(0, len(padded), lookahead)]


def beats_of(tiles, lookahead):
    """Give the words of tiles as the scanner gets them."""
    words = [words_of(tile, lookahead) for tile in tiles]
    return [
        {"counts": word, "last": int(n == len(tile) - 1)}
        for tile in words
        for n, word in enumerate(tile)
    ]


def kernel_of(rng, taps, config):
    """Give a random kernel: words of a position, positions of a line; seldom one that fits J."""
    words = min(-(-taps // config.lookahead), config.line_words * config.cols // config.lookahead)
    return {"position_words": between(rng, 1, words + 1), "kernel_w": between(rng, 1, 11)}


def ref_positions(tile, config, position_words, kernel_w):
    """Give where each surviving tap lies; None where it does not matter."""
    positions = []
    for n in (n for n, count in enumerate(tile) if count):
        word, lane = divmod(n, config.lookahead)
        place, part = divmod(word, position_words)
        channel = part * config.lookahead + lane
        positions.append(
            {
                "r": place // kernel_w % 16,
                "s": place % kernel_w,
                "beat": channel // config.cols % config.line_words,
                "byte": channel % config.cols,
                "empty": 0,
                "end": 0,
            }
        )
    if not positions:
        positions = [dict.fromkeys(("r", "s", "beat", "byte")) | {"empty": 1}]
    positions[-1]["end"] = 1
    return positions


def known(positions, expected):
    """Give positions without what does not matter in those that are expected."""
    assert len(positions) == len(expected)
    return [
        {name: value if wanted[name] is not None else None for name, value in position.items()}
        for position, wanted in zip(positions, expected, strict=True)
    ]


def ref_survivors(tile):
    survivors = [count for count in tile if count] or [0]
    return [
        {"count": count, "empty": int(count == 0), "end": int(n == len(survivors) - 1)}
        for n, count in enumerate(survivors)
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
    config = CONFIG.replace(lookahead=lookahead)
    dut = Scanner(config)
    words = beats_of(tiles, lookahead)
    expected = [survivor for tile in tiles for survivor in ref_survivors(tile)]
    kernel = kernel_of(rng_of(seed, 9), len(tiles[0]), config)
    positions = [where for tile in tiles for where in ref_positions(tile, config, **kernel)]
    source, sink = pass_through(
        dut,
        dut.i,
        words,
        dut.o,
        len(expected),
        gaps=gaps,
        seed=seed,
        constants=kernel,
    )
    found = [word["position"] for word in sink.words]
    assert known(found, positions) == positions
    assert [
        {"count": word["count"], "empty": word["position"]["empty"], "end": word["position"]["end"]}
        for word in sink.words
    ] == expected
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
        survivors = sum(count > 0 for count in words[n]["counts"])
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
    source = Source(dut.i, [{"count": 1, "empty": 0, "end": 0}] * 8)

    async def blocked(ctx):
        ctx.set(dut.period, 4)
        for _ in range(20):
            await ctx.tick()
        assert source.cycles == [0, 1, 2]  # the fourth tap completes the block

    simulate(dut, blocked, background=[source.run])


def control(tiles, config, period, *, gaps=(0.0, 0.0, 0.0), kernel=None, seed=0):
    """Compare blocks and positions with the reference; give the cycles of all three streams."""
    dut = SkipController(config)
    words = beats_of(tiles, config.lookahead)
    expected = [block for tile in tiles for block in ref_blocks(tile, period, config.max_period)]
    kernel = kernel or kernel_of(rng_of(seed, 9), len(tiles[0]), config)
    wanted = [where for tile in tiles for where in ref_positions(tile, config, **kernel)]
    positions = Sink(dut.positions, len(wanted), gap=gaps[2], seed=seed + 1)
    source, sink = pass_through(
        dut,
        dut.i,
        words,
        dut.o,
        len(expected),
        gaps=gaps[:2],
        seed=seed,
        constants={"period": period, **kernel},
        beside=[positions.run],
    )
    assert sink.words == expected
    assert known(positions.words, wanted) == wanted
    return source.cycles, sink.cycles, positions.cycles


@pytest.mark.parametrize("gaps", [(0.0, 0.0, 0.0), (0.6, 0.0, 0.0), (0.0, 0.6, 0.3), (0.3, 0, 0.7)])
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
        _, given, positions = control([[1] * 30] * 2, config, 1)
        assert given == list(range(given[0], given[0] + 60))
        assert positions == list(range(positions[0], positions[0] + 60))


@pytest.mark.parametrize(("cols", "lookahead"), [(4, 1), (4, 4), (8, 2), (16, 8)])
def test_positions_of_a_convolution(cols, lookahead):
    # Tap (r, s, c) in a kernel of 3 × 5 positions and two beats, as the core's counts are laid out.
    config = CONFIG.replace(cols=cols, lookahead=lookahead)
    rng = rng_of(cols, lookahead)
    channels = 2 * cols
    kernel = {"position_words": channels // lookahead, "kernel_w": 5}
    tiles = [random_counts(rng, 15 * channels, density) for density in (0.0, 0.2, 1.0, 0.05)]
    taps = [(r, s, c) for r in range(3) for s in range(5) for c in range(channels)]
    assert [
        (at["r"], at["s"], at["beat"] * cols + at["byte"])
        for at in ref_positions(tiles[2], config, **kernel)
    ] == taps
    control(tiles, config, 8, kernel=kernel)


@pytest.mark.parametrize(("cols", "lookahead", "line_bytes"), [(12, 8, 256), (4, 16, 4096)])
def test_meaningless_positions_do_no_harm(cols, lookahead, line_bytes):
    config = CONFIG.replace(rows=32, cols=cols, lookahead=lookahead, line_bytes=line_bytes)
    rng = rng_of(cols)
    tiles = [random_counts(rng, 60, density) for density in DENSITIES]
    words = beats_of(tiles, lookahead)
    expected = [block for tile in tiles for block in ref_blocks(tile, 3, config.max_period)]
    for kernel in ({"position_words": 0, "kernel_w": 0}, {"position_words": 1, "kernel_w": 1}):
        dut = SkipController(config)
        constants = {"period": 3, **kernel}
        positions = Sink(dut.positions, sum(len(ref_survivors(tile)) for tile in tiles))
        _, sink = pass_through(
            dut, dut.i, words, dut.o, len(expected), constants=constants, beside=[positions.run]
        )
        assert sink.words == expected
        ends = [at["end"] for tile in tiles for at in ref_survivors(tile)]
        assert [at["end"] for at in positions.words] == ends


def test_a_tap_waits_for_its_position_to_be_taken():
    # Two blocks of two taps and a tile without survivors. The sink of positions takes a word when
    # it is told to; a block is there only if all of its positions were taken.
    config = CONFIG.replace(max_period=2)
    dut = SkipController(config)
    source = Source(dut.i, beats_of([[1, 2, 3, 0, 4], [0] * 5], 4))

    async def bench(ctx):
        ctx.set(dut.period, 2)
        ctx.set(dut.position_words, 1)
        ctx.set(dut.kernel_w, 2)
        await ctx.tick()
        blocks = []
        for taken in range(6):
            await ctx.tick().repeat(20)
            assert ctx.get(dut.positions.valid) == (taken < 5)
            if ctx.get(dut.o.valid):
                blocks.append((taken, ctx.get(dut.o.payload.taps)))
                ctx.set(dut.o.ready, 1)
                await ctx.tick()
                ctx.set(dut.o.ready, 0)
            ctx.set(dut.positions.ready, 1)
            await ctx.tick()
            ctx.set(dut.positions.ready, 0)
        assert blocks == [(2, 2), (4, 2), (5, 0)]

    async def late(ctx):
        await ctx.tick().repeat(2)
        await source.run(ctx)

    simulate(dut, bench, background=[late])


def test_controller_runs_ahead_by_its_queues():
    # While nothing is taken, F blocks and F · T taps wait, and some in the stages between.
    config = CONFIG.replace(max_period=4, row_blocks=2)
    dut = SkipController(config)
    words = beats_of([[1] * 200], 4)
    taken = []

    async def source(ctx):
        ctx.set(dut.period, 4)
        ctx.set(dut.positions.ready, 1)
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
