# SPDX-License-Identifier: Apache-2.0
"""How fast the feeder is when nothing else holds it up."""

import dataclasses

import numpy as np
import pytest

from csp_algo.geometry import Geometry
from csp_hw.config import PRESETS
from csp_hw.feeder.feeder import latency
from sim.tiling import Tile
from tests.csp_hw.bench import rng_of
from tests.csp_hw.feeder_bench import feed, make_pass

CONFIG = PRESETS["tiny_4x4"]
CONVOLUTION = Geometry(in_shape=(6, 10, 8), filters=1, kernel=(3, 3), padding=(1, 1, 1, 1))
PLAIN = Geometry(in_shape=(8, 32, 4), filters=1)


def uniform(each, interleave):
    """Give the pass with tiles of the same I over the whole map."""
    rows, positions = each.schedule.config.rows, each.schedule.grid.positions
    bases = range(0, positions, rows * interleave)
    tiles = tuple(Tile(n, base, interleave) for n, base in enumerate(bases))
    return dataclasses.replace(each, schedule=dataclasses.replace(each.schedule, tiles=tiles))


def make(geometry, period, interleave, config=CONFIG, **options):
    rng = rng_of(200, period, interleave)
    options = {"period": period, "tight": False, "density": 1.0, "case": "dense", **options}
    each = uniform(make_pass(rng, config, geometry, **options), interleave)
    return dataclasses.replace(each, ring_bits=6)


@pytest.mark.parametrize(("period", "interleave"), [(1, 1), (1, 4), (3, 2), (8, 1), (8, 4), (7, 3)])
def test_one_word_a_cycle(period, interleave):
    # 72 taps: more cycles a tile than its input takes. So from the second tile on, words follow
    # each other over blocks and tiles without a gap.
    run = feed(CONFIG, [make(CONVOLUTION, period, interleave)])
    taken = np.array(run.activations.cycles)
    assert (np.diff(taken) == 1).all()


@pytest.mark.parametrize("interleave", [1, 2, 4])
def test_tiles_of_one_tap_follow_the_lanes(interleave):
    # A tile of I words takes rows · I cycles, as its input does and its drain at K = 1.
    each = make(PLAIN, 1, interleave, case="one_survivor")
    run = feed(CONFIG, [each])
    first = np.array(run.activations.cycles)[::interleave]
    assert (np.diff(first) == CONFIG.rows * interleave).all()


def test_one_beat_a_cycle():
    # The ring holds the whole map.
    each = make(CONVOLUTION, 8, 4)
    run = feed(CONFIG, [each])
    assert (np.diff(run.i.cycles) == 1).all()


def test_input_comes_while_older_tiles_are_read():
    # The ring holds little more than two tiles and what is around them, the map far more.
    geometry = dataclasses.replace(CONVOLUTION, in_shape=(18, 10, 8))
    each = make(geometry, 8, 2)
    run = feed(CONFIG, [dataclasses.replace(each, ring_bits=4)])
    assert (np.diff(run.activations.cycles) == 1).all()
    assert run.i.cycles[-1] > run.activations.cycles[len(run.activations.cycles) // 2]


@pytest.mark.parametrize("changes", [{}, {"rows": 8, "cols": 8}, {"rows": 2, "cols": 16}])
def test_latency(changes):
    # One tile of one tap, and the whole input needed: the first word follows the last beat.
    config = CONFIG.replace(**changes)
    geometry = Geometry(in_shape=(1, config.rows, config.cols), filters=1)
    run = feed(config, [make(geometry, 1, 1, config)])
    assert run.activations.cycles[0] - run.i.cycles[-1] == latency(config)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 1), (1, 11)])
def test_start(kernel):
    # Nothing can enter before the kernel is known: a cycle a row or column, and nine more.
    down, right = (side // 2 for side in kernel)
    geometry = Geometry(
        in_shape=(4, 4, 4), filters=1, kernel=kernel, padding=(down, right, down, right)
    )
    run = feed(CONFIG, [make(geometry, 1, 1)])
    assert run.i.cycles[0] - run.starts[0] == max(kernel) + 9
