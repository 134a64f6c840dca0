# SPDX-License-Identifier: Apache-2.0
"""Trained float networks as pruned integer networks, without training them anew.

What they answer is then worth little; their weights and activations are real all the same: no
layer's counts, zeros or partial sums are drawn at random.
"""

import numpy as np
import numpy.typing as npt

from csp_algo.network import Input, Layer, Network
from csp_algo.prune import prunable, prune
from csp_algo.quantize import FloatNetwork, quantise


def pruned_integers(
    network: FloatNetwork,
    images: npt.NDArray[np.integer],
    *,
    sparsity: float,
    cols: int,
    period: int,
) -> Network:
    """Prune every layer but the first and the last one to one sparsity, and quantise.

    Parameters
    ----------
    network : FloatNetwork
    images : integers [N, H, W, C]
        What scales are chosen with.
    sparsity : float
        Share of zero weights of each layer, 0 ≤ share < 1.
    cols, period : int
        Filters of a chunk and T.

    Raises
    ------
    CspError
        The sparsity is out of a layer's reach.
    """
    targets = dict.fromkeys(prunable(network), sparsity)
    return quantise(prune(network, targets, cols), images, cols=cols, period=period)


def alone(network: Network, layer: Layer) -> Network:
    """Give a network of one layer, whose input is the map that it reads.

    Parameters
    ----------
    network : Network
    layer : Layer
        One of its layers, without a residual.
    """
    value = network.values[layer.input]
    source = Input(name=layer.input, shape=value.shape, dtype=value.dtype, scale=value.scale)
    return Network(
        name=layer.name, input=source, nodes=(layer,), cols=network.cols, period=network.period
    )
