# SPDX-License-Identifier: Apache-2.0
"""The network while a graph is followed: its nodes, and what each tensor is."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Shape
from csp_algo.onnx.graph import SHAPE_ONLY, Graph, label
from csp_algo.onnx.runtime import Array
from csp_algo.onnx.views import Indices, View, channels_first, channels_last
from csp_algo.quantize import FloatLayer, FloatNode, float_shape


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """Where a layer's weights are from.

    Parameters
    ----------
    tensor : str
        Name of a constant of the graph.
    index : int64, the tensor's shape
        Number of each of its elements in the layer's weights [M, Cg, R, S].
    """

    tensor: str
    index: Indices


class Builder:
    """Follows a graph: each tensor is a constant, or holds the elements of a map.

    A layer grows with what is behind it (batch normalisation, bias, sum, ReLU) while nothing else
    reads it as it is; else a depthwise 1 × 1 layer does it.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = dict(graph.initialisers)
        self.nodes: dict[str, FloatNode] = {}
        self.origins: dict[str, Origin] = {}
        #: Of each node, the last tensor of the graph that holds its map.
        self.tensors: dict[str, tuple[str, Indices]] = {}
        #: Scale and zero point of the tensors that QuantizeLinear makes.
        self.quantised: dict[str, tuple[float, int]] = {}
        self._views: dict[str, View] = {}
        self._uses = graph.uses()
        self._declared = graph.declared()
        self._shapes: dict[str, Shape] = {}
        self.input = self._input()

    def _input(self) -> Input:
        _, *extents = self.graph.shape
        if len(extents) == 3 and not _channels_last(self.graph):
            shape: Shape = (extents[1], extents[2], extents[0])
            index = channels_first(shape)
        else:
            lines, columns, channels = (*(1,) * (3 - len(extents)), *extents)
            shape = (lines, columns, channels)
            index = channels_last(shape).reshape(extents)
        source = Input(name=self.graph.input, shape=shape, dtype=ActDtype.INT8, scale=1.0)
        self._shapes[source.name] = shape
        self.tensors[source.name] = (source.name, index)
        self._views[source.name] = View(value=source.name, shape=shape, index=index)
        return source

    def name(self, node: Any) -> str:
        """Give the name of what a node makes: its own, or that of its output if that is taken."""
        own = label(node)
        return own if own not in self._shapes else str(node.output[0])

    def known(self, tensor: str) -> bool:
        """Say whether a tensor holds a map's elements."""
        return tensor in self._views

    def view(self, tensor: str) -> View:
        """Give what a tensor holds."""
        if tensor not in self._views:
            raise CspError(f"reads {tensor}, which is not a map of the core")
        view = self._views[tensor]
        return dataclasses.replace(view, shared=view.shared or self._uses[tensor] > 1)

    def define(self, tensor: str, view: View, *, made: bool = True) -> None:
        """Say what a tensor holds; ``made`` if its map is complete only now."""
        declared = self._declared.get(tensor)
        shape = (self.graph.shape[0], *view.index.shape)
        if declared is not None and (
            len(declared) != len(shape)
            or any(
                extent not in (None, own)
                for extent, own in zip(declared[1:], shape[1:], strict=True)
            )
        ):
            raise CspError(f"makes {tensor} of shape {_text(shape)}, declared as {_text(declared)}")
        self._views[tensor] = view
        if made:
            self.tensors[view.value] = (tensor, view.index)

    def constant(self, name: str, what: str) -> Array:
        """Give a constant.

        Raises
        ------
        CspError
            It is none.
        """
        if name not in self.constants:
            raise CspError(f"its {what} {name} is not a constant")
        return np.asarray(self.constants[name])

    def number(self, name: str, what: str) -> Array:
        """Give a constant of numbers, float64.

        Raises
        ------
        CspError
            It is no constant, or holds what is not finite; the message tells the position.
        """
        values = self.constant(name, what)
        if values.dtype.kind not in "fiu":
            raise CspError(f"its {what} {name} is {values.dtype}, not a number")
        values = values.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            place = np.unravel_index(int(np.argmin(finite)), values.shape)
            where = ", ".join(str(int(item)) for item in place)
            raise CspError(f"its {what} {name} [{where}] is {values[place]}")
        return values

    def put(self, node: FloatNode) -> View:
        """Add a node; give its map as [H, W, C]."""
        if node.name in self._shapes:
            raise CspError(f"there are two nodes of the name {node.name}")
        shape = float_shape(node, [self._shapes[name] for name in node.sources])
        self.nodes[node.name] = node
        self._shapes[node.name] = shape
        return View(value=node.name, shape=shape, index=channels_last(shape))

    def growing(self, view: View) -> FloatLayer | None:
        """Give the layer whose map a tensor holds, if it may still change."""
        node = self.nodes.get(view.value)
        if isinstance(node, FloatLayer) and not view.shared and not node.relu:
            return node
        return None

    def change(self, layer: FloatLayer, *, last: bool = False) -> None:
        """Replace a layer; ``last`` puts it behind all other nodes."""
        if last:
            del self.nodes[layer.name]
        self.nodes[layer.name] = layer

    def identity(self, view: View, name: str) -> tuple[FloatLayer, View]:
        """Add a depthwise 1 × 1 layer that changes nothing, to be changed; give it and its map."""
        view.check_whole()
        channels = view.channels
        geometry = Geometry(in_shape=view.shape, filters=channels, groups=channels)
        layer = FloatLayer(
            name=name,
            input=view.value,
            geometry=geometry,
            weights=np.ones((channels, 1, 1, 1)),
            bias=np.zeros(channels),
            relu=False,
        )
        return layer, self.put(layer).moved(view.index)

    def order(self, names: Sequence[str]) -> list[int]:
        """Give the places of values in the order of the nodes, −1 for the input."""
        places = {name: place for place, name in enumerate(self.nodes)}
        return [places.get(name, -1) for name in names]

    def rectified(self, name: str) -> bool:
        """Say whether a map cannot be negative."""
        node = self.nodes.get(name)
        if node is None:
            return False
        if isinstance(node, FloatLayer):
            return node.relu
        return all(self.rectified(source) for source in node.sources)


def _channels_last(graph: Graph) -> bool:
    """Say whether the input is [N, H, W, C]: the first to read it whole moves the channels."""
    tensors = {graph.input}
    for node in graph.nodes:
        if not tensors.intersection(node.input) or node.op_type in SHAPE_ONLY:
            continue
        if node.op_type == "Transpose":
            return any(
                item.name == "perm" and list(item.ints) == [0, 3, 1, 2] for item in node.attribute
            )
        if node.op_type not in _PASSING:
            return False
        tensors.update(node.output)
    return False


#: What may be between the input and the node that tells its layout.
_PASSING: tuple[str, ...] = (
    "Add",
    "BatchNormalization",
    "Cast",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Identity",
    "Mul",
    "Pad",
    "QuantizeLinear",
    "Sub",
)


def _text(shape: Sequence[Any]) -> str:
    return "[" + ", ".join("?" if extent is None else str(extent) for extent in shape) + "]"
