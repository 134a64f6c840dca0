# SPDX-License-Identifier: Apache-2.0
"""The feeder against the schedule of the same layer: commands and words of every tile."""

import dataclasses
import gc
import itertools

import pytest

from csp_algo.geometry import Geometry
from csp_hw.config import PRESETS, ConfigError
from csp_hw.feeder import Feeder
from tests.csp_hw.bench import chance, pick, rng_of
from tests.csp_hw.feeder_bench import feed, make_pass, random_geometry

CONFIG = PRESETS["tiny_4x4"]
STEADY = (0.0,) * 5


def random_gaps(rng):
    return STEADY if chance(rng, 0.4) else [pick(rng, [0.0, 0.3, 0.8]) for _ in STEADY]


def check(rng, config, geometries, **options):
    """Feed a pass over each geometry; those that do not fit are left out."""
    passes = [make_pass(rng, config, geometry, **options) for geometry in geometries]
    passes = [each for each in passes if each is not None]
    assert passes
    feed(config, passes, gaps=random_gaps(rng))
    return passes


@pytest.mark.parametrize("seed", range(8))
def test_random(seed):
    rng = rng_of(seed, 100)
    check(
        rng,
        CONFIG,
        [random_geometry(rng, side=8) for _ in range(2)],
        images=pick(rng, [1, 1, 2, 4]),
        tight=chance(rng, 0.6),
        every=chance(rng, 0.3),
    )


@pytest.mark.parametrize("stride", list(itertools.product([1, 2, 4], repeat=2)))
def test_strides(stride):
    rng = rng_of(101, *stride)
    kernel = tuple(pick(rng, [2, 3, 5]) for _ in range(2))
    geometry = random_geometry(rng, stride=stride, kernel=kernel, side=12, channels=4)
    check(rng, CONFIG, [geometry], images=2, density=0.7)


def test_phases_of_three_beats():
    rng = rng_of(112)
    geometry = Geometry(in_shape=(7, 9, 12), filters=1, kernel=(3, 3), stride=(2, 2))
    check(rng, CONFIG, [geometry], density=0.5)


@pytest.mark.parametrize("kernel", [(11, 11), (11, 1), (1, 11), (1, 1)])
def test_kernels(kernel):
    rng = rng_of(102, *kernel)
    geometry = random_geometry(rng, stride=(1, 1), kernel=kernel, side=12, channels=2)
    check(rng, CONFIG.replace(line_bytes=16_384), [geometry], density=0.3)


def test_linear_layers_have_images_for_lanes():
    rng = rng_of(103)
    geometries = [Geometry(in_shape=(1, 1, channels), filters=1) for channels in (1, 4, 21)]
    check(rng, CONFIG, geometries, images=37, density=0.8)


def test_tokens_lie_along_x():
    rng = rng_of(104)
    check(rng, CONFIG, [Geometry(in_shape=(1, 23, 9), filters=1)], images=2, density=0.8)


def test_maps_smaller_than_the_rows():
    rng = rng_of(105)
    config = CONFIG.replace(rows=16)
    geometry = Geometry(in_shape=(3, 2, 5), filters=1, kernel=(3, 3), padding=(1, 1, 1, 1))
    check(rng, config, [geometry], images=9, density=1.0)


def test_lines_longer_than_the_output():
    # No padding: of 9 × 9 positions, 5 × 5 have a pixel, and whole groups are dead.
    rng = rng_of(106)
    geometry = Geometry(in_shape=(9, 9, 3), filters=1, kernel=(5, 5))
    passes = check(rng, CONFIG, [geometry, geometry], images=2, density=0.5)
    assert any(
        first.base + first.interleave * CONFIG.rows < second.base
        for each in passes
        for first, second in itertools.pairwise(each.schedule.tiles)
    )


def test_lines_shorter_than_the_output():
    rng = rng_of(107)
    geometry = Geometry(in_shape=(2, 2, 3), filters=1, kernel=(3, 3), padding=(2, 2, 2, 2))
    check(rng, CONFIG, [geometry], images=3, density=1.0)


def test_wide_map():
    rng = rng_of(108)
    config = CONFIG.replace(line_bytes=16_384)
    geometry = Geometry(in_shape=(2, 500, 1), filters=1, kernel=(3, 1), padding=(1, 0, 1, 0))
    check(rng, config, [geometry], density=0.5)


@pytest.mark.parametrize("case", ["empty", "one_survivor", "gaps"])
@pytest.mark.parametrize("period", [1, 3, 8])
def test_sparse(case, period):
    rng = rng_of(109, period)
    geometry = random_geometry(rng, stride=(1, 1), kernel=(3, 3))
    check(rng, CONFIG, [geometry] * 2, case=case, period=period, density=1.0)


def test_all_of_the_map_enters():
    # Tiles for the first lines only; the rest of the map is swallowed before the pass is done.
    rng = rng_of(113)
    geometry = Geometry(in_shape=(12, 6, 3), filters=1, kernel=(3, 3), padding=(1, 1, 1, 1))
    each = make_pass(rng, CONFIG, geometry, density=1.0)
    schedule = dataclasses.replace(each.schedule, tiles=each.schedule.tiles[:2])
    feed(CONFIG, [dataclasses.replace(each, schedule=schedule)] * 2, gaps=(0.5, 0, 0, 0, 0))


def test_commands_wait():
    # Tiles of one word: all of what follows could be done before a command is taken.
    rng = rng_of(111)
    config = CONFIG.replace(max_interleave=1)
    geometry = Geometry(in_shape=(4, 30, 1), filters=1, padding=(0, 0, 0, 3))
    each = make_pass(rng, config, geometry, case="dense", density=1.0, tight=False)
    feed(config, [each], gaps=(0.0, 0.0, 0.0, 0.97, 0.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 2, "max_interleave": 1, "max_period": 1},
        {"rows": 2, "cols": 16, "max_interleave": 8},
        {"rows": 8, "cols": 8},
        {"rows": 16, "max_interleave": 2, "max_period": 2},
        {"rows": 32, "cols": 4, "line_bytes": 32_768},
    ],
)
def test_other_sizes(changes):
    config = CONFIG.replace(**changes)
    rng = rng_of(110, *changes.values())
    geometries = [random_geometry(rng, channels=20) for _ in range(2)]
    check(rng, config, geometries, period=min(3, config.max_period), density=0.5)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_needs_a_core():
    with pytest.raises(ConfigError, match="rows of a core must be a power of two, not 3"):
        Feeder(CONFIG.replace(rows=3))
    gc.collect()  # what was refused is never elaborated, and says so when it goes
