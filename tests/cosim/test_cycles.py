# SPDX-License-Identifier: Apache-2.0
"""The cycle model against the counters of the Verilog, to the cycle, and what it promises."""

import dataclasses

import numpy as np
import pytest

from csp_algo.compress import compress
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_hw.config import CspConfig
from csp_hw.counters import CYCLES, SPENT
from sim import golden
from sim.cosim.build import build
from sim.cosim.runner import LayerJob, run_layers
from sim.model.cycles import cycles
from sim.schedule import Schedule
from tests.strategies import CASES, random_activations, random_layer, random_weights

SMALL = CspConfig(rows=3, cols=4, depth=16, max_period=32, max_interleave=8, lookahead=4)
WIDE = CspConfig(rows=2, cols=4, depth=64, max_period=32, max_interleave=8, lookahead=8)
#: Groups of 2 × 2 PEs, and a single row of groups of 4 × 4.
SHARED = SMALL.replace(rows=6, share=2)
BIG_GROUPS = WIDE.replace(rows=4, cols=8, share=4)


def run(config, layers, *, images=1, seed=0):
    """Give each layer's schedules and counters; all results must be right."""
    rng = np.random.default_rng(seed)
    jobs = []
    for layer in layers:
        shape = (images, *layer.geometry.in_shape)
        inputs = random_activations(rng, shape, ActDtype.UINT8)
        expected, _ = golden.layer_forward(layer, inputs, acc_bits=config.acc_bits)
        jobs.append(LayerJob(layer=layer, inputs=inputs, expected=expected))
    for done in run_layers(build(config), jobs):
        assert done.mismatch is None, str(done.mismatch)
        yield from zip(done.schedules, done.counters, strict=True)


def check(schedule, counters):
    """Hold the counters to the model."""
    model = cycles(schedule.config, schedule.work)
    spent = {name: counters[name] for name in SPENT}
    assert spent == dict.fromkeys(SPENT, 0) | dataclasses.asdict(model)
    assert counters[CYCLES] == model.cycles == sum(spent.values())
    assert schedule.bound().cycles <= model.cycles


@pytest.mark.parametrize(
    "config", [SMALL, WIDE, SHARED, BIG_GROUPS], ids=["L4", "L8", "share 2", "share 4"]
)
def test_model_equals_counters(config):
    rng = np.random.default_rng(config.lookahead)
    layers = [
        random_layer(
            rng,
            cols=config.cols,
            period=int(rng.choice([1, 2, 3, 4, 8, 16, 32])),
            case=CASES[number % len(CASES)],
            max_taps=int(rng.choice([8, 64, 400])),
            groups=1,
        )
        for number in range(60)
    ]
    for schedule, counters in run(config, layers, images=2):
        check(schedule, counters)


def sparse_layer(rng, *, taps, alive, chunks, period, cols, pixels):
    """Give a linear layer with a share of its taps alive, at random, and mean count ≥ 1.5."""
    counts = np.zeros(taps, dtype=np.uint8)
    kept = rng.permutation(taps)[: int(np.ceil(taps * alive))]
    counts[kept] = 1
    counts[rng.permutation(kept)[: -(-len(kept) // 2)]] = 2
    layer = random_layer(
        rng,
        cols=cols,
        period=period,
        geometry=Geometry(in_shape=(1, pixels, taps), filters=chunks * cols),
        dtype=ActDtype.UINT8,
        acc_shift=0,
    )
    weights = random_weights(rng, chunks * cols, counts, cols)
    return dataclasses.replace(layer, matrices=(compress(weights, cols, period, counts=counts),))


@pytest.mark.parametrize(
    ("lookahead", "alive"), [(4, 1 / 4), (4, 1 / 2), (8, 1 / 8), (16, 1 / 8), (8, 1)]
)
def test_gaps_are_hidden(lookahead, alive):
    """98 % of the bound with a mean count of 1.5, at random gaps, and even with I = 1.

    The layers are of 1,500 cycles and more: a few bubbles come before the queues have filled.
    """
    config = dataclasses.replace(WIDE, lookahead=lookahead, max_interleave=4)
    rng = np.random.default_rng(lookahead)
    layers = [
        sparse_layer(
            rng, taps=int(1024 / alive), alive=alive, chunks=2, period=period, cols=4, pixels=pixels
        )
        for period in (1, 4, 8, 32)
        for pixels in (2, 16)  # I = 1, one tile; I = 4, two tiles
    ]
    for schedule, counters in run(config, layers):
        check(schedule, counters)
        assert schedule.bound().cycles / counters[CYCLES] >= 0.98


def test_one_survivor_a_word_is_free_however_it_lies():
    """Any surviving tap of each word of L counts: a word costs no more than its tap's product."""
    rng = np.random.default_rng(0)
    counts = np.zeros((64, 8), dtype=np.uint8)
    counts[np.arange(64), rng.integers(0, 8, 64)] = 1
    layer = random_layer(
        rng,
        cols=4,
        period=8,
        geometry=Geometry(in_shape=(1, 2, counts.size), filters=4),
        dtype=ActDtype.UINT8,
    )
    weights = random_weights(rng, 4, counts.ravel(), 4)
    layer = dataclasses.replace(layer, matrices=(compress(weights, 4, 8, counts=counts.ravel()),))
    ((schedule, counters),) = run(WIDE, [layer])
    check(schedule, counters)
    assert counters[CYCLES] == schedule.bound().cycles


def test_model_knows_every_kind_of_stall():
    """The comparison above is worth little if nothing ever stalls."""
    rng = np.random.default_rng(1)
    config = dataclasses.replace(SMALL, lookahead=1, depth=4)
    geometry = Geometry(in_shape=(6, 6, 64), filters=16)  # K = depth: no tile overlaps
    layer = random_layer(rng, cols=4, case="gaps", geometry=geometry)
    model = cycles(config, Schedule.make(layer, 0, config, 1).work)
    assert model.issued > 0
    assert model.stalled_counts > 100
    assert model.stalled_drain > 0
    dense = random_layer(rng, cols=4, case="dense", geometry=geometry)
    assert cycles(config, Schedule.make(dense, 0, config, 1).work).stalled_bank > 100
