# SPDX-License-Identifier: Apache-2.0
"""Pixels, tiles and the words of the streams, checked by an engine made of loops."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype, accumulate, affine, requantise
from csp_algo.network import Residual
from csp_hw.config import PRESETS, CspConfig
from sim import golden
from sim.grid import Grid
from sim.schedule import Bound, Schedule
from sim.tiling import SPARE, Arrival, Tile, TileCosts, choose_tiles
from tests.strategies import CASES, random_activations, random_layer

INT8, UINT8, INT32 = ActDtype.INT8, ActDtype.UINT8, ActDtype.INT32
SEEDS = st.integers(0, 2**32 - 1)
TINY = PRESETS["tiny_4x4"]


@st.composite
def configs(draw):
    return CspConfig(
        rows=draw(st.integers(1, 9)),
        cols=4,
        depth=draw(st.sampled_from([4, 8, 16, 64])),
        max_period=8,
        max_interleave=draw(st.sampled_from([1, 2, 4, 8])),
        acc_bits=draw(st.sampled_from([10, 24])),
        lookahead=draw(st.sampled_from([1, 4, 16])),
    )


def layer_and_inputs(seed, case="mixed", **options):
    rng = np.random.default_rng(seed)
    signed = bool(rng.integers(2))
    layer = random_layer(rng, cols=4, case=case, max_taps=40, signed=signed, **options)
    shape = (int(rng.integers(1, 4)), *layer.geometry.in_shape)
    return layer, random_activations(rng, shape, INT8 if signed else UINT8, case=case)


def fixed_layer(shape, filters, *, kernel=(1, 1), case="dense", seed=0, **options):
    """Give a layer with padding that keeps an odd kernel's map as it is."""
    pads = (kernel[0] // 2, kernel[1] // 2) * 2
    geometry = Geometry(in_shape=shape, filters=filters, kernel=kernel, padding=pads)
    options = {"cols": 4, "period": 8, "acc_shift": 0, "dtype": UINT8, **options}
    return random_layer(np.random.default_rng(seed), geometry=geometry, case=case, **options)


def blocks_of(counts, period):
    """Give the counts of each block, as the skip controller finds them."""
    surviving = [int(count) for count in counts.reshape(-1) if count]
    return [surviving[start : start + period] for start in range(0, len(surviving), period)]


def engine_tile(command, params, sent, acc_bits, cols):
    """Give the result words of a tile from nothing but the words that were sent."""
    weights = iter(sent.weights.astype(np.int64))
    view = sent.activations.view(np.int8) if command["signed"] else sent.activations
    activations = iter(view.astype(np.int64))
    interleave, rows = sent.live.shape
    acc = np.zeros((interleave, rows, command["chunks"], cols), dtype=np.int64)
    for block in blocks_of(sent.counts, command["period"]):
        held = [[next(activations) for _ in block] for _ in range(interleave)]
        for k in range(max(block)):
            run = [(tap, next(weights)) for tap, count in enumerate(block) if count > k]
            for i in range(interleave):
                total = sum(np.outer(held[i][tap], word) for tap, word in run)
                acc[i, :, k], _ = accumulate(acc[i, :, k], total, command["acc_shift"], acc_bits)
    assert next(weights, None) is None
    assert next(activations, None) is None
    shape = (command["chunks"], cols)
    bias, mult, shift = (values.reshape(shape) for values in params)
    dtype = (INT8, UINT8, INT32)[command["out"]]
    v = affine(acc, command["acc_shift"], bias)
    outputs = requantise(v, mult, shift, dtype, relu=bool(command["relu"]))
    little = outputs.astype(dtype.numpy.newbyteorder("<"))
    # Order i, row, k; a pixel's chunk is one word, or four.
    return np.concatenate(
        [
            np.frombuffer(little[i, row, k].tobytes(), dtype=np.uint8).reshape(-1, cols)
            for i, row in np.ndindex(interleave, rows)
            if sent.live[i, row]
            for k in range(command["chunks"])
        ]
        or [np.zeros((0, cols), dtype=np.uint8)]
    )


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(CASES), configs())
def test_streams_make_the_golden_outputs_on_any_array(seed, case, config):
    layer, x = layer_and_inputs(seed, case, acc_bits=config.acc_bits, max_chunks=4)
    outputs, _ = golden.layer_forward(layer, x, acc_bits=config.acc_bits)
    for group in range(layer.geometry.groups):
        schedule = Schedule.make(layer, group, config, len(x))
        command = schedule.command(signed=x.dtype == np.int8)
        sent = schedule.words(x)
        expected = schedule.results(outputs)
        results = []
        for tile, words, wanted in zip(schedule.tiles, sent, expected, strict=True):
            assert words.tile is tile
            got = engine_tile(command, schedule.params(), words, config.acc_bits, 4)
            np.testing.assert_array_equal(got, wanted)
            results.append(got)
        collected = schedule.collect(np.concatenate(results))
        np.testing.assert_array_equal(collected, outputs[..., schedule.filters])
        assert collected.dtype == outputs.dtype


@settings(max_examples=80, deadline=None)
@given(SEEDS, configs(), st.integers(1, 5))
def test_each_pixel_has_one_lane_of_one_tile(seed, config, images):
    layer, _ = layer_and_inputs(seed, groups=1)
    schedule = Schedule.make(layer, 0, config, images)
    height, width, _ = layer.geometry.out_shape
    seen = np.zeros((images, height, width), dtype=int)
    end = 0
    for number, tile in enumerate(schedule.tiles):
        assert tile.number == number
        assert tile.base % config.rows == 0
        assert tile.base >= end
        assert 1 <= tile.interleave <= config.max_interleave
        assert tile.interleave * schedule.matrix.chunks <= config.depth
        end = tile.base + tile.interleave * config.rows
        image, y, x, live = schedule.places(tile)
        assert live.shape == (tile.interleave, config.rows)
        # No group without a pixel is computed.
        assert live.any(axis=1).all()
        np.testing.assert_array_equal(live, schedule.live(tile))
        np.add.at(seen, (image[live], y[live], x[live]), 1)
        i, row = np.nonzero(live)
        numbers = (image[live] * schedule.grid.lines + y[live]) * schedule.grid.pitch + x[live]
        np.testing.assert_array_equal(numbers, tile.base + i * config.rows + row)
    assert (seen == 1).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(CASES), configs())
def test_streams_have_the_lengths_of_the_formulas(seed, case, config):
    layer, x = layer_and_inputs(seed, case, groups=1, acc_bits=config.acc_bits)
    schedule = Schedule.make(layer, 0, config, len(x))
    matrix = layer.matrices[0]
    total = int(matrix.counts.sum())
    beats = -(-matrix.taps // config.lookahead)
    assert len(schedule.params().bias) == matrix.chunks * 4
    assert schedule.steps == total
    results = 0
    for sent in schedule.words(x):
        interleave = sent.tile.interleave
        assert sent.counts.shape == (beats, config.lookahead)
        np.testing.assert_array_equal(sent.counts.reshape(-1)[: matrix.taps], matrix.counts)
        assert not sent.counts.reshape(-1)[matrix.taps :].any()
        assert sent.weights is matrix.words
        assert len(sent.weights) == total
        survivors = np.count_nonzero(matrix.counts)
        assert sent.activations.shape == (interleave * survivors, config.rows)
        assert sent.activations.dtype == np.uint8
        # Dead lanes are silent.
        start = 0
        for block in matrix.blocks():
            part = sent.activations[start : start + interleave * len(block)]
            start += len(part)
            lanes = part.reshape(interleave, len(block), config.rows).transpose(0, 2, 1)
            assert not lanes[~sent.live].any()
        words = int(sent.live.sum()) * matrix.chunks * (4 if layer.dtype is INT32 else 1)
        assert schedule.result_words[sent.tile.number] == words
        results += words
    height, width, _ = layer.geometry.out_shape
    each = matrix.chunks * (4 if layer.dtype is INT32 else 1)
    assert results == len(x) * height * width * each


@settings(max_examples=40, deadline=None)
@given(SEEDS, configs())
def test_each_result_word_is_found_again(seed, config):
    layer, x = layer_and_inputs(seed, acc_bits=config.acc_bits, max_side=4)
    outputs, _ = golden.layer_forward(layer, x, acc_bits=config.acc_bits)
    group = layer.geometry.groups - 1
    schedule = Schedule.make(layer, group, config, len(x))
    words = np.concatenate(list(schedule.results(outputs)))
    numbers = np.random.default_rng(seed).integers(0, len(words), 20)
    for number in (0, len(words) - 1, *numbers.tolist()):
        place = schedule.locate(number)
        tile = schedule.tiles[place.tile]
        lane = tile.base + place.i * config.rows + place.row
        assert [int(part) for part in schedule.grid.places(np.array(lane))[:3]] == [*place[4:7]]
        first = schedule.filters.start + place.k * 4
        assert first <= place.filter < first + 4
        count = 1 if layer.dtype is INT32 else 4
        stop = min(place.filter + count, schedule.filters.stop)
        values = outputs[place.image, place.y, place.x, place.filter : stop]
        raw = np.ascontiguousarray(values).astype(layer.dtype.numpy.newbyteorder("<")).tobytes()
        assert words[number].tobytes()[: len(raw)] == raw
        assert not any(words[number].tobytes()[len(raw) :])
    for number in (-1, len(words)):
        with pytest.raises(CspError, match=f"result word must be 0 … {len(words) - 1}, not"):
            schedule.locate(number)


def test_result_words_are_numbered_by_pixel_row_and_chunk():
    layer = fixed_layer((2, 3, 2), 7, dtype=INT32)
    schedule = Schedule.make(layer, 0, TINY, 1)
    assert [tile.interleave for tile in schedule.tiles] == [2]
    assert schedule.locate(0) == (0, 0, 0, 0, 0, 0, 0, 0)
    assert schedule.locate(3) == (0, 0, 0, 0, 0, 0, 0, 3)
    assert schedule.locate(5) == (0, 0, 0, 1, 0, 0, 0, 5)
    assert schedule.locate(8) == (0, 0, 1, 0, 0, 0, 1, 0)
    assert schedule.locate(32) == (0, 1, 0, 0, 0, 1, 1, 0)


def test_int32_words_of_eight_columns_hold_two_filters():
    layer = fixed_layer((1, 1, 2), 11, cols=8, dtype=INT32)
    schedule = Schedule.make(layer, 0, dataclasses.replace(TINY, cols=8), 1)
    assert [schedule.locate(number).filter for number in range(8)] == [0, 2, 4, 6, 8, 10, 12, 14]
    x = np.array([3, 5], dtype=np.uint8).reshape(1, 1, 1, 2)
    outputs, _ = golden.layer_forward(layer, x)
    (words,) = schedule.results(outputs)
    filters = [*outputs.reshape(-1).tolist(), 0, 0, 0, 0, 0]
    assert words.view("<i4").tolist() == [filters[first : first + 2] for first in range(0, 16, 2)]


@pytest.mark.parametrize("value", [-2, 2**31 - 1])
def test_int32_results_are_four_little_endian_words(value):
    layer = fixed_layer((1, 1, 1), 5, case="empty", dtype=INT32)
    layer = dataclasses.replace(layer, bias=np.arange(value - 4, value + 1).astype(np.int32))
    schedule = Schedule.make(layer, 0, TINY, 1)
    outputs, _ = golden.layer_forward(layer, np.zeros((1, 1, 1, 1), dtype=np.uint8))
    (words,) = schedule.results(outputs)
    assert words.shape == (8, 4)
    got = [int.from_bytes(word.tobytes(), "little", signed=True) for word in words]
    assert got == [*range(value - 4, value + 1), 0, 0, 0]


# --- Grid ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 8),
)
@example(images=1, height=1, width=1, below=9, beside=9, rows=4)
def test_live_groups_are_those_with_a_pixel(images, height, width, below, beside, rows):
    grid = Grid(
        images=images,
        height=height,
        width=width,
        lines=height + below,
        pitch=width + beside,
        rows=rows,
    )
    live = grid.places(np.arange(-(-grid.positions // rows) * rows)).live.reshape(-1, rows)
    np.testing.assert_array_equal(grid.live_groups(), np.flatnonzero(live.any(axis=1)))
    assert live.sum() == grid.pixels


def test_grid_spans_the_input_in_strides():
    geometry = Geometry(in_shape=(9, 11, 1), filters=1, kernel=(3, 3), stride=(2, 3))
    grid = Grid.of(geometry, images=2, rows=4)
    assert (grid.height, grid.width, grid.lines, grid.pitch) == (4, 3, 5, 4)
    wide = Geometry(in_shape=(4, 4, 1), filters=1, kernel=(3, 3), padding=(2, 2, 2, 2))
    assert (Grid.of(wide, 1, 4).lines, Grid.of(wide, 1, 4).pitch) == (6, 6)


def test_groups_without_a_pixel_are_left_out():
    # 5×5 windows on 28×28: 24 of 28 lines and places hold a pixel, four lines are 28 groups of 4.
    layer = random_layer(
        np.random.default_rng(0),
        cols=4,
        period=8,
        geometry=Geometry(in_shape=(28, 28, 1), filters=4, kernel=(5, 5)),
    )
    schedule = Schedule.make(layer, 0, TINY, 2)
    # The last four places of a line are one group, so a line is a stretch of six groups.
    assert sum(tile.interleave for tile in schedule.tiles) == 2 * 24 * 6
    assert {tile.interleave for tile in schedule.tiles} == {4, 2}


# --- Choice of I -----------------------------------------------------------------------------


def test_196_pixels_are_seven_groups_of_32():
    layer = fixed_layer((14, 14, 64), 256, cols=32)
    schedule = Schedule.make(layer, 0, PRESETS["csp_h_32x32"], 1)
    assert [tile.interleave for tile in schedule.tiles] == [7]
    deep = fixed_layer((14, 14, 64), 512, cols=32)
    schedule = Schedule.make(deep, 0, PRESETS["csp_h_32x32"], 1)
    assert [tile.interleave for tile in schedule.tiles] == [4, 3]
    assert [tile.base for tile in schedule.tiles] == [0, 128]


@pytest.mark.parametrize(
    ("chunks", "interleave"),
    [(1, 4), (2, 4), (3, 2), (4, 2), (5, 1), (8, 1), (9, 1), (16, 1)],
)
def test_two_tiles_fit_the_depth_or_one_does(chunks, interleave):
    # Depth 16: 2·K·I ≤ 16 while K ≤ 8, then K·I ≤ 16.
    layer = fixed_layer((8, 8, 16), 4 * chunks)
    schedule = Schedule.make(layer, 0, TINY, 1)
    assert {tile.interleave for tile in schedule.tiles} == {interleave}


def test_tiles_that_share_the_buffer_may_win():
    # Counts bound this layer: a tile of four pixels reads them half as often as one of two.
    rng = np.random.default_rng(0)
    geometry = Geometry(in_shape=(16, 16, 200), filters=16)
    layer = random_layer(rng, cols=4, geometry=geometry, case="one_survivor", dtype=UINT8)
    config = dataclasses.replace(TINY, lookahead=1)
    schedule = Schedule.make(layer, 0, config, 1)
    assert {tile.interleave for tile in schedule.tiles} == {4}
    assert schedule.bound().limit == "counts"


def test_equal_tiles_are_taken_where_they_are_faster():
    def costs(steps):
        return TileCosts(
            config=dataclasses.replace(TINY, depth=128, max_interleave=8),
            chunks=8,
            steps=steps,
            beats=1,
            words=1,
        )

    groups = np.arange(9)
    # The drain of nine groups is what bounds: 5 + 4 hides more of it than 8 + 1.
    assert [tile.interleave for tile in choose_tiles(groups, costs(32))] == [4, 5]
    # Computing bounds: a short last tile leaves least to drain at the end.
    assert [tile.interleave for tile in choose_tiles(groups, costs(4096))] == [8, 1]


def test_a_gap_between_groups_ends_a_tile():
    costs = TileCosts(config=TINY, chunks=1, steps=1000, beats=1, words=1)
    tiles = choose_tiles(np.array([0, 1, 2, 3, 4, 7, 8, 20]), costs)
    assert tiles == (Tile(0, 0, 4), Tile(1, 16, 1), Tile(2, 28, 2), Tile(3, 80, 1))


@settings(max_examples=30, deadline=None)
@given(SEEDS, configs(), st.integers(1, 8))
def test_what_is_around_the_engine_may_limit_the_tiles(seed, config, interleave):
    layer, _ = layer_and_inputs(seed, groups=1)
    limit = min(interleave, config.max_interleave)
    limited = Schedule.make(layer, 0, config, 2, interleave=limit)
    assert max(tile.interleave for tile in limited.tiles) <= limit
    pixels = sum(int(limited.live(tile).sum()) for tile in limited.tiles)
    assert pixels == limited.grid.pixels
    free = Schedule.make(layer, 0, config, 2)
    if max(tile.interleave for tile in free.tiles) <= limit == config.max_interleave:
        assert limited.tiles == free.tiles


def test_a_limit_of_the_tiles_is_in_range():
    for interleave in (0, 5):
        with pytest.raises(CspError, match=f"interleave must be 1 … 4, not {interleave}"):
            Schedule.make(fixed_layer((2, 2, 2), 4), 0, TINY, 1, interleave=interleave)


@settings(deadline=None)
@given(SEEDS, configs(), st.integers(1, 40), st.integers(1, 300))
def test_estimates_are_not_below_the_parts(seed, config, groups, steps):
    chunks = 1 + seed % config.depth
    costs = TileCosts(config=config, chunks=chunks, steps=steps, beats=1, words=1)
    tiles = choose_tiles(np.arange(groups), costs)
    length = config.rows * chunks
    assert costs.cycles(tiles) >= groups * max(steps, length)
    assert costs.cycles(tiles) <= groups * (steps + length)


def test_estimate_of_overlapping_tiles():
    costs = TileCosts(config=TINY, chunks=2, steps=100, beats=7, words=1)
    tiles = tuple(Tile(n, 0, 4) for n in range(3))
    assert costs.cycles(tiles) == 3 * 400 + 4 * 2 * 4
    apart = dataclasses.replace(costs, chunks=4)
    assert apart.cycles(tiles) == 3 * (400 + 4 * 4 * 4)
    # A tile that needs both halves waits for all drains, and all wait for its own.
    mixed = (Tile(0, 0, 2), Tile(1, 0, 4), Tile(2, 0, 2))
    assert apart.cycles(mixed) == (200 + 32) + (400 + 64) + (200 + 32)
    slow = dataclasses.replace(costs, steps=1)
    assert slow.cycles(tiles) == 7 + 3 * 4 * 2 * 4


def arriving(steps, beats, groups=8, **options):
    """Give costs for a map of so many groups of 4 positions, beats each."""
    config = dataclasses.replace(TINY, depth=64, max_interleave=8)
    arrival = Arrival(beats=4 * groups * beats, positions=4 * groups, reach=0)
    options = {"chunks": 1, "beats": 1, "words": 1, "arrival": arrival, **options}
    return TileCosts(config=config, steps=steps, **options)


def test_a_tile_waits_for_its_input():
    costs = arriving(steps=100, beats=25)
    # 400 beats for each half of the map; then 400 products and 16 drained words.
    assert costs.cycles((Tile(0, 0, 4), Tile(1, 16, 4))) == 400 + 400 + 400 + 16
    # All of them, then all products.
    assert costs.cycles((Tile(0, 0, 8),)) == 800 + 800 + 32
    # With taps that reach two positions further, no more than the whole map.
    far = dataclasses.replace(costs, arrival=costs.arrival._replace(reach=2))
    assert far.cycles((Tile(0, 0, 4), Tile(1, 16, 4))) == 450 + 400 + 400 + 16


def test_tiles_are_small_where_they_would_wait():
    groups = np.arange(8)

    def sizes(costs):
        return [tile.interleave for tile in choose_tiles(groups, costs)]

    # Input and products take the same time: tiles of one group wait for an eighth of the map.
    assert sizes(arriving(steps=100, beats=25)) == 8 * [1]
    # The input takes twice as long: only behind its last beat are small tiles worth it.
    assert sizes(arriving(steps=50, beats=25)) == [3, 3, 1, 1]
    # Less than 1/SPARE is to be saved, or nothing: a weight is used by all groups.
    assert sizes(arriving(steps=10_000, beats=25)) == [8]
    assert sizes(dataclasses.replace(arriving(steps=100, beats=25), arrival=None)) == [8]


@settings(deadline=None)
@given(SEEDS, st.integers(1, 40), st.integers(1, 300), st.integers(1, 100), st.integers(0, 50))
def test_no_smaller_tiles_are_much_cheaper(seed, count, steps, beats, reach):
    costs = arriving(steps, beats, count, chunks=1 + seed % 8)
    costs = dataclasses.replace(costs, arrival=costs.arrival._replace(reach=reach))
    groups = np.arange(count)
    cost = costs.cycles(choose_tiles(groups, costs))
    assert cost >= costs.arrival.beats
    for size in range(1, 8):
        limited = choose_tiles(groups, dataclasses.replace(costs, arrival=None), size)
        assert cost <= costs.cycles(limited) * (1 + 1 / SPARE)


# --- Bound and what is counted ---------------------------------------------------------------


def test_bound_names_each_part():
    layer = fixed_layer((8, 8, 16), 10, case="mixed", seed=3)
    schedule = Schedule.make(layer, 0, TINY, 2)
    counts = layer.matrices[0].counts.astype(int)
    total, survivors = int(counts.sum()), int(np.count_nonzero(counts))
    # K = 3: I = 2, so 128 pixels are 32 groups and 16 tiles.
    assert [tile.interleave for tile in schedule.tiles] == [2] * 16
    bound = schedule.bound()
    # 24 words of the last tile; see the last lines of docs/hardware.md.
    last = 24 + TINY.rows + TINY.cols + 25
    assert bound == Bound(
        compute=32 * total,
        drain=4 * 3 * 32,
        params=12,
        counts=16 * 4,
        weights=16 * total,
        activations=32 * survivors,
        results=128 * 3,
        first=min(layer.matrices[0].period, survivors) + 7,
        ramp=2 * total,
        last=last,
        tail=last - 24,
    )
    assert bound.limit == "compute"
    assert bound.cycles == 32 * total + bound.first + last


def test_int32_results_bound_a_thin_layer():
    layer = fixed_layer((3, 3, 1), 8, dtype=INT32)
    bound = Schedule.make(layer, 0, TINY, 1).bound()
    # Nine live lanes of twelve: three groups of four rows, one tile.
    assert (bound.compute, bound.drain, bound.results) == (6, 24, 72)
    # Nine live lanes of two chunks, four words each; the dead ones behind them cost a cycle.
    assert bound.last == 72 + TINY.rows + TINY.cols + 18 + 1
    assert (bound.limit, bound.cycles) == ("compute", bound.first + 6 + bound.last)


def test_dead_lanes_take_part_in_a_drain():
    layer = fixed_layer((1, 1, 1), 4)
    bound = Schedule.make(layer, 0, TINY, 1).bound()
    assert (bound.results, bound.drain) == (1, 4)
    # The three dead words come after the live one, and the engine is idle soon after them.
    assert bound.last == 1 + TINY.rows + TINY.cols + 25


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(CASES), configs())
def test_products_are_counted_one_by_one(seed, case, config):
    layer, x = layer_and_inputs(seed, case, acc_bits=config.acc_bits)
    windows = layer.geometry.unfold(x)
    for group, matrix in enumerate(layer.matrices):
        schedule = Schedule.make(layer, group, config, len(x))
        useful = gated = 0
        for tap, m in np.ndindex(matrix.taps, matrix.filters):
            if matrix.counts[tap] > m // 4:
                useful += windows[group, ..., tap].size
                gated += np.count_nonzero(windows[group, ..., tap] == 0)
        assert schedule.useful == useful
        assert schedule.gated(x) == gated
        assert schedule.issued == schedule.bound().compute
        assert schedule.slots == schedule.issued * config.rows * 4
        assert gated <= useful <= schedule.slots


# --- Refusals --------------------------------------------------------------------------------


def test_too_many_chunks_are_refused():
    layer = fixed_layer((2, 2, 2), 4 * 16 + 1)
    with pytest.raises(CspError, match="layer layer: 17 chunks exceed the accumulation depth 16"):
        Schedule.make(layer, 0, TINY, 1)


def test_a_long_period_is_refused():
    layer = fixed_layer((2, 2, 20), 4, period=9)
    with pytest.raises(CspError, match="layer layer: period 9 exceeds max_period 8"):
        Schedule.make(layer, 0, TINY, 1)


def test_other_columns_are_refused():
    layer = fixed_layer((2, 2, 2), 8, cols=8)
    with pytest.raises(CspError, match="layer layer: stored for 8 columns, the array has 4"):
        Schedule.make(layer, 0, TINY, 1)


def test_a_wide_shift_is_refused():
    layer = fixed_layer((2, 2, 2), 4, acc_shift=9)
    with pytest.raises(CspError, match="acc_bits 24 and acc_shift 9 make more than 32 bits"):
        Schedule.make(layer, 0, TINY, 1)


@pytest.mark.parametrize(("group", "images", "name"), [(1, 1, "group"), (0, 0, "images")])
def test_groups_and_images_exist(group, images, name):
    with pytest.raises(CspError, match=f"layer layer: {name} must be "):
        Schedule.make(fixed_layer((2, 2, 2), 4), group, TINY, images)


def test_words_of_a_residual_are_those_of_its_map():
    layer = fixed_layer((3, 3, 4), 6)
    layer = dataclasses.replace(layer, residual=Residual(input="r", mult=40_000, shift=9))
    schedule = Schedule.make(layer, 0, TINY, 2)
    fields = {"enabled": 1, "signed": 1, "mult": 40_000, "shift": 9}
    assert schedule.command(signed=False, residual_signed=True)["residual"] == fields
    rng = np.random.default_rng(0)
    added = rng.integers(-128, 128, (2, 3, 3, 6)).astype(np.int8)
    words = np.concatenate(list(schedule.residual(added)))
    assert len(words) == schedule.result_words.sum()
    # The results of the same layer would be collected from the same words.
    signed = dataclasses.replace(schedule, layer=dataclasses.replace(layer, dtype=ActDtype.INT8))
    np.testing.assert_array_equal(signed.collect(words), added)
    with pytest.raises(CspError, match=r"layer layer: residual must be .* \[2, 3, 3, 6\]"):
        next(schedule.residual(added[:1]))


def test_wrong_maps_are_refused():
    layer = fixed_layer((2, 2, 4), 4)
    schedule = Schedule.make(layer, 0, TINY, 2)
    x = np.zeros((2, 2, 2, 4), dtype=np.uint8)
    with pytest.raises(CspError, match=r"layer layer: inputs must be int8 or uint8 \[2, 2, 2, 4\]"):
        next(schedule.activations(x[:1]))
    with pytest.raises(CspError, match=r"layer layer: inputs must be .*, not int32"):
        next(schedule.activations(x.astype(np.int32)))
    with pytest.raises(CspError, match=r"layer layer: outputs must be uint8 .*, not int8"):
        next(schedule.results(x.astype(np.int8)))
    with pytest.raises(CspError, match=r"layer layer: results must be uint8 \[8, 4\], not"):
        schedule.collect(np.zeros((7, 4), dtype=np.uint8))


def test_the_command_says_what_the_layer_is():
    layer = fixed_layer((2, 2, 3), 9, dtype=INT8, relu=True, acc_shift=3)
    command = Schedule.make(layer, 0, TINY, 1).command(signed=True)
    assert command == {
        "taps": 3,
        "position_words": 1,
        "kernel_w": 1,
        "tiles": 1,
        "chunks": 3,
        "last_filters": 1,
        "period": 8,
        "acc_shift": 3,
        "signed": 1,
        "residual": {"enabled": 0, "signed": 0, "mult": 0, "shift": 0},
        "relu": 1,
        "out": 0,
    }


def test_parameters_of_padding_are_zero():
    layer = fixed_layer((2, 2, 3), 9)
    params = Schedule.make(layer, 0, TINY, 1).params()
    for name, values in params._asdict().items():
        np.testing.assert_array_equal(values[:9], getattr(layer, name))
        assert values.dtype == getattr(layer, name).dtype
        assert not values[9:].any()


def test_weights_follow_the_stream_of_their_period():
    # Taps 0 … 3 with counts 2, 0, 1, 2 and T = 2: blocks (0, 2) and (3).
    weights = np.zeros((8, 4), dtype=np.int8)
    weights[0], weights[4] = [1, 0, 3, 4], [11, 0, 0, 14]
    layer = fixed_layer((1, 1, 4), 8)
    layer = dataclasses.replace(layer, matrices=(compress(weights, 4, 2),))
    schedule = Schedule.make(layer, 0, TINY, 1)
    assert schedule.weights()[:, 0].tolist() == [1, 3, 11, 4, 14]
    x = np.array([5, 6, 7, 8], dtype=np.uint8).reshape(1, 1, 1, 4)
    (activations,) = schedule.activations(x)
    assert activations[:, 0].tolist() == [5, 7, 8]
