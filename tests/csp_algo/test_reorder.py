# SPDX-License-Identifier: Apache-2.0
"""Filters in another order: the same function, and more of the weights kept."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_algo import container, reorder
from csp_algo.compress import compress
from csp_algo.dequantise import dequantise
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, Concat, Flatten, Input, Layer, MaxPool
from csp_algo.prefix import kept_norm
from csp_algo.prune import Rule, prunable, prune, tap_moments
from csp_algo.quantize import FloatLayer, FloatNetwork, quantise
from sim import golden
from sim.demo import EXAMPLE

SEEDS = st.integers(0, 2**32 - 1)
SIDE = (6, 6)


def layer(rng, name, source, channels, filters, *, kernel=3, groups=1, size=SIDE, **options):
    pad = kernel // 2
    shape = Geometry(
        in_shape=(*size, channels),
        filters=filters,
        kernel=(kernel, kernel),
        padding=(pad,) * 4,
        groups=groups,
    )
    weights = rng.standard_normal((filters, channels // groups, kernel, kernel))
    return FloatLayer(
        name=name,
        input=source,
        geometry=shape,
        weights=weights * rng.uniform(0.1, 2, (filters, 1, 1, 1)) / np.sqrt(shape.taps),
        bias=rng.standard_normal(filters),
        relu=options.get("relu", True),
        residual=options.get("residual"),
    )


def everything(rng):
    """Give a network in which every kind of node hands an order on."""
    nodes = (
        layer(rng, "stem", "x", 3, 12),
        layer(rng, "a", "stem", 12, 8, relu=False),
        layer(rng, "deep", "stem", 12, 12, groups=12),
        layer(rng, "back", "a", 8, 12, residual="deep"),
        layer(rng, "grouped", "back", 12, 16, groups=4),
        layer(rng, "free", "a", 8, 10),
        Concat(name="both", inputs=("free", "grouped", "back")),
        MaxPool(name="max", input="both", kernel=(2, 2), stride=(2, 2)),
        layer(rng, "wide", "max", 38, 20, size=(3, 3)),
        layer(rng, "sum", "wide", 20, 38, size=(3, 3), residual="max"),
        layer(rng, "last", "sum", 38, 9, size=(3, 3)),
        AvgPool(
            name="mean",
            input="last",
            kernel=(2, 2),
            stride=(1, 1),
            count_include_pad=False,
            shift=17,
        ),
        Flatten(name="flat", input="mean"),
        layer(rng, "fc", "flat", 36, 14, kernel=1, size=(1, 1)),
        layer(rng, "logits", "fc", 14, 5, kernel=1, size=(1, 1), relu=False),
    )
    source = Input(name="x", shape=(*SIDE, 3), dtype=ActDtype.INT8, scale=0.05)
    return FloatNetwork(name="net", input=source, nodes=nodes)


def images(rng, count=3):
    return rng.integers(-128, 128, (count, *SIDE, 3)).astype(np.int8)


def shuffled(rng, network):
    """Give random orders of all classes."""
    channels = reorder.Channels(network)
    shapes = network.shapes()
    chosen = {root: rng.permutation(shapes[root][2]) for root in channels.classes()}
    return reorder.Orders(channels=channels, chosen=chosen)


def test_who_shares_an_order():
    classes = reorder.Channels(everything(np.random.default_rng(0))).classes()
    found = {frozenset(names) for names in classes.values()}
    # `stem`, its depthwise layer and what is added to that; the sum of a concatenation keeps its
    # order, and with it `back` and all parts.
    assert found == {
        frozenset(["a"]),
        frozenset(["wide"]),
        frozenset(["last"]),
        frozenset(["fc"]),
    }


def test_residual_and_depthwise_layers_share_an_order():
    rng = np.random.default_rng(0)
    network = everything(rng)
    nodes = (*network.nodes[:4], layer(rng, "end", "back", 12, 4))
    classes = reorder.Channels(dataclasses.replace(network, nodes=nodes)).classes()
    assert {frozenset(names) for names in classes.values()} == {
        frozenset(["stem", "deep", "back"]),
        frozenset(["a"]),
    }


@settings(max_examples=20)
@given(SEEDS)
def test_floats_stay_the_same(seed):
    rng = np.random.default_rng(seed)
    network, x = everything(rng), images(rng)
    orders = shuffled(rng, network)
    moved = reorder.reorder_floats(network, orders)
    before, after = network.forward(x), moved.forward(x)
    for name, values in before.items():
        np.testing.assert_allclose(
            after[name], values[..., orders.of(name)], atol=1e-5, rtol=1e-5, err_msg=name
        )
    np.testing.assert_array_equal(orders.of("logits"), np.arange(5))
    again = reorder.reorder_floats(moved, orders.inverse())
    for one, other in zip(again.layers(), network.layers(), strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        np.testing.assert_array_equal(one.filter_order, np.arange(other.geometry.filters))


def test_moments_move_with_the_taps():
    rng = np.random.default_rng(7)
    network, x = everything(rng), images(rng)
    orders = shuffled(rng, network)
    moved = reorder.reorder_moments(network, tap_moments(network, x), orders)
    for name, expected in tap_moments(reorder.reorder_floats(network, orders), x).items():
        np.testing.assert_allclose(moved[name], expected, err_msg=name)


def reorder_integers(network, orders):
    """Give the integer network with filters and taps in the orders of its maps."""

    def moved(layer):
        order, shape = orders.of(layer.name), layer.geometry
        weights = shape.matrices_to_weights(layer.weights())[order]
        # The channels of grouped layers are in place, those of depthwise ones are their filters.
        if shape.groups == 1:
            weights = weights[:, orders.of(layer.input)]
        matrices = shape.weights_to_matrices(weights)
        return dataclasses.replace(
            layer,
            matrices=tuple(compress(each, network.cols, network.period) for each in matrices),
            bias=layer.bias[order],
            mult=layer.mult[order],
            shift=layer.shift[order],
            filter_order=layer.filter_order[order],
        )

    nodes = (moved(node) if isinstance(node, Layer) else node for node in network.nodes)
    return dataclasses.replace(network, nodes=tuple(nodes))


@settings(max_examples=10)
@given(SEEDS)
def test_integers_stay_the_same_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    network, x = everything(rng), images(rng)
    integers = quantise(network, x, cols=4, period=4)
    assert {each.acc_shift for each in integers.layers()} == {0}
    orders = shuffled(rng, network)
    before, after = (
        golden.run(integers, x),
        golden.run(reorder_integers(integers, orders), x),
    )
    for name, values in before.values.items():
        np.testing.assert_array_equal(after.values[name], values[..., orders.of(name)], name)


def test_integers_moved_and_floats_moved_are_one_network():
    rng = np.random.default_rng(3)
    network, x = everything(rng), images(rng)
    orders = shuffled(rng, network)
    one = reorder_integers(quantise(network, x, cols=4, period=4), orders)
    other = quantise(reorder.reorder_floats(network, orders), x, cols=4, period=4)
    assert container.digest(one) == container.digest(other)
    assert any(
        (each.filter_order != np.arange(len(each.filter_order))).any() for each in one.layers()
    )


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_resnet8"])
def test_the_examples_answer_the_same(name):
    network = container.load(EXAMPLE.parent / name / "network.csp")
    with np.load(EXAMPLE / "images.npz") as file:
        x = file["images"][:8]
    floats = dequantise(network)
    targets = dict.fromkeys(prunable(floats), 0.9)
    orders = reorder.orders_for(floats, targets, network.cols)
    assert orders.chosen
    moved = reorder_integers(network, orders)
    np.testing.assert_array_equal(golden.run(moved, x).logits, golden.run(network, x).logits)


def test_more_is_kept_sorted_and_more_again_exchanged():
    rng = np.random.default_rng(2)
    first = layer(rng, "first", "x", 3, 64)
    # Filters of two kinds read taps of two kinds: sorting by norm alone does not see it.
    weights = rng.standard_normal((64, 64, 3, 3)) * 0.1
    kinds = rng.permutation(64) < 32
    weights[kinds, :32] *= 4
    weights[~kinds, 32:] *= 5
    second = dataclasses.replace(layer(rng, "second", "first", 64, 64), weights=weights)
    network = FloatNetwork(
        name="net",
        input=Input(name="x", shape=(*SIDE, 3), dtype=ActDtype.INT8, scale=0.05),
        nodes=(first, second, layer(rng, "third", "second", 64, 4)),
    )
    targets = {"second": 0.6}

    def share(refine):
        orders = None if refine is None else reorder.orders_for(network, targets, 8, refine=refine)
        moved = network if orders is None else reorder.reorder_floats(network, orders)
        after = prune(moved, targets, 8, rule=Rule.PREFIX)
        return kept_norm(moved.nodes[1].weights, after.nodes[1].weights, 2)

    plain, by_norm, exchanged = share(None), share(False), share(True)
    assert plain < by_norm < exchanged
