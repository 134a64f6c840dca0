# SPDX-License-Identifier: Apache-2.0
"""SparTen, against a reference that walks through every broadcast, and by hand."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from sim.model.constants import Constants, Setting
from sim.peers import dense
from sim.peers.base import Part, useful_products
from sim.peers.sparten import Balance, SparTen, simulate
from sim.workloads.catalogue import Work, workload
from sim.workloads.operands import Operands, Pruning, operands
from sim.workloads.shapes.layer import LayerShape

SMALL = SparTen(clusters=3, units=2, chunk=4)


def work_of(geometry, *, weights=0.5, inputs=0.5, repeat=1):
    shape = LayerShape(name="layer", geometry=geometry, repeat=repeat)
    return Work(shape=shape, weights=weights, inputs=inputs, outputs=0.5)


def linear(taps, filters, tokens=1, **densities):
    return work_of(Geometry(in_shape=(1, tokens, taps), filters=filters), **densities)


def units_of(weights, balance, units, chunk_weights):
    """Give, for each group of filters, the filters of each unit."""
    count = len(weights)
    if balance is Balance.NONE:
        return [
            [[f] for f in range(first, min(first + units, count))]
            for first in range(0, count, units)
        ]
    ranks = sorted(range(count), key=lambda f: -int(weights[f].sum()))
    groups = -(-count // (2 * units))
    ranks += [None] * (2 * units * groups - count)
    pairs = [(ranks[i], ranks[-1 - i]) for i in range(units * groups)]
    found = []
    for group in range(groups):
        members = pairs[group * units : (group + 1) * units]
        if balance is Balance.GB_H:
            flat = [pair[0] for pair in members] + [pair[1] for pair in members]
            flat.sort(key=lambda f: 1 if f is None else -int(chunk_weights[f].sum()))
            members = [(flat[i], flat[-1 - i]) for i in range(units)]
        found.append([[f for f in pair if f is not None] for pair in members])
    return found


def reference(work, masks, config, balance):
    """Give cycles and useful products, one broadcast after the other."""
    geometry = work.shape.geometry
    top, left = geometry.padding[:2]
    rows, columns = geometry.kernel
    channels = geometry.group_channels
    height, width, _ = geometry.out_shape
    items, useful = [], 0
    for group, weights in enumerate(masks.weights):
        groups = len(units_of(weights, balance, config.units, weights))
        for y in range(height):
            for x in range(width):
                times = [0] * groups
                for r in range(rows):
                    for s in range(columns):
                        down = y * geometry.stride[0] + r - top
                        right = x * geometry.stride[1] + s - left
                        if not (
                            0 <= down < geometry.in_shape[0] and 0 <= right < geometry.in_shape[1]
                        ):
                            continue
                        for first in range(0, channels, config.chunk):
                            last = min(first + config.chunk, channels)
                            tap = (r * columns + s) * channels
                            chunk = weights[:, tap + first : tap + last]
                            own = group * channels
                            given_ = masks.inputs[down, right, own + first : own + last]
                            for number, units in enumerate(
                                units_of(weights, balance, config.units, chunk)
                            ):
                                each = [
                                    sum(int((chunk[f] & given_).sum()) for f in u) for u in units
                                ]
                                useful += sum(each)
                                times[number] += config.start_up + max(config.schedule, *each)
                items += times
    bounds = [i * len(items) // config.clusters for i in range(config.clusters + 1)]
    loads = [sum(items[first:last]) for first, last in itertools.pairwise(bounds)]
    return max(loads), useful


@given(
    st.builds(
        dict,
        in_shape=st.tuples(st.integers(3, 5), st.integers(3, 5), st.sampled_from([2, 4, 10])),
        filters=st.sampled_from([2, 6, 10]),
        kernel=st.sampled_from([(1, 1), (3, 3), (1, 3)]),
        stride=st.sampled_from([(1, 1), (2, 2), (2, 1)]),
        padding=st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0)]),
        groups=st.sampled_from([1, 2]),
    ),
    st.floats(0, 1),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=25)
def test_every_broadcast(fields, density, start_up, schedule, seed):
    work = work_of(Geometry(**fields))
    geometry = work.shape.geometry
    rng = np.random.default_rng(seed)
    masks = Operands(
        weights=rng.random((geometry.groups, geometry.group_filters, geometry.taps)) < density,
        inputs=rng.random(geometry.in_shape) < 0.6,
    )
    config = dataclasses.replace(SMALL, start_up=start_up, schedule=schedule)
    costs = simulate(work, masks, config=config)
    for balance in Balance:
        cycles, useful = reference(work, masks, config, balance)
        assert (costs[balance].cycles, costs[balance].useful) == (cycles, useful)


def by_hand():
    """One pixel, four filters of two chunks; matches of the chunks: 4 0, 1 1, 0 2, 2 2."""
    weights = np.array(
        [
            [1, 1, 1, 1, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 0, 0, 0],
            [0, 0, 0, 0, 1, 1, 0, 0],
            [0, 1, 1, 0, 1, 1, 0, 0],
        ],
        dtype=bool,
    )
    return linear(8, 4), Operands(weights=weights[None], inputs=np.ones((1, 1, 8), dtype=bool))


@pytest.mark.parametrize(
    ("balance", "cycles"),
    [
        # Filters 0 1 and 2 3: max(4, 1) + max(0, 1), max(0, 2) + max(2, 2); both on one cluster.
        (Balance.NONE, 5 + 4),
        # Sorted 0 3 1 2; units {0, 2} and {3, 1}: max(4, 3) + max(2, 3).
        (Balance.GB_S, 4 + 3),
        # First chunk sorted 0 3 1 2: {0, 2}, {3, 1}; second 3 2 1 0: {3, 0}, {2, 1}.
        (Balance.GB_H, 4 + 3),
    ],
)
def test_by_hand(balance, cycles):
    work, masks = by_hand()
    cost = simulate(work, masks, config=dataclasses.replace(SMALL, clusters=1))[balance]
    assert cost.cycles == cycles
    assert cost.useful == 12
    assert cost.barrier == 2 * cycles - 12
    assert cost.unused == cost.clusters == 0


def test_start_up_and_schedule_by_hand():
    work, masks = by_hand()

    def cycles(**changes):
        config = dataclasses.replace(SMALL, clusters=1, **changes)
        return simulate(work, masks, config=config)[Balance.NONE].cycles

    assert cycles(start_up=3) == 9 + 4 * 3
    assert cycles(schedule=3) == 4 + 3 + 3 + 3
    assert cycles(schedule=0) == 9


def test_gb_h_is_better_where_chunks_differ():
    """Filters as dense as each other as a whole, but in different chunks."""
    weights = np.zeros((4, 8), dtype=bool)
    weights[:2, :4] = True
    weights[2:, 4:] = True
    masks = Operands(weights=weights[[0, 2, 3, 1]][None], inputs=np.ones((1, 1, 8), dtype=bool))
    costs = simulate(linear(8, 4), masks, config=dataclasses.replace(SMALL, clusters=1))
    assert costs[Balance.GB_S].cycles == 16
    assert costs[Balance.GB_H].cycles == 8


def test_packed_chunks_leave_fewer_gaps():
    """Three channels: one full chunk of a kernel row instead of three short ones, of 3 each."""
    work = work_of(Geometry(in_shape=(3, 4, 3), filters=2, kernel=(1, 4)))
    weights = np.zeros((1, 2, 12), dtype=bool)
    weights[0, 0, 0] = weights[0, 1, 3] = True  # in different kernel positions
    masks = Operands(weights=weights, inputs=np.ones((3, 4, 3), dtype=bool))
    config = SparTen(clusters=1, units=2)
    short = simulate(work, masks, config=config)[Balance.NONE]
    packed = simulate(work, masks, config=dataclasses.replace(config, packed=True))[Balance.NONE]
    assert short.cycles == 3 * 4
    assert packed.cycles == 3 * 1
    assert short.useful == packed.useful == 6


def test_dense_operands_take_as_long_as_on_a_dense_array():
    geometry = Geometry(in_shape=(8, 8, 256), filters=64, kernel=(3, 3))
    geometry = dataclasses.replace(geometry, in_shape=(10, 10, 256))  # 64 pixels, no padding
    work = work_of(geometry, weights=1.0, inputs=1.0)
    cost = simulate(work, operands(work, Pruning.UNSTRUCTURED))
    assert cost[Balance.NONE].cycles == dense.cost(work).cycles == 2 * 2 * 9 * 256
    assert cost[Balance.NONE].utilisation == 1.0
    assert cost[Balance.GB_S].cycles == cost[Balance.GB_H].cycles == cost[Balance.NONE].cycles


def test_cascade_weights_are_balanced_by_nature():
    """All filters of a chunk have the same taps, so nobody waits for another."""
    work = dataclasses.replace(workload("resnet50").works[20], inputs=0.5)
    assert work.shape.geometry.filters % 32 == 0
    cost = simulate(work, operands(work, Pruning.CASCADE), config=SparTen(schedule=0))
    assert cost[Balance.NONE].barrier == cost[Balance.NONE].unused == 0


def test_no_unit_exceeds_its_work():
    work = workload("resnet50").works[25]
    for cost in simulate(work, operands(work, Pruning.UNSTRUCTURED)).values():
        spent = cost.useful + cost.unused + cost.barrier + cost.clusters
        assert spent == cost.cycles * cost.units
        assert min(cost.useful, cost.unused, cost.barrier, cost.clusters) >= 0
        assert cost.idle == spent - cost.useful


def test_cycles_grow_with_density():
    cycles = []
    for density in (0.0, 0.1, 0.3, 0.6, 1.0):
        work = linear(512, 64, tokens=32, weights=density, inputs=0.5)
        costs = simulate(work, operands(work, Pruning.UNSTRUCTURED))
        cycles.append([costs[balance].cycles for balance in Balance])
    assert cycles[0] == [2 * 4, 4, 4]  # a cycle a chunk and broadcast, with nothing to multiply
    assert (np.diff(cycles, axis=0) > 0).all()


def test_expected_products_are_those_that_come_out():
    work = workload("resnet50").works[14]
    masks = operands(work, Pruning.UNSTRUCTURED)
    cost = simulate(work, masks)[Balance.NONE]
    assert cost.useful == pytest.approx(useful_products(work), rel=0.02)


def test_energy_by_hand():
    work, masks = by_hand()
    config = dataclasses.replace(SMALL, clusters=1)
    costs = simulate(work, masks, config=config, constants=Constants(setting=Setting.HIGH))
    core = costs[Balance.GB_H].core
    assert core[Part.JOIN] == pytest.approx(12 * (48.00 + 6.40) / 32 / 0.8)
    assert core[Part.IDLE] == pytest.approx(2 * 118.30 / 32 / 0.8)  # 14 unit-cycles, all paid
    assert costs[Balance.GB_S].core[Part.ROUTE] == 0
    traffic = costs[Balance.NONE].traffic
    assert traffic.weights == 12 + 32 / 8
    assert traffic.inputs == 8 + 8 / 8
    assert traffic.outputs == 4 * 0.5 + 4 / 8
    assert traffic.refetched == 9  # two groups of filters
    assert costs[Balance.GB_S].traffic.refetched == 0
    low = simulate(work, masks, config=config, constants=Constants(setting=Setting.LOW))
    assert low[Balance.NONE].core[Part.IDLE] == 0


def test_repeats_are_added():
    work, masks = by_hand()
    twice = dataclasses.replace(work, shape=dataclasses.replace(work.shape, repeat=2))
    one, two = simulate(work, masks)[Balance.GB_H], simulate(twice, masks)[Balance.GB_H]
    for name in ("cycles", "useful", "barrier", "clusters", "unused"):
        assert getattr(two, name) == 2 * getattr(one, name)
    assert two.total() == pytest.approx(2 * one.total())


def test_masks_of_another_shape_are_refused():
    work, masks = by_hand()
    with pytest.raises(
        CspError, match=r"^layer: masks have shapes \(1, 4, 8\) and \(1, 1, 7\), not"
    ):
        simulate(work, dataclasses.replace(masks, inputs=np.ones((1, 1, 7), dtype=bool)))


def test_an_impossible_machine_is_refused():
    with pytest.raises(CspError, match=r"^units must be 1 … 65536, not 0$"):
        SparTen(units=0)
    with pytest.raises(CspError, match=r"^start_up must be 0 … 65536, not -1$"):
        SparTen(start_up=-1)
