# SPDX-License-Identifier: Apache-2.0
"""Peers that reckon with densities: by hand, and what must hold for all of them."""

import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from sim.model.constants import Constants, Setting
from sim.peers import cambricon, dense, diannao, scnn
from sim.peers.base import (
    Part,
    expected_groups,
    live_share,
    together,
    useful_products,
)
from sim.peers.catalogue import PEERS
from sim.workloads.catalogue import SHAPES, Work, workload
from sim.workloads.shapes.layer import LayerShape

MID = Constants()


def work_of(geometry, *, weights=1.0, inputs=1.0, repeat=1):
    shape = LayerShape(name="layer", geometry=geometry, repeat=repeat)
    return Work(shape=shape, weights=weights, inputs=inputs, outputs=1.0)


#: 16 × 16 pixels, 64 channels, 96 filters, padded.
LAYER = Geometry(in_shape=(16, 16, 64), filters=96, kernel=(3, 3), padding=(1, 1, 1, 1))


def test_dense_array_by_hand():
    cost = dense.cost(work_of(LAYER, weights=0.5))
    assert cost.cycles == 8 * 3 * 576  # 256 pixels on 32 rows, 96 filters on 32 columns
    assert dense.cost(work_of(LAYER), config=dense.Dense(fill=True)).cycles == 8 * 3 * 576 + 62
    assert cost.core[Part.MAC] == pytest.approx(0.54 * 256 * 96 * 576)  # zeros and padding too
    assert cost.core[Part.REGISTER] == pytest.approx(0.0104 * 40 * 256 * 96 * 576)
    assert cost.core[Part.IDLE] == 0
    words = 8 * 3 * 576
    assert cost.core[Part.BUFFER] == pytest.approx(
        2 * words * 167.908 + (256 * 64 + 256 * 96 + 96 * 576) / 32 * 161.331
    )
    assert cost.traffic.bytes(refetch=True) == 3 * 256 * 64 + 256 * 96 + 96 * 576


def test_groups_run_one_after_the_other():
    grouped = dataclasses.replace(LAYER, groups=2)
    assert dense.cost(work_of(grouped)).cycles == 2 * 8 * 2 * 288
    assert diannao.cost(work_of(grouped)).cycles == 256 * 2 * 3 * 9 * 2 / 4


def test_diannao_by_hand():
    cost = diannao.cost(work_of(LAYER))
    assert cost.cycles == 256 * 6 / 4 * 9 * 4  # pixels · groups of 16 filters / cores · R·S · C/16
    odd = work_of(Geometry(in_shape=(1, 1, 17), filters=17))
    assert diannao.cost(odd).cycles == 1 * 2  # two items on four cores, two steps each


def test_scnn_by_hand():
    # Tiles of 2 × 2; 6144 / (4 · 4) = 384 filters fit; 96 · 9 / 4 weight words for each channel.
    assert scnn.cost(work_of(LAYER)).cycles == 64 * 1 * 216
    # Few sums: 112 / 16 = 7 filters a group: 13 groups of 16 weight words, and 5 filters with 12.
    small = scnn.Scnn(sums=112)
    assert scnn.cost(work_of(LAYER), config=small).cycles == 64 * (13 * 16 + 12)
    # One pixel: each of 64 elements takes 2 of 128 filters, and uses 2 of 16 multipliers.
    one = work_of(Geometry(in_shape=(1, 1, 10), filters=128))
    assert scnn.cost(one).cycles == 10
    assert scnn.cost(one).utilisation == pytest.approx(2 / 16)


def test_scnn_makes_products_that_a_stride_throws_away():
    strided = work_of(dataclasses.replace(LAYER, stride=(2, 2)))
    assert scnn.cost(strided).cycles == scnn.cost(work_of(LAYER)).cycles
    assert scnn.cost(strided).useful == pytest.approx(scnn.cost(work_of(LAYER)).useful / 4, rel=0.1)


def test_cambricon_by_hand():
    work = work_of(LAYER)
    # 576 taps: windows of 256, 256 and 64; 16 a cycle.
    assert cambricon.cost_x(work).cycles == 256 * 96 / 64 * (16 + 16 + 4)
    assert cambricon.cost_s(work).cycles == 256 * 6 / 4 * (16 + 16 + 4)
    empty = work_of(LAYER, weights=0.0)
    assert cambricon.cost_x(empty).cycles == cambricon.cost_x(empty).utilisation == 0
    assert cambricon.cost_s(empty).cycles == 256 * 6 / 4 * 3  # a cycle a window


def test_cambricon_s_pays_for_unstructured_weights():
    work = work_of(LAYER, weights=0.1)
    coarse, free = cambricon.cost_s(work), cambricon.cost_s(work, coarse=False)
    # Hardly a tap is zero in all of 16 filters: 1 − 0.9^16 = 0.81.
    assert free.core[Part.MAC] / coarse.core[Part.MAC] == pytest.approx(8.147, abs=1e-3)
    assert free.cycles > 5 * coarse.cycles


def test_only_those_that_skip_them_gain_from_zero_inputs():
    full, half = work_of(LAYER, weights=0.3), work_of(LAYER, weights=0.3, inputs=0.5)
    gains = {name: peer(full, MID).cycles / peer(half, MID).cycles for name, peer in PEERS.items()}
    assert gains["dense"] == gains["diannao"] == gains["cambricon-x"] == 1
    assert gains["scnn"] > 1.01
    assert gains["cambricon-s"] > 1.5


@pytest.mark.parametrize("peer", PEERS)
def test_cycles_and_energy_grow_with_density(peer):
    costs = [
        PEERS[peer](work_of(LAYER, weights=density, inputs=density), MID)
        for density in (0.05, 0.2, 0.5, 0.9, 1.0)
    ]
    cycles, energy = [cost.cycles for cost in costs], [cost.total() for cost in costs]
    assert cycles == sorted(cycles)
    assert energy == sorted(energy)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_network_on_every_peer(peer, name):
    """No unit is busier than it can be: `Cost` refuses that itself."""
    network = workload(name)
    costs = [PEERS[peer](work, MID) for work in network.works]
    whole = together(name, costs)
    assert whole.units == 1024
    assert 0 < whole.utilisation <= 1
    assert whole.idle == pytest.approx(sum(cost.idle for cost in costs))
    assert whole.total() == pytest.approx(sum(cost.total() for cost in costs))
    assert whole.total(refetch=True) >= whole.total()
    assert all(value >= 0 for value in whole.energy().values())
    # A cascade that was drawn has its density but for a chunk.
    close = 2e-3 if peer == "csp-h" else 1e-6
    useful = sum(useful_products(work) for work in network.works)
    assert whole.useful == pytest.approx(useful, rel=close)


@pytest.mark.parametrize("peer", PEERS)
def test_repeats_are_added(peer):
    one, three = (PEERS[peer](work_of(LAYER, weights=0.4, repeat=n), MID) for n in (1, 3))
    assert three.cycles == pytest.approx(3 * one.cycles)
    assert three.total(refetch=True) == pytest.approx(3 * one.total(refetch=True))


@pytest.mark.parametrize("peer", PEERS)
def test_settings_are_in_order(peer):
    work = work_of(LAYER, weights=0.4, inputs=0.4)
    low, mid, high = (PEERS[peer](work, Constants(setting=setting)).total() for setting in Setting)
    assert low < mid < high


def test_useful_products_do_not_count_padding():
    # Of 16 places of each of three kernel rows, one is outside for two of them: 46 / 48.
    assert live_share(1, 16, 3, 1, 16) == pytest.approx(46 / 48)
    work = work_of(LAYER)
    assert useful_products(work) == pytest.approx(256 * 96 * 576 * (46 / 48) ** 2)
    ones = np.ones((1, *LAYER.in_shape))
    assert useful_products(work) == pytest.approx(LAYER.unfold(ones).sum() * 96)


def test_dilation_is_refused():
    with pytest.raises(CspError, match=r"^layer: dilated kernels are not modelled$"):
        useful_products(work_of(dataclasses.replace(LAYER, dilation=(2, 2))))


@pytest.mark.parametrize(("trials", "probability"), [(1, 0.5), (9, 0.2), (256, 0.3), (5000, 0.01)])
def test_expected_groups(trials, probability):
    drawn = np.random.default_rng(1).binomial(trials, probability, 200_000)
    wanted = np.maximum(1, -(-drawn // 4)).mean()
    assert expected_groups(trials, probability, 4, least=1) == pytest.approx(wanted, rel=0.01)


def test_expected_groups_by_hand():
    assert expected_groups(2, 0.5, 2) == pytest.approx(0.75)
    assert expected_groups(2, 0.5, 1) == pytest.approx(1.0)
    assert expected_groups(2, 0.5, 2, least=1) == pytest.approx(1.0)
    assert expected_groups(7, 1.0, 4) == 2
    assert expected_groups(7, 0.0, 4) == 0


def test_a_cost_that_cannot_be_is_refused():
    cost = dense.cost(work_of(LAYER))
    with pytest.raises(CspError, match=r"^layer: 2e\+09 useful of 1.41558e\+07 unit-cycles$"):
        dataclasses.replace(cost, useful=2e9)
    other = dense.cost(work_of(LAYER), constants=Constants(setting=Setting.LOW))
    for costs in ([], [cost, other]):
        with pytest.raises(CspError, match=r"^net: costs of one accelerator with one setting"):
            together("net", costs)
