# SPDX-License-Identifier: Apache-2.0
"""Cascade pruning of a whole float network, each layer to its own target; no training."""

import dataclasses
from collections.abc import Mapping

from csp_algo import cascade
from csp_algo.errors import CspError, located
from csp_algo.quantize import FloatLayer, FloatNetwork


def prune(network: FloatNetwork, targets: Mapping[str, float], cols: int) -> FloatNetwork:
    """Give the network with weights set to zero under the cascade rule.

    Parameters
    ----------
    network : FloatNetwork
    targets : mapping of layer name to share of zeros, 0 ≤ share < 1
        Layers without a target are exempt.
    cols : int
        Filters of a chunk.

    Raises
    ------
    CspError
        A name is no layer, or a target is out of reach; the message names it.
    """
    layers = {node.name: node for node in network.nodes if isinstance(node, FloatLayer)}
    with located(f"network {network.name}"):
        for name in targets:
            if name not in layers:
                known = ", ".join(layers)
                raise CspError(f"there is no layer {name} to prune; there are: {known}")
        pruned = {name: _pruned(layers[name], target, cols) for name, target in targets.items()}
    nodes = tuple(pruned.get(node.name, node) for node in network.nodes)
    return dataclasses.replace(network, nodes=nodes)


def _pruned(layer: FloatLayer, target: float, cols: int) -> FloatLayer:
    matrices = layer.matrices
    q = cascade.q_for_sparsity(matrices, cols, target, name=f"layer {layer.name}")
    counts = cascade.counts_at(matrices, cols, q, name=f"layer {layer.name}")
    kept = cascade.mask_of(counts, layer.geometry.group_filters, cols)
    weights = layer.geometry.matrices_to_weights(matrices * kept)
    return dataclasses.replace(layer, weights=weights)
