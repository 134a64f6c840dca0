# SPDX-License-Identifier: Apache-2.0
"""An encoder's linear layers as networks of the accelerator, one each, tokens as images.

Weights and activations are int8, with one static scale for each layer's weights and for what it
reads; the sums leave as int32, and the host takes them to floats. Nothing else is rounded.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Network
from csp_algo.quantize import FloatLayer, FloatNetwork, activation_scale, quantise, quantise_values
from sim import golden
from sim.workloads.minilm import Encoder, Floats, Linear

INPUT = "tokens"
#: Values with which a scale is chosen, taken evenly.
VALUES = 200_000


def integer_layers(
    encoder: Encoder, inputs: Mapping[str, Floats], *, cols: int, period: int
) -> dict[str, Network]:
    """Give each linear layer as a network of one layer.

    Parameters
    ----------
    encoder : Encoder
    inputs : mapping of layer name to float32 [tokens, J]
        What the layers read of calibration texts.
    cols, period : int
        Filters of a chunk and T.
    """
    networks = {}
    for name in encoder.linears:
        x = np.asarray(inputs[name], dtype=np.float64)
        values = x.ravel()[:: max(1, x.size // VALUES)]
        source = Input(
            name=INPUT,
            shape=(1, 1, x.shape[1]),
            dtype=ActDtype.INT8,
            scale=activation_scale(values, ActDtype.INT8),
        )
        layer = FloatLayer(
            name=name,
            input=INPUT,
            geometry=Geometry(in_shape=source.shape, filters=len(encoder.bias(name))),
            weights=encoder.weights(name).astype(np.float64),
            bias=encoder.bias(name).astype(np.float64),
            relu=False,
        )
        network = FloatNetwork(name=name, input=source, nodes=(layer,))
        networks[name] = quantise(network, as_images(source, x), cols=cols, period=period)
    return networks


def as_images(source: Input, x: Floats | npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Give what a layer reads of float [tokens, J] as int8 [tokens, 1, 1, J]."""
    levels = quantise_values(np.asarray(x, dtype=np.float64), source.dtype, source.scale)
    return levels.astype(np.int8).reshape(-1, *source.shape)


def golden_linear(networks: Mapping[str, Network]) -> Linear:
    """Give what computes the linear layers in the golden model's integers."""

    def linear(name: str, x: Floats) -> Floats:
        network = networks[name]
        sums = golden.run(network, as_images(network.input, x)).logits
        scale = network.values[network.output.name].scale
        return np.asarray(sums.reshape(len(x), -1) * scale, dtype=np.float32)

    return linear
