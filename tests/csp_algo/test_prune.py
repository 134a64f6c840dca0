# SPDX-License-Identifier: Apache-2.0
"""Pruning of a whole float network."""

import dataclasses

import numpy as np
import pytest

from csp_algo import cascade
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Input, MaxPool
from csp_algo.prune import UNSEEN, Rule, prunable, prune, prune_whole, tap_moments
from csp_algo.quantize import FloatLayer, FloatNetwork


def float_network():
    rng = np.random.default_rng(3)
    source = Input(name="image", shape=(8, 8, 3), dtype=ActDtype.INT8, scale=1.0)
    layers = []
    name, shape = source.name, source.shape
    for number, filters in enumerate((64, 96)):
        geometry = Geometry(in_shape=shape, filters=filters, kernel=(3, 3), padding=(1, 1, 1, 1))
        weights = rng.standard_normal((filters, shape[2], 3, 3))
        layer = FloatLayer(
            name=f"layer{number}",
            input=name,
            geometry=geometry,
            weights=weights,
            bias=np.zeros(filters),
            relu=True,
        )
        layers.append(layer)
        name, shape = layer.name, geometry.out_shape
    pool = MaxPool(name="pool", input=name, kernel=(2, 2), stride=(2, 2))
    return FloatNetwork(name="net", input=source, nodes=(*layers, pool))


def test_pruning_is_a_cascade_of_the_asked_sparsity():
    network = float_network()
    pruned = prune(network, {"layer1": 0.7}, 32)
    assert pruned.nodes[0] is network.nodes[0]
    assert pruned.nodes[2] is network.nodes[2]
    before, after = network.nodes[1].matrices[0], pruned.nodes[1].matrices[0]
    assert abs((after == 0).mean() - 0.7) <= 0.01
    np.testing.assert_array_equal(after[after != 0], before[after != 0])
    # A chunk of a tap lives only if those before it do.
    alive = (after.reshape(3, 32, -1) != 0).any(axis=1)
    assert (alive[1:] <= alive[:-1]).all()
    # And whole: what is zero is so for all its filters.
    assert ((after.reshape(3, 32, -1) != 0).all(axis=1) == alive).all()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"pool": 0.5}, "there is no layer pool to prune; there are: layer0, layer1"),
        ({"layer0": 1.0}, "layer layer0: target sparsity must be 0 or more and below 1, not 1.0"),
    ],
)
def test_what_cannot_be_pruned_is_told(targets, message):
    with pytest.raises(CspError, match=f"^network net: {message}$"):
        prune(float_network(), targets, 32)


def zeros(network):
    return {node.name: cascade.sparsity(node.weights) for node in network.nodes[:-1]}


def test_the_whole_network_shares_one_price():
    network = float_network()
    assert prunable(network) == ("layer1",)
    names = ("layer0", "layer1")
    pruned = prune_whole(network, names, 0.6, 32)
    layers = [node for node in pruned.nodes if node.name in names]
    kept = sum(np.count_nonzero(layer.weights) for layer in layers)
    size = sum(layer.weights.size for layer in layers)
    assert abs(1 - kept / size - 0.6) <= 0.01
    assert len(layers) == 2


def test_prefixes_keep_more_of_the_norm():
    network = float_network()
    norms = {}
    for rule in (Rule.TAILS, Rule.PREFIX):
        pruned = prune(network, {"layer1": 0.7}, 32, rule=rule)
        assert abs(zeros(pruned)["layer1"] - 0.7) <= 0.01
        norms[rule] = np.square(pruned.nodes[1].weights).sum()
    assert norms[Rule.PREFIX] > norms[Rule.TAILS]


def test_nothing_to_prune_is_told():
    with pytest.raises(CspError, match=r"^network net: there is no layer to prune$"):
        prune(float_network(), {}, 32)
    with pytest.raises(CspError, match=r"^network net: 1 layers: target sparsity must be 0"):
        prune_whole(float_network(), ["layer1"], 1.5, 32)


def test_moments_are_those_of_the_taps():
    network = float_network()
    rng = np.random.default_rng(0)
    images = rng.integers(-128, 128, (3, 8, 8, 3)).astype(np.int8)
    moments = tap_moments(network, images)
    values = network.forward(images)
    for layer in (network.nodes[0], network.nodes[1]):
        squares = np.square(layer.geometry.unfold(values[layer.input])).mean(axis=(1, 2, 3))
        expected = squares + UNSEEN * squares.mean()
        np.testing.assert_allclose(moments[layer.name], expected)
    pruned = prune(network, {"layer1": 0.7}, 32, rule=Rule.PREFIX, moments=moments)
    other = prune(network, {"layer1": 0.7}, 32, rule=Rule.PREFIX)

    def error(result):
        layer = dataclasses.replace(result.nodes[1], relu=False)
        dense = dataclasses.replace(network.nodes[1], relu=False)
        source = values["layer0"]
        return np.square(layer.forward(source) - dense.forward(source)).sum()

    assert error(pruned) < error(other)


def test_a_layer_that_meets_nothing_is_pruned_all_the_same():
    """A layer before it may be dead, or the images black."""
    network = float_network()
    moments = tap_moments(network, np.zeros((1, 8, 8, 3), dtype=np.int8))
    pruned = prune_whole(network, ["layer1"], 0.5, 32, moments=moments)
    assert abs(cascade.sparsity(pruned.nodes[1].weights) - 0.5) < 0.01
