# SPDX-License-Identifier: Apache-2.0
"""A network of a package, from its ONNX file to integers: each layer held against ONNX Runtime."""

import dataclasses

import numpy as np
import pytest

from csp_algo import container, reorder
from csp_algo.errors import CspError
from csp_algo.integers import affine, requantise, rescale
from csp_algo.network import Layer
from csp_algo.onnx import witness
from csp_algo.onnx.export import pruned_model
from csp_algo.onnx.samples import load_samples
from csp_algo.prune import Rule, prunable, prune
from csp_algo.quantize import quantise
from sim import golden
from sim.workloads import photo, resnet50
from sim.workloads.packages import package_file
from tests.witness import conv_integer

pytestmark = pytest.mark.soak

SPARSITY = 0.7
COLS, PERIOD = 32, 32
#: ‖integers − floats‖ / ‖floats‖ of any map; the largest seen is 0.031.
NOISE = 0.05


@pytest.fixture(scope="module")
def imported():
    try:
        package_file(*resnet50.GRAPH)
        photo.photograph(resnet50.SIDE)
    except CspError as error:
        pytest.skip(str(error))
    return resnet50.load_graph()


@pytest.fixture(scope="module")
def samples(imported, tmp_path_factory):
    pictures = [photo.photograph(resnet50.SIDE, file) for file in (photo.PHOTO, photo.FLOWER)]
    path = tmp_path_factory.mktemp("samples") / "photos.npz"
    np.savez(path, photos=np.concatenate(pictures).astype(np.float32) * photo.SCALE)
    return load_samples(path, imported)


@pytest.fixture(scope="module")
def pruned(imported, samples):
    """Give the pruned network and its integers, filters re-ordered, and the orders."""
    network = dataclasses.replace(imported.network, input=samples.input)
    targets = dict.fromkeys(prunable(network), SPARSITY)
    orders = reorder.orders_for(network, targets, COLS)
    after = prune(reorder.reorder_floats(network, orders), targets, COLS, rule=Rule.PREFIX)
    return after, quantise(after, samples.images, cols=COLS, period=PERIOD), orders


def close(values, found):
    for name, runtime in found.items():
        own = values[name]
        np.testing.assert_allclose(runtime, own, atol=1e-5 * np.abs(own).max(), err_msg=name)


def test_every_map_of_the_graph_is_imported(imported, samples):
    network = dataclasses.replace(imported.network, input=samples.input)
    model = imported.graph.model.SerializeToString()
    values = network.forward(samples.images[:1])
    (found,) = witness.run(imported, model, samples.floats[:1])
    assert len(found) == len(network.nodes)
    close(values, found)
    assert [node.kind for node in imported.host] == ["Softmax"]


def test_every_map_of_the_pruned_file_is_what_was_pruned(imported, samples, pruned):
    after, _, orders = pruned
    plain = reorder.reorder_floats(after, orders.inverse())
    values = plain.forward(samples.images[:1])
    (found,) = witness.run(imported, pruned_model(imported, plain), samples.floats[:1])
    assert len(found) == len(plain.nodes)
    close(values, found)


def test_every_integer_of_every_layer(samples, pruned, tmp_path):
    """The container's network on the golden model, its sums against ConvInteger."""
    after, integers, _ = pruned
    container.save(integers, tmp_path / "net.csp")
    network = container.load(tmp_path / "net.csp")
    result = golden.run(network, samples.images[:1])
    assert not any(result.saturations.values())
    values = {network.input.name: samples.images[:1], **result.values}
    layers = [node for node in network.nodes if isinstance(node, Layer)]
    assert len(layers) == 54
    for layer in layers:
        added = None
        if layer.residual is not None:
            source = values[layer.residual.input]
            added = rescale(source, layer.residual.mult, layer.residual.shift)
        assert layer.acc_shift == 0
        v = affine(conv_integer(layer, values[layer.input]), 0, layer.bias)
        expected = requantise(
            v, layer.mult, layer.shift, layer.dtype, relu=layer.relu, residual=added
        )
        np.testing.assert_array_equal(values[layer.name], expected, err_msg=layer.name)
    floats = after.forward(samples.images[:1])
    for name, scale in network.scales().items():
        error = np.linalg.norm(values[name] * np.float64(scale) - floats[name])
        assert error <= NOISE * np.linalg.norm(floats[name]), name
