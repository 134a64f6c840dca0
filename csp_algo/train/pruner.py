# SPDX-License-Identifier: Apache-2.0
"""Masks on the weights of any module, each layer at its own strength q.

A mask is a parametrization (:mod:`torch.nn.utils.parametrize`): the module computes with
weight · mask, so no gradient reaches what was pruned, and no training loop need know of it. The
rules and the bisection are those of :mod:`csp_algo.cascade`, :mod:`csp_algo.prefix` and
:mod:`csp_algo.chunkwise`, in float64; here weights are only brought to their layout and masks back
to PyTorch's.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils import parametrize

from csp_algo.cascade import Floats
from csp_algo.errors import CspError
from csp_algo.train.activations import Activations
from csp_algo.train.layers import KINDS, Prunable, from_matrices, prunable, resolve
from csp_algo.train.method import Method


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """What pruning did to one layer.

    Attributes
    ----------
    q : float
        Strength that was used.
    sparsity : float
        Share of masked weights, 0 … 1.
    mask : bool, shape of the weight
    """

    q: float
    sparsity: float
    mask: torch.Tensor


class ErasedError(CspError):
    """A strength leaves no weight of a layer."""


class Mask(nn.Module):
    """Keeps the weights under a boolean mask and makes all others 0."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Give weight · mask."""
        return weight * self.mask

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Give the parameter behind a weight that is assigned: what is masked is stored as 0."""
        return weight * self.mask


def to_arrays(layer: Prunable) -> npt.NDArray[np.float64]:
    """Give a layer's weights as float64 [groups, M / groups, J]."""
    return np.asarray(layer.matrices.detach().double().cpu().numpy())


def prune(
    model: nn.Module,
    targets: Mapping[str, float],
    cols: int,
    *,
    method: Method = Method.CASCADE,
    samples: torch.Tensor | None = None,
    kinds: tuple[type[nn.Module], ...] = KINDS,
) -> dict[str, Pruned]:
    """Mask layers, each at the strength that comes closest to its target.

    Parameters
    ----------
    model : nn.Module
        Changed in place, and not at all if there is an error.
    targets : mapping of layer name, or pattern, to share of zeros, 0 ≤ share < 1
        A later pattern overrides; layers that none matches are exempt.
    cols : int
        Filters of a chunk.
    method : Method
        Whose rule decides.
    samples : inputs of the model, optional
        Needed by ``sequential`` only, which looks at their activations.
    kinds : types of modules
        Patterns match names of these only.

    Raises
    ------
    CspError
        A name is no layer with weights, a layer is masked already, a target is out of reach, or
        samples are missing.
    """
    chosen = resolve(prunable(model, kinds=kinds), targets)

    def strength(name: str, matrices: Floats, moments: Floats | None) -> float:
        return method.strength(matrices, cols, chosen[name], name, moments)

    return _prune(model, chosen, cols, method, samples, strength)


def prune_at(
    model: nn.Module,
    strengths: Mapping[str, float],
    cols: int,
    *,
    method: Method = Method.CASCADE,
    samples: torch.Tensor | None = None,
    kinds: tuple[type[nn.Module], ...] = KINDS,
) -> dict[str, Pruned]:
    """Mask layers, each at a given strength q.

    Parameters
    ----------
    strengths : mapping of layer name, or pattern, to q ≥ 0

    The others are those of :func:`prune`.

    Raises
    ------
    CspError
        A name is no layer with weights, a layer is masked already, q is out of range, it leaves a
        layer without any weight, or samples are missing.
    """
    chosen = resolve(prunable(model, kinds=kinds), strengths)
    return _prune(model, chosen, cols, method, samples, lambda name, *_: chosen[name])


def _prune(
    model: nn.Module,
    names: Iterable[str],
    cols: int,
    method: Method,
    samples: torch.Tensor | None,
    strength: Callable[[str, Floats, Floats | None], float],
) -> dict[str, Pruned]:
    """Decide on all layers, then mask them; ``strength`` gives the q of a layer."""
    found = prunable(model)
    layers = {name: found[name] for name in names}
    for name, layer in layers.items():
        if mask_of(layer) is not None:
            raise CspError(f"{name}: is masked already")
    activations = None
    if method is Method.SEQUENTIAL:
        if samples is None:
            raise CspError(f"method {method} needs samples")
        activations = Activations(model, layers, samples)
    decided = {}
    for name in layers if activations is None else activations.order:
        matrices = to_arrays(layers[name])
        moments = None if activations is None else activations.weigh(name)
        q = strength(name, matrices, moments)
        kept = method.kept(matrices, cols, q, name, moments)
        if not kept.any():
            raise ErasedError(f"{name}: strength q {q:g} leaves no weight")
        if activations is not None:
            activations.prune(name, kept)
        decided[name] = (q, kept)
    results = {}
    for name, layer in layers.items():
        q, kept = decided[name]
        # In the weight's own memory format, so that the product has it, too.
        mask = torch.empty_like(layer.weight, dtype=torch.bool, requires_grad=False)
        mask.copy_(from_matrices(torch.from_numpy(kept), layer.weight.shape))
        parametrize.register_parametrization(layer.module, layer.attribute, Mask(mask))
        results[name] = Pruned(q=q, sparsity=1 - float(kept.mean()), mask=mask)
    return results


def mask_of(layer: Prunable) -> torch.Tensor | None:
    """Give a layer's mask, of the shape of its weight, or None."""
    if not parametrize.is_parametrized(layer.module, layer.attribute):
        return None
    for each in layer.module.parametrizations[layer.attribute]:
        if isinstance(each, Mask):
            return each.mask
    return None


def release(model: nn.Module) -> None:
    """Take the masks off; the weights stay as the masks made them."""
    for layer in prunable(model).values():
        if mask_of(layer) is None:
            continue
        # PyTorch changes the module's class, which a copy of the module has in common with it.
        kind = type(layer.module)
        layer.module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
        parametrize.remove_parametrizations(layer.module, layer.attribute)
