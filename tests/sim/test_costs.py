# SPDX-License-Identifier: Apache-2.0
"""Costs of a network's nodes on the core."""

import dataclasses

import numpy as np
import pytest

from csp_algo import cascade
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.prune import keep, tap_moments
from csp_algo.quantize import quantise
from csp_algo.sensitivity import ladders
from csp_hw.config import preset
from sim.cosim.core.jobs import Timing
from sim.costs import Meter, Of, dense, densities, with_counts
from sim.model import actions
from sim.model.constants import Constants
from sim.model.core.passes import pass_cycles
from sim.model.energy import Core, energy
from sim.peers import csp_h
from sim.program.compiler import compile_network
from sim.workloads.catalogue import Work
from sim.workloads.network import INPUT, LAYER, network
from sim.workloads.shapes.layer import LayerShape
from tests.csp_algo.examples import residual_network

CONFIG = preset("tiny_4x4")


@pytest.fixture
def floats():
    return residual_network(np.random.default_rng(5))


@pytest.fixture
def images():
    return np.random.default_rng(6).integers(-128, 128, (2, 6, 6, 4)).astype(np.int8)


@pytest.fixture
def integers(floats, images):
    return quantise(floats, images, cols=CONFIG.cols, period=CONFIG.max_period)


def meter(of, filled=None):
    return Meter(of=of, config=CONFIG, densities=filled or {})


def test_cycles_are_those_of_the_core(integers):
    passes = compile_network(integers, CONFIG, 1).passes
    told = [pass_cycles(step, Timing()).cycles for step in passes]
    costs = meter(Of.CYCLES).nodes(integers)
    assert sum(costs.values()) == sum(told)
    assert list(costs) == list(dict.fromkeys(step.nodes[0] for step in passes))


def test_weights_are_those_of_kept_chunks(floats, integers):
    costs = meter(Of.WEIGHTS).nodes(integers)
    assert costs == {layer.name: np.count_nonzero(layer.weights) for layer in floats.layers()}
    assert meter(Of.WEIGHTS).nodes(dense(integers)) == {
        layer.name: layer.weights.size for layer in floats.layers()
    }


def test_energy_is_that_of_the_model():
    geometry = Geometry(in_shape=(9, 9, 16), filters=24, kernel=(3, 3), padding=(1, 1, 1, 1))
    work = Work(
        shape=LayerShape(name="layer", geometry=geometry), weights=0.4, inputs=0.6, outputs=1.0
    )
    config = csp_h.CspH(
        core=Core(config=CONFIG), cycles=lambda step, timing: pass_cycles(step, timing).cycles
    )
    expected = csp_h.cost(work, config=config).total()
    made = network(work, cols=CONFIG.cols, period=CONFIG.max_period)
    found = meter(Of.ENERGY, {INPUT: 0.6}).nodes(made)
    assert found == {LAYER: pytest.approx(expected, rel=1e-12)}
    assert meter(Of.ENERGY, {INPUT: 0.9}).nodes(made)[LAYER] > found[LAYER]


def test_maps_on_the_chip_take_the_energy_of_their_memory(integers):
    config = CONFIG.replace(map_bytes=8192)
    costs = Meter(of=Of.ENERGY, config=config, densities={}).nodes(integers)
    # "side" reads 6 × 6 × 16 activations and writes as many; four banks of 2 KiB, words of 32 bits.
    (step,) = (s for s in compile_network(integers, config, 1).passes if s.nodes == ("side",))
    assert step.kept_beats == 2 * 144
    done = actions.count_expected(step, 1.0)
    assert done.input_beats == done.result_beats == 0
    chip = energy(done, pass_cycles(step, Timing()).cycles, Core(config=config), Constants())
    memory = 144 * (2.2318 + 2.6351)
    dram = 64 * 4 * done.weight_beats
    assert costs["side"] == pytest.approx(sum(chip.values()) + memory + dram, abs=1e-3)


@pytest.mark.parametrize("of", list(Of))
def test_counts_cost_what_the_pruned_network_does(of, floats, images, integers):
    """And each layer what it costs whatever the others keep."""
    names = ("inner", "outer", "last")
    each = ladders(
        floats, names, CONFIG.cols, moments=tap_moments(floats, images), shares=(0.5, 0.2)
    )
    filled = densities(integers, floats.forward(images))
    by_level = [
        meter(of, filled).nodes(with_counts(integers, {name: each[name][level] for name in names}))
        for level in range(2)
    ]
    mixed = {name: each[name][number % 2] for number, name in enumerate(names)}
    costs = meter(of, filled).nodes(with_counts(integers, mixed))
    pruned = keep(floats, mixed, CONFIG.cols)
    same = quantise(pruned, images, cols=CONFIG.cols, period=CONFIG.max_period)
    assert costs == pytest.approx(meter(of, filled).nodes(same))
    for number, name in enumerate(names):
        assert costs[name] == pytest.approx(by_level[number % 2][name])
        assert by_level[1][name] < by_level[0][name]


def test_densities_are_those_of_the_integers(floats, images, integers):
    values = floats.forward(images)
    found = densities(integers, values)
    levels = np.rint(values["stem"] / integers.scales()["stem"])
    assert found["stem"] == np.mean(levels != 0)
    assert 0 < found["stem"] < 1
    assert set(found) == {"image", *(node.name for node in floats.nodes)}


def test_what_the_core_cannot_run_is_told(integers):
    wrong = Meter(of=Of.CYCLES, config=preset("csp_8x8"), densities={})
    message = "^no cycles to be told: network net: stored for 4 columns, the array has 8: repack$"
    with pytest.raises(CspError, match=message):
        wrong.nodes(integers)
    engine = dataclasses.replace(CONFIG, rows=3)
    message = "^no cycles to be told: rows of a core must be a power of two, not 3$"
    with pytest.raises(CspError, match=message):
        Meter(of=Of.CYCLES, config=engine, densities={}).nodes(integers)


def test_dense_has_all_chunks(integers):
    for layer in dense(integers).layers():
        for matrix in layer.matrices:
            assert (matrix.counts == cascade.chunks(matrix.filters, matrix.cols)).all()
