# SPDX-License-Identifier: Apache-2.0
"""What was pruned, in the ONNX graph: zeros in its initialisers, nothing else changed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx.numpy_helper

from csp_algo.errors import CspError, located
from csp_algo.onnx.graph import SHAPE_ONLY, attributes, title
from csp_algo.onnx.importer import Imported
from csp_algo.onnx.runtime import Array
from csp_algo.onnx.views import Indices
from csp_algo.quantize import FloatLayer, FloatNetwork

Mask = npt.NDArray[np.bool_]

#: Operators that only move the elements of a constant.
MOVING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def pruned_model(imported: Imported, pruned: FloatNetwork) -> bytes:
    """Give the graph's file with the weights that ``pruned`` lost set to 0.

    Parameters
    ----------
    imported : Imported
    pruned : FloatNetwork
        The network of ``imported`` with fewer weights, filters in their order.

    Raises
    ------
    CspError
        The weights of a layer that lost some, or shares some that are lost, are no initialiser, but
        computed, or two layers that share one keep different weights; the message names the file
        and the layer.
    """
    sources = _Sources(imported)
    masks: dict[str, tuple[str, Mask]] = {}
    zeros: dict[str, Array] = {}
    before = {layer.name: layer for layer in imported.network.layers()}
    layers = [layer for layer in pruned.layers() if layer.name in imported.origins]
    intact = {each.name: np.array_equal(before[each.name].weights, each.weights) for each in layers}
    # Those that lost nothing come last: they are to keep what they share with others.
    layers.sort(key=lambda layer: intact[layer.name])
    with located(imported.graph.path):
        for layer in layers:
            if intact[layer.name] and sources.initialisers(layer).isdisjoint(masks):
                continue
            with located(f"layer {layer.name}"):
                name, mask, zero = sources.mask(layer)
                other, known = masks.setdefault(name, (layer.name, mask))
                if not np.array_equal(known, mask):
                    raise CspError(f"shares {name} with layer {other}, which keeps other weights")
                zeros[name] = zero
        model = type(imported.graph.model)()
        model.CopyFrom(imported.graph.model)
        for tensor in model.graph.initializer:
            if tensor.name in masks:
                _, mask = masks[tensor.name]
                values = np.where(
                    mask, imported.graph.initialisers[tensor.name], zeros[tensor.name]
                )
                _replace(tensor, values)
    return bytes(model.SerializeToString())


def _replace(tensor: Any, values: Array) -> None:
    kind = onnx.numpy_helper.to_array(tensor).dtype
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(kind), tensor.name))


class _Sources:
    """Follows constants back to initialisers."""

    def __init__(self, imported: Imported) -> None:
        self.imported = imported
        self.graph = imported.graph
        self.makers = {name: node for node in self.graph.nodes for name in node.output}

    def mask(self, layer: FloatLayer) -> tuple[str, Mask, Array]:
        """Give the initialiser of a layer's weights, which of it stay, and what its 0 is."""
        origin = self.imported.origins[layer.name]
        name, order, zero = self.follow(origin.tensor)
        kept = np.asarray(layer.weights != 0).ravel()[origin.index].ravel()
        initialiser = self.graph.initialisers[name]
        mask = np.zeros(initialiser.size, dtype=np.bool_)
        mask[order.ravel()] = kept
        # Zeros of the graph itself are left as they are.
        return name, mask.reshape(initialiser.shape), zero

    def initialisers(self, layer: FloatLayer) -> set[str]:
        """Give the initialisers of which a layer's weights are made."""
        found, tensors = set(), [self.imported.origins[layer.name].tensor]
        while tensors:
            tensor = tensors.pop()
            if tensor in self.graph.initialisers:
                found.add(tensor)
            elif self.makers[tensor].op_type not in SHAPE_ONLY:
                tensors.extend(name for name in self.makers[tensor].input if name)
        return found

    def follow(self, tensor: str) -> tuple[str, Indices, Array]:
        """Give the initialiser of a constant, the number in it of each element, and its 0."""
        if tensor in self.graph.initialisers:
            values = self.graph.initialisers[tensor]
            index = np.arange(values.size, dtype=np.int64).reshape(values.shape)
            return tensor, index, np.zeros((), dtype=values.dtype)
        node = self.makers[tensor]
        with located(title(node)):
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                return self._quantised(node)
            if node.op_type not in MOVING:
                raise CspError(f"computes {tensor}, which is no initialiser that could be pruned")
            name, index, zero = self.follow(node.input[0])
            if node.op_type != "Cast":
                inputs = {key: self.imported.constants[key] for key in node.input if key}
                inputs[node.input[0]] = index
                index = self.graph.evaluate(node, inputs)[tensor]
            return name, index, zero

    def _quantised(self, node: Any) -> tuple[str, Indices, Array]:
        name, index, zero = self.follow(node.input[0])
        if node.op_type == "DequantizeLinear" and len(node.input) > 2 and node.input[2]:
            initialiser = self.graph.initialisers[name]
            if initialiser.dtype.kind in "iu":
                points = _spread(self.imported.constants[node.input[2]], node, index.shape)
                zero = np.empty(initialiser.size, dtype=initialiser.dtype)
                zero[index.ravel()] = points.ravel()
                zero = zero.reshape(initialiser.shape)
        return name, index, zero


def _spread(points: Array, node: Any, shape: tuple[int, ...]) -> Array:
    """Give the zero point of each element: there is one of all, of each channel or of blocks."""
    settings = attributes(node)
    axis = settings.get("axis", 1)
    if points.ndim > 1:
        whole = np.repeat(points, settings["block_size"], axis=axis)
        return whole.take(np.arange(shape[axis]), axis=axis)  # the last block may be shorter
    if points.size > 1:
        aligned = [1] * len(shape)
        aligned[axis] = points.size
        points = points.reshape(aligned)
    return np.broadcast_to(points, shape)
