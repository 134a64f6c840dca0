# SPDX-License-Identifier: Apache-2.0
"""The float network that an integer network stands for."""

import numpy as np
import numpy.typing as npt

from csp_algo.integers import ActDtype
from csp_algo.network import Layer, Network
from csp_algo.quantize import FloatLayer, FloatNetwork


def dequantise(network: Network) -> FloatNetwork:
    """Give the float network whose values are those of the integers, but for rounding and clipping.

    Filters with mult = 0 are dead: their weights and bias are 0.
    """
    scales = network.scales()
    nodes = tuple(
        _float_layer(node, scales[node.input]) if isinstance(node, Layer) else node
        for node in network.nodes
    )
    return FloatNetwork(name=network.name, input=network.input, nodes=nodes)


def filter_scales(layer: Layer, in_scale: float) -> npt.NDArray[np.float64]:
    """Give the scale of each filter's weights, float64 [M]."""
    if layer.dtype is ActDtype.INT32:
        return np.full(layer.geometry.filters, layer.scale / in_scale)
    ratios = np.ldexp(layer.mult.astype(np.float64), -layer.shift.astype(int))
    return np.asarray(ratios * layer.scale / in_scale)


def _float_layer(layer: Layer, in_scale: float) -> FloatLayer:
    scales = filter_scales(layer, in_scale)
    weights = layer.geometry.matrices_to_weights(layer.weights().astype(np.float64))
    return FloatLayer(
        name=layer.name,
        input=layer.input,
        geometry=layer.geometry,
        weights=weights * scales[:, None, None, None],
        bias=layer.bias * scales * in_scale,
        relu=layer.relu,
        residual=None if layer.residual is None else layer.residual.input,
        filter_order=layer.filter_order,
    )
