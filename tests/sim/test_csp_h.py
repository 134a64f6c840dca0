# SPDX-License-Identifier: Apache-2.0
"""CSP-H beside its peers: the same zeros, traffic by hand, memories instead of DRAM."""

import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from sim.cosim.core.jobs import Timing
from sim.model.bound import pass_bound
from sim.model.constants import Constants, Setting
from sim.model.energy import Component, Core
from sim.model.sram import access
from sim.peers import csp_h, sparten
from sim.peers.base import Part, Traffic, together
from sim.peers.csp_h import PARTS, CspH, Place
from sim.program.compiler import compile_network
from sim.workloads.catalogue import Work, workload
from sim.workloads.network import network
from sim.workloads.operands import Pruning, cascade, operands
from sim.workloads.shapes.layer import LayerShape

MID = Constants()
LAYER = Geometry(in_shape=(16, 16, 64), filters=96, kernel=(3, 3), padding=(1, 1, 1, 1))
#: Three channels fill a beat of 32 bytes.
IMAGE = Geometry(in_shape=(16, 16, 3), filters=32, kernel=(3, 3), padding=(1, 1, 1, 1))


def work_of(geometry, *, weights=1.0, inputs=1.0, outputs=1.0, repeat=1):
    shape = LayerShape(name="layer", geometry=geometry, repeat=repeat)
    return Work(shape=shape, weights=weights, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_same_cascade_as_sparten_multiplies(groups):
    work = work_of(dataclasses.replace(LAYER, groups=groups), weights=0.3, inputs=0.5)
    masks = operands(work, Pruning.CASCADE).weights
    counts = cascade(work)
    assert len(counts) == groups
    layer = network(work, cols=32, period=8).nodes[0]
    for mask, count, matrix in zip(masks, counts, layer.matrices, strict=True):
        chunks = -(-mask.sum(axis=0) // 32)
        np.testing.assert_array_equal(count, chunks)
        np.testing.assert_array_equal(matrix.counts, chunks)
        assert matrix.period == 8


def test_traffic_by_hand():
    cost = csp_h.cost(work_of(LAYER))
    assert cost.traffic.inputs == 256 * 64
    assert cost.traffic.outputs == 256 * 96
    assert cost.traffic.refetched == 0
    # Descriptor, parameters, tiles in beats of 32 bytes, counts, weights.
    tiles = len(
        compile_network(network(work_of(LAYER), cols=32, period=32), CONFIG, 1)
        .passes[0]
        .schedule.tiles
    )
    assert cost.traffic.weights == 256 + 8 * 96 + 32 * -(-4 * tiles // 32) + 576 + 96 * 576
    assert cost.actions.useful == 256 * 96 * 576
    image = csp_h.cost(work_of(IMAGE))
    assert image.traffic.inputs == 256 * 32


CONFIG = Core().config


def maps_kept(size, **options):
    """Give a core with a map memory."""
    return CspH(core=Core(config=CONFIG.replace(map_bytes=size)), **options)


def test_compressed_maps_by_hand():
    config = CspH(compressed=True)
    cost = csp_h.cost(work_of(LAYER, inputs=0.4, outputs=0.95), config=config)
    assert cost.traffic.inputs == pytest.approx(256 * 64 * (0.4 + 1 / 8))
    assert cost.traffic.outputs == 256 * 96  # whole is less than with a mask
    image = csp_h.cost(work_of(IMAGE), config=config)
    assert image.traffic.inputs == pytest.approx(256 * 32 * (3 / 32 + 1 / 8))


def test_memories_instead_of_dram():
    work = work_of(LAYER, weights=0.3, repeat=3)
    plain = csp_h.cost(work)
    kept = csp_h.cost(work, config=CspH(weights_kept=True))
    assert kept.traffic.weights == 0
    assert kept.components[Component.MEMORY] == pytest.approx(plain.traffic.weights / 32 * 251.863)
    # A map may take half of the memory.
    size = 256 * 96
    both = csp_h.cost(work, config=maps_kept(1 << 16))
    assert (both.traffic.inputs, both.traffic.outputs) == (0, 0)
    bank = access(1 << 14, 256, MID)
    memory = 3 * 256 * (64 * bank.read + 96 * bank.write) / 32
    assert both.components[Component.MEMORY] == pytest.approx(memory)
    one = csp_h.cost(work, config=maps_kept(1 << 15))
    assert (one.traffic.inputs, one.traffic.outputs) == (0, 3 * size)
    ends = csp_h.cost(work, config=maps_kept(1 << 16), place=Place(first=True, last=True))
    assert ends.traffic == plain.traffic
    two = csp_h.cost(work, config=maps_kept(1 << 16, images=2))
    assert two.traffic.outputs == 3 * size


def test_a_pooled_map_is_written_as_it_is_read():
    works = workload("vgg16").works
    places = csp_h.places(workload("vgg16"))
    pooled = [work.shape.name for work, place in zip(works, places, strict=True) if place.read]
    assert pooled == ["conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"]
    assert [place.first for place in places] == [True] + [False] * 15
    assert [place.last for place in places] == [False] * 15 + [True]
    cost = csp_h.cost(works[3], config=CspH(pools_fused=True), place=places[3])
    assert cost.traffic.outputs == 56 * 56 * 128


def test_what_others_keep_is_divided_alike():
    work = work_of(LAYER, repeat=2)
    stored = Traffic(weights=10, inputs=8192, outputs=8194, refetched=70)
    config = maps_kept(1 << 13, weights_kept=True)
    moved, kept = csp_h.divided(stored, work, config, None)
    assert moved == Traffic(weights=0, inputs=0, outputs=8194, refetched=0)
    assert kept == Traffic(weights=10, inputs=8192, outputs=0)


def test_components_are_parts():
    cost = csp_h.cost(work_of(LAYER, weights=0.3, inputs=0.4))
    assert set(PARTS) == set(Component) == set(cost.components)
    assert sum(cost.core.values()) == pytest.approx(sum(cost.components.values()))
    assert cost.energy()[Part.DRAM] == 64 * cost.traffic.bytes(refetch=False)
    both = csp_h.by_component([cost, cost])
    assert both[Component.MAC] == pytest.approx(2 * cost.components[Component.MAC])


def test_images_share_weights_and_fill_lanes():
    linear = work_of(Geometry(in_shape=(1, 1, 256), filters=256), weights=0.3)
    one, many = csp_h.cost(linear), csp_h.cost(linear, config=CspH(images=32))
    assert many.actions.useful == pytest.approx(one.actions.useful)
    assert many.actions.slots == pytest.approx(one.actions.slots / 32)
    assert many.traffic.weights < one.traffic.weights / 20
    assert many.cycles < one.cycles / 10


def test_cycles_are_the_bound_and_the_scan():
    """Eight tiles of 50 words of counts, of which few survive, and 32 results a tile."""
    geometry = Geometry(in_shape=(16, 16, 32), filters=32, kernel=(5, 5), padding=(2, 2, 2, 2))
    made = network(work_of(geometry, weights=0.02), cols=32, period=32)
    (step,) = compile_network(made, CONFIG.replace(max_interleave=1), 1).passes
    assert len(step.schedule.tiles) == 8
    words = (step.schedule.counts() > 0).sum(axis=1)
    scan, steps = int(np.maximum(words, 1).sum()), step.schedule.steps
    assert len(words) == 50 > 32 > steps
    # Without the scan results are what tiles wait for: steps + 8 · 32; with it, 8 scans + 32.
    later = 8 * scan + 32 - (steps + 8 * 32)
    timing = Timing()
    assert csp_h.bound_cycles(step, timing) == pass_bound(step, timing).cycles + later
    dense = compile_network(network(work_of(LAYER), cols=32, period=32), CONFIG, 1).passes[0]
    assert csp_h.bound_cycles(dense, timing) == pass_bound(dense, timing).cycles
    # Another model takes its place.
    model = CspH(cycles=lambda step, timing: 1e6 + step.input_beats + timing.read_latency)
    assert csp_h.cost(work_of(LAYER), config=model).cycles == 1e6 + 512 + 20


def test_sparten_with_other_constants_is_not_simulated_again():
    works = [
        work_of(dataclasses.replace(LAYER, filters=n), weights=0.3, inputs=0.4) for n in (32, 96)
    ]
    high = Constants(setting=Setting.HIGH)

    def costs(constants):
        found = [
            sparten.simulate(work, operands(work, Pruning.CASCADE), constants=constants)
            for work in works
        ]
        return [each[sparten.Balance.GB_H] for each in found]

    mid, wanted = costs(MID), costs(high)
    for one, other in zip(mid, wanted, strict=True):
        assert sparten.with_constants(one, high) == other
    whole = sparten.network_cost("both", mid)
    assert whole.total() == pytest.approx(together("both", mid).total())
    assert whole.barrier == sum(cost.barrier for cost in mid)
    assert sparten.with_constants(whole, high).total() == pytest.approx(
        together("both", wanted).total()
    )
    unlike = dataclasses.replace(mid[0], balance=sparten.Balance.NONE)
    with pytest.raises(CspError, match=r"^both: costs with one balancing are needed$"):
        sparten.network_cost("both", [mid[0], unlike])


def test_what_cannot_be_is_refused():
    with pytest.raises(CspError, match="images"):
        CspH(images=0)
