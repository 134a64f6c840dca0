# SPDX-License-Identifier: Apache-2.0
"""Cascade pruning of a whole float network, without training."""

import dataclasses
import enum
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from csp_algo import cascade, prefix
from csp_algo.cascade import Counts, Floats
from csp_algo.errors import CspError, located
from csp_algo.quantize import FloatLayer, FloatNetwork

#: Fewer channels or filters than this and a layer is left as it is: the first and the last one.
LEAST_CHANNELS = 16
#: Share of a layer's mean squared activation that is added to each tap's.
UNSEEN = 0.01


class Rule(enum.StrEnum):
    """How the chunks that a tap keeps are chosen."""

    #: The CSP paper's: the mean of what is behind each chunk (:mod:`csp_algo.cascade`).
    TAILS = "tails"
    #: The most of the norm for the weights kept, layer by layer (:mod:`csp_algo.prefix`).
    PREFIX = "prefix"
    #: The same with one price for the whole network: layers differ in sparsity.
    WHOLE = "whole"


def prunable(network: FloatNetwork) -> tuple[str, ...]:
    """Give the names of the layers with at least 16 channels and filters in each group."""
    return tuple(
        layer.name
        for layer in network.layers()
        if min(layer.geometry.group_channels, layer.geometry.group_filters) >= LEAST_CHANNELS
    )


def tap_moments(network: FloatNetwork, images: npt.NDArray[np.integer]) -> dict[str, Floats]:
    """Give the mean of the squared activations of each tap of each layer, float64 [groups, J].

    A hundredth of the layer's mean, or of 1 if that is 0, is added, so that no weight is worth
    nothing because these images happen not to meet it.

    Parameters
    ----------
    network : FloatNetwork
    images : integers [N, H, W, C]
        Of the input's type, N above 0.
    """
    sums: dict[str, Floats] = {}
    for number in range(len(images)):
        values = network.forward(images[number : number + 1])
        for layer in network.layers():
            squares = np.square(layer.geometry.unfold(values[layer.input])).mean(axis=(1, 2, 3))
            sums[layer.name] = sums.get(layer.name, 0.0) + squares / len(images)
    return {name: each + UNSEEN * (each.mean() or 1.0) for name, each in sums.items()}


def prune(
    network: FloatNetwork,
    targets: Mapping[str, float],
    cols: int,
    *,
    rule: Rule = Rule.TAILS,
    moments: Mapping[str, Floats] | None = None,
) -> FloatNetwork:
    """Give the network with weights set to zero, each layer to its own target.

    Parameters
    ----------
    network : FloatNetwork
    targets : mapping of layer name to share of zeros, 0 ≤ share < 1
        Layers without a target are exempt.
    cols : int
        Filters of a chunk.
    rule : Rule
        TAILS or PREFIX.
    moments : mapping of layer name to float64 [groups, J], optional
        What PREFIX weighs taps with: :func:`tap_moments`.

    Raises
    ------
    CspError
        A name is no layer, or a target is out of reach; the message names it.
    """
    with located(f"network {network.name}"):
        counts = {
            name: _counts(layer, targets[name], cols, rule, moments)
            for name, layer in _known(network, targets).items()
        }
    return keep(network, counts, cols)


def prune_whole(
    network: FloatNetwork,
    layers: Collection[str],
    target: float,
    cols: int,
    *,
    moments: Mapping[str, Floats] | None = None,
) -> FloatNetwork:
    """Give the network with some layers pruned to one sparsity together.

    One price λ serves all of them; what a layer keeps is taken relative to all that it has.

    Parameters
    ----------
    network : FloatNetwork
    layers : names
    target : float
        Share of zeros in these layers together, 0 ≤ target < 1.
    cols : int
        Filters of a chunk.
    moments : mapping of layer name to float64 [groups, J], optional
        What taps are weighed with: :func:`tap_moments`.

    Raises
    ------
    CspError
        A name is no layer, or the target is out of reach.
    """
    with located(f"network {network.name}"):
        known = _known(network, layers)
        matrices = [layer.matrices for layer in known.values()]
        _, counts = prefix.price_for_sparsity(
            matrices,
            cols,
            target,
            moments=None if moments is None else [moments[name] for name in known],
            relative=True,
            name=f"{len(known)} layers",
        )
    return keep(network, dict(zip(known, counts, strict=True)), cols)


def keep(network: FloatNetwork, counts: Mapping[str, Counts], cols: int) -> FloatNetwork:
    """Give the network with the first chunks of each tap, int64 [groups, J] of some layers."""
    nodes = (
        kept(node, counts[node.name], cols)
        if isinstance(node, FloatLayer) and node.name in counts
        else node
        for node in network.nodes
    )
    return dataclasses.replace(network, nodes=tuple(nodes))


def kept(layer: FloatLayer, counts: Counts, cols: int) -> FloatLayer:
    """Give the layer with the first chunks of each tap, int64 [groups, J]."""
    mask = cascade.mask_of(counts, layer.geometry.group_filters, cols)
    weights = layer.geometry.matrices_to_weights(layer.matrices * mask)
    return dataclasses.replace(layer, weights=weights)


def _known(network: FloatNetwork, names: Collection[str]) -> dict[str, FloatLayer]:
    layers = {layer.name: layer for layer in network.layers()}
    for name in names:
        if name not in layers:
            known = ", ".join(layers)
            raise CspError(f"there is no layer {name} to prune; there are: {known}")
    if not names:
        raise CspError("there is no layer to prune")
    return {name: layers[name] for name in names}


def _counts(
    layer: FloatLayer,
    target: float,
    cols: int,
    rule: Rule,
    moments: Mapping[str, Floats] | None,
) -> Counts:
    matrices, name = layer.matrices, f"layer {layer.name}"
    if rule is Rule.TAILS:
        q = cascade.q_for_sparsity(matrices, cols, target, name=name)
        return cascade.counts_at(matrices, cols, q, name=name)
    moment = None if moments is None else [moments[layer.name]]
    _, (counts,) = prefix.price_for_sparsity([matrices], cols, target, moments=moment, name=name)
    return counts
