# SPDX-License-Identifier: Apache-2.0
"""The parts of the compiler: loops, layouts, maps, windows and areas, each against plain loops."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_hw.config import PRESETS
from sim.grid import Grid
from sim.program import memory
from sim.program.layout import Layout
from sim.program.loops import COUNT_LIMIT, RUN_LIMIT, LoopError, Loops, Steps
from sim.program.maps import FeatureMap, pack_map, unpack_map
from sim.program.memory import Areas, Region
from sim.program.windows import held_positions, reach, strips, windows
from tests.strategies import random_activations, random_geometry

SEEDS = st.integers(0, 2**32 - 1)
TINY = PRESETS["tiny_4x4"]


def addresses(loops):
    return [
        loops.offset + j * loops.pitch2 + i * loops.pitch1 + beat * loops.cols
        for j in range(loops.count2)
        for i in range(loops.count1)
        for beat in range(loops.beats)
    ]


# --- Loops -----------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=5))
def test_loops_reach_what_plain_loops_do(axes):
    # From the inside: a gap of some beats behind each axis.
    steps, pitch = [], 8
    for times, gap in axes:
        steps.insert(0, Steps(times, pitch))
        pitch = times * pitch + 8 * gap
    expected = [
        4096 + sum(n * step.pitch for n, step in zip(place, steps, strict=True))
        for place in itertools.product(*(range(step.times) for step in steps))
    ]
    # A gap counts if something lies on both sides of it.
    jumps = np.diff(expected)
    pieces = len({*jumps.tolist()} - {8})
    if pieces > 2:
        with pytest.raises(LoopError, match="pieces of a map are more than two loops of runs"):
            Loops.over(4096, steps, 8)
        return
    loops = Loops.over(4096, steps, 8)
    assert loops.addresses.tolist() == addresses(loops)
    assert addresses(loops) == expected
    assert loops.total == len(expected)
    assert loops.end == max(expected) + 8
    # Runs are as long as they can be.
    assert loops.beats == next((n + 1 for n, jump in enumerate(jumps) if jump != 8), len(expected))


def test_long_loops_are_split():
    loops = Loops.over(0, [Steps(3 * RUN_LIMIT, 8)], 8)
    assert (loops.beats, loops.count1, loops.count2) == (RUN_LIMIT, 3, 1)
    assert loops.pitch1 == RUN_LIMIT * 8
    loops = Loops.over(0, [Steps(4 * COUNT_LIMIT, 16)], 8)
    assert (loops.beats, loops.count1, loops.count2) == (1, COUNT_LIMIT, 4)
    assert (loops.pitch1, loops.pitch2) == (16, COUNT_LIMIT * 16)
    # A prime number of steps.
    with pytest.raises(LoopError, match="65537 steps cannot be split into loops of at most 65535"):
        Loops.over(0, [Steps(65_537, 16)], 8)


# --- Layouts and maps ------------------------------------------------------------------------


def test_layouts():
    assert Layout.dense(5, 4).places.tolist() == [0, 1, 2, 3, 4]
    assert Layout.dense(5, 4).chunks == 2
    alone = Layout.grouped(3, 2, 8, share=False)
    assert (alone.places.tolist(), alone.chunks) == ([0, 1, 8, 9, 16, 17], 3)
    shared = Layout.grouped(4, 3, 8, share=True)
    assert (shared.places.tolist(), shared.chunks) == ([0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13], 2)
    wide = Layout.grouped(2, 5, 4, share=True)
    assert (wide.places.tolist(), wide.chunks) == ([0, 1, 2, 3, 4, 8, 9, 10, 11, 12], 4)
    joined = Layout.joined([Layout.dense(3, 4), Layout.dense(5, 4), Layout.dense(1, 4)])
    assert (joined.places.tolist(), joined.chunks) == ([0, 1, 2, 4, 5, 6, 7, 8, 12], 4)
    flat = Layout.dense(3, 4).repeated(2)
    assert (flat.places.tolist(), flat.chunks) == ([0, 1, 2, 4, 5, 6], 2)
    assert [joined.chunks_of(range(*ends)) for ends in ((0, 3), (2, 4), (7, 9))] == [
        range(1),
        range(2),
        range(2, 4),
    ]


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(list(ActDtype)))
def test_maps_are_found_again_byte_for_byte(seed, dtype):
    rng = np.random.default_rng(seed)
    height, width, groups, filters, images = (int(n) for n in rng.integers(1, 5, 5))
    layout = Layout.grouped(groups, filters, 4, share=bool(rng.integers(2)))
    size = dtype.numpy.itemsize
    gaps = [int(gap) * 4 for gap in rng.integers(0, 3, 3)]
    pixel = layout.chunks * 4 * size + gaps[0]
    line = width * pixel + gaps[1]
    place = FeatureMap(
        name="map",
        images=images,
        shape=(height, width, groups * filters),
        dtype=dtype,
        layout=layout,
        offset=64,
        image=height * line + gaps[2],
        line=line,
        pixel=pixel,
    )
    values = random_activations(rng, (images, height, width, groups * filters), dtype)
    packed = pack_map(place, values)
    assert len(packed) == place.span == place.end - 64
    window = np.concatenate([np.full(64, 99, dtype=np.uint8), packed])
    np.testing.assert_array_equal(unpack_map(place, window), values)
    assert unpack_map(place, window).dtype == dtype.numpy
    expected = np.zeros(len(window), dtype=np.uint8)
    for n, y, x, c in np.ndindex(values.shape):
        first = 64 + n * place.image + y * place.line + x * place.pixel
        first += int(layout.places[c]) * size
        raw = int(values[n, y, x, c]).to_bytes(size, "little", signed=dtype is not ActDtype.UINT8)
        expected[first : first + size] = list(raw)
    np.testing.assert_array_equal(packed, expected[64:])


def test_a_part_of_a_map_may_be_steps_apart():
    place = FeatureMap(
        name="map",
        images=2,
        shape=(4, 6, 8),
        dtype=ActDtype.UINT8,
        layout=Layout.dense(8, 4),
        offset=0,
        image=192,
        line=48,
        pixel=8,
    )
    loops = place.loops(range(2), range(0, 4, 2), range(1, 6, 2), range(1, 2))
    assert addresses(loops) == [
        n * 192 + y * 48 + x * 8 + 4 for n in (0, 1) for y in (0, 2) for x in (1, 3, 5)
    ]
    assert place.loops(range(2), range(4), range(6), range(2)).beats == 96


# --- Windows ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 3), st.sampled_from([2, 4, 8]), st.integers(1, 4))
def test_what_a_tile_holds_is_enough_and_not_too_much(seed, images, rows, interleave):
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng, channels=1, groups=1, max_side=9)
    stride = tuple(int(step) for step in rng.choice([1, 2, 4], 2))
    geometry = dataclasses.replace(geometry, stride=stride)
    grid = Grid.of(geometry, images, rows)
    down, right = (step.bit_length() - 1 for step in stride)
    taps = [
        ((r * geometry.dilation[0] - geometry.padding[0]) >> down) * grid.pitch
        + ((s * geometry.dilation[1] - geometry.padding[1]) >> right)
        for r, s in np.ndindex(geometry.kernel)
    ]
    most = 0
    # More lines than there are: somewhere a tile ends where a line begins.
    for base in range(0, grid.positions + rows * grid.pitch, rows):
        first, last = base + min(taps), base + interleave * rows - 1 + max(taps)
        if down:
            # The line of the last position must be there as a whole.
            last = last // grid.pitch * grid.pitch + grid.pitch - 1
        most = max(most, last - first + 1)
    held = held_positions(geometry, images, rows, interleave)
    assert held == min(most, grid.positions - min(taps))


def test_strips_cover_a_line():
    assert strips(7, 3) == [range(2), range(2, 4), range(4, 7)]
    assert strips(5, 1) == [range(5)]


def test_what_windows_reach():
    # Windows of 3 with a stride of 2 and one place of padding.
    assert reach(range(2), 10, 3, 2, 1) == (range(4), (1, 0))
    assert reach(range(2, 3), 10, 3, 2, 1) == (range(3, 6), (0, 0))
    assert reach(range(4, 5), 8, 3, 2, 1) == (range(7, 8), (0, 2))
    with pytest.raises(CspError, match="outputs 5 … 6 of a line see nothing but padding"):
        reach(range(5, 7), 8, 3, 2, 1)


def test_the_largest_ring_is_taken():
    same = {"kernel": (3, 3), "padding": (1, 1, 1, 1)}
    for channels, bits in ((4, 8), (8, 7), (12, 6), (20, 5)):
        geometry = Geometry(in_shape=(8, 8, channels), filters=4, **same)
        matrix = compress(np.ones((4, geometry.taps), dtype=np.int8), 4, 8)
        (window,) = windows(geometry, channels // 4, matrix, TINY, 1)
        assert window.ring_bits == bits
    strided = Geometry(in_shape=(8, 8, 8), filters=4, stride=(4, 2), **same)
    matrix = compress(np.ones((4, strided.taps), dtype=np.int8), 4, 8)
    (window,) = windows(strided, 2, matrix, TINY, 1)
    assert window.ring_bits == 4


# --- Areas -----------------------------------------------------------------------------------


def test_areas_are_aligned_and_shared():
    areas = Areas(4)
    assert areas.reserve("map a", 100, 4096) == Region(0, 100)
    assert areas.store("x", bytes(range(70))) == Region(128, 70)
    assert areas.store("y", bytes(range(70))) == Region(128, 70)
    assert areas.reserve("d", 256, 256) == Region(256, 256)
    areas.fill(areas.regions["d"], b"abc")
    assert areas.size == 512
    start, contents = areas.contents()
    assert (start, len(contents)) == (128, 384)
    assert contents[:70].tolist() == list(range(70))
    assert contents[128:131].tobytes() == b"abc"
    assert not contents[131:].any()
    assert set(areas.regions) == {"map a", "x", "y", "d"}


def test_the_window_ends():
    areas = Areas(64)
    areas.reserve("a", memory.WINDOW_BYTES - 64)
    areas.reserve("b", 64)
    with pytest.raises(CspError, match="c: 4294967360 bytes of memory, an offset reaches 4294967"):
        areas.reserve("c", 1)
