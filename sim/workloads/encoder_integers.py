# SPDX-License-Identifier: Apache-2.0
"""An encoder's linear layers as networks of the accelerator, one each, tokens as images.

Weights and activations are int8, the sums leave as int32. A few channels of a transformer's states
are ten times as large as the others, and one scale for all of them loses the others (Dettmers et
al., arXiv:2208.07339). The host, which rounds the floats, therefore divides each channel by its
largest value in calibration texts, and the channel's weights are multiplied by it (Xiao et al.,
arXiv:2211.10438); each filter's sum is multiplied by its own scale. All scales are static.
"""

import dataclasses
from collections.abc import Callable, Mapping

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

Images = npt.NDArray[np.int8]
#: Computes a network's int32 [tokens, 1, 1, M] for int8 [tokens, 1, 1, J].
Sums = Callable[[Network, Images], npt.NDArray[np.integer]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HostedLayer:
    """A linear layer on the accelerator, and what the host does before and after it.

    Parameters
    ----------
    network : Network
        Of one layer, which reads int8 [tokens, 1, 1, J] and gives int32.
    channels : float64 [J]
        What the host divides the activations by.
    filters : float64 [M]
        What it multiplies the sums by, behind the network's own scale.
    """

    network: Network
    channels: npt.NDArray[np.float64]
    filters: npt.NDArray[np.float64]

    def images(self, x: Floats) -> Images:
        """Give what the network reads, int8 [tokens, 1, 1, J] for float32 [tokens, J]."""
        source = self.network.input
        levels = quantise_values(x / self.channels, source.dtype, source.scale)
        return levels.astype(np.int8).reshape(-1, *source.shape)

    def floats(self, sums: npt.NDArray[np.integer]) -> Floats:
        """Give the layer's outputs, float32 [tokens, M] for int32 [tokens, 1, 1, M]."""
        scale = self.network.values[self.network.output.name].scale
        return np.asarray(sums.reshape(len(sums), -1) * (scale * self.filters), dtype=np.float32)


def hosted_layers(
    encoder: Encoder, inputs: Mapping[str, Floats], *, cols: int, period: int
) -> dict[str, HostedLayer]:
    """Give each linear layer in integers.

    Parameters
    ----------
    encoder : Encoder
    inputs : mapping of layer name to float32 [tokens, J]
        What the layers read of calibration texts.
    cols, period : int
        Filters of a chunk and T.
    """
    return {
        name: _hosted(
            name, encoder.weights(name), encoder.bias(name), inputs[name], cols=cols, period=period
        )
        for name in encoder.linears
    }


def _hosted(
    name: str, weights: Floats, bias: Floats, inputs: Floats, *, cols: int, period: int
) -> HostedLayer:
    channels = _largest(inputs.T)
    matrix = weights * channels
    filters = _largest(matrix)
    x = inputs / channels
    source = Input(
        name=INPUT,
        shape=(1, 1, len(channels)),
        dtype=ActDtype.INT8,
        scale=activation_scale(x.ravel()[:: max(1, x.size // VALUES)], ActDtype.INT8),
    )
    layer = FloatLayer(
        name=name,
        input=INPUT,
        geometry=Geometry(in_shape=source.shape, filters=len(filters)),
        weights=matrix / filters[:, None],
        bias=bias / filters,
        relu=False,
    )
    levels = quantise_values(x, source.dtype, source.scale).astype(np.int8)
    network = quantise(
        FloatNetwork(name=name, input=source, nodes=(layer,)),
        levels.reshape(-1, *source.shape),
        cols=cols,
        period=period,
    )
    return HostedLayer(network=network, channels=channels, filters=filters)


def _largest(values: Floats | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give the largest magnitude of each line, 1 for a line of zeros, float64 [lines]."""
    largest = np.abs(values).max(axis=1).astype(np.float64)
    return np.where(largest > 0, largest, 1.0)


def golden_sums(network: Network, images: Images) -> npt.NDArray[np.integer]:
    """Compute a network of one layer on the golden model."""
    return golden.run(network, images).logits


def hosted_linear(layers: Mapping[str, HostedLayer], sums: Sums = golden_sums) -> Linear:
    """Give what computes an encoder's linear layers in integers."""

    def linear(name: str, x: Floats) -> Floats:
        layer = layers[name]
        return layer.floats(sums(layer.network, layer.images(x)))

    return linear
