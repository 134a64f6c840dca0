# SPDX-License-Identifier: Apache-2.0
"""Masks of a model's layers under the cascade rule, each layer at its own strength q.

The rule and the bisection are those of :mod:`csp_algo.cascade`, in float64; here weights are only
brought to its layout and masks back to PyTorch's.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from csp_algo import cascade
from csp_algo.errors import CspError
from csp_algo.train.schedule import weighted


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """What pruning did to one layer.

    Attributes
    ----------
    q : float
        Strength that was found.
    sparsity : float
        Share of zero weights, 0 … 1.
    mask : bool, shape of the weight
    """

    q: float
    sparsity: float
    mask: torch.Tensor


def to_matrices(layer: nn.Conv2d | nn.Linear) -> npt.NDArray[np.float64]:
    """Give a layer's weights as float64 [groups, M / groups, J], channel innermost."""
    weight = layer.weight.detach().double().cpu().numpy()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    if weight.ndim == 4:
        weight = weight.transpose(0, 2, 3, 1)
    return np.asarray(weight.reshape(groups, len(weight) // groups, -1))


def to_mask(layer: nn.Conv2d | nn.Linear, kept: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Give a mask of the weight's shape from one of :func:`to_matrices`' shape."""
    shape = tuple(layer.weight.shape)
    if len(shape) == 4:
        filters, channels, rows, cols = shape
        kept = kept.reshape(filters, rows, cols, channels).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(kept.reshape(shape)))


def prune(model: nn.Module, targets: Mapping[str, float], cols: int) -> dict[str, Pruned]:
    """Set weights to zero, layer by layer; layers without a target are exempt.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    targets : mapping of layer name to share of zeros, 0 … 1
    cols : int
        Filters of a chunk.

    Raises
    ------
    CspError
        A name is no layer with weights, or a target is out of reach.
    """
    layers = weighted(model)
    results = {}
    for name, target in targets.items():
        if name not in layers:
            raise CspError(f"there is no layer {name} to prune; there are: {', '.join(layers)}")
        matrices = to_matrices(layers[name])
        q = cascade.q_for_sparsity(matrices, cols, target, name=name)
        counts = cascade.counts_at(matrices, cols, q, name=name)
        kept = cascade.mask_of(counts, matrices.shape[1], cols)
        mask = to_mask(layers[name], kept)
        with torch.no_grad():
            layers[name].weight.mul_(mask)
        results[name] = Pruned(q=q, sparsity=1 - float(kept.mean()), mask=mask)
    return results
