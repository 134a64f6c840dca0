# SPDX-License-Identifier: Apache-2.0
"""Integer networks as the float networks that they stand for."""

import dataclasses

import numpy as np
import pytest

from csp_algo import container
from csp_algo.dequantise import dequantise
from csp_algo.quantize import quantise, renamed
from sim import golden
from sim.demo import EXAMPLE
from tests.csp_algo.examples import network as every_node


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_resnet8"])
def test_the_examples_come_back(name):
    """Floats follow the integers to their rounding, and quantise to weights as close."""
    network = container.load(EXAMPLE.parent / name / "network.csp")
    with np.load(EXAMPLE / "images.npz") as file:
        x = file["images"][:32]
    floats = dequantise(network)
    values, integers = floats.forward(x), golden.run(network, x).values
    for value, scale in network.scales().items():
        if value != network.input.name:
            own = integers[value] * np.float64(scale)
            error = np.linalg.norm(values[value] - own) / np.linalg.norm(own)
            assert error < 0.05, value
    again = quantise(floats, x, cols=network.cols, period=network.period)
    for one, other in zip(again.layers(), network.layers(), strict=True):
        assert np.abs(one.weights().astype(int) - other.weights()).max() <= 1
        np.testing.assert_array_equal(one.filter_order, other.filter_order)


def test_dead_filters_are_zero():
    network = every_node()
    layer = network.layers()[0]
    mult = layer.mult.copy()
    mult[3] = 0
    nodes = (dataclasses.replace(layer, mult=mult), *network.nodes[1:])
    floats = dequantise(dataclasses.replace(network, nodes=nodes)).layers()[0]
    assert not floats.weights[3].any()
    assert floats.bias[3] == 0


def test_shapes_and_names_of_every_kind_of_node():
    network = every_node()
    floats = dequantise(network)
    assert floats.shapes() == network.shapes()
    names = {name: f"a {name}" for name in network.values}
    other = renamed(floats, names)
    x = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3)).astype(np.uint8)
    before, after = floats.forward(x), other.forward(x)
    assert list(after) == [names[name] for name in before]
    for name, values in before.items():
        np.testing.assert_array_equal(after[names[name]], values)
