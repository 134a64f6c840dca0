# SPDX-License-Identifier: Apache-2.0
"""The weights of a module that can be pruned, and their view as CSP's matrices.

The view is that of :class:`csp_algo.geometry.Geometry`: [groups, M / groups, J], tap
j = (r·S + s)·C + c. A linear layer is one matrix of all its inputs as taps. The three input
projections of an attention that lie in one parameter are three matrices, since each is a layer of
its own on the accelerator.
"""

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import torch
from torch import nn

from csp_algo.errors import CspError

Setting = TypeVar("Setting")

#: Kinds of module with weights that can be pruned.
KINDS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prunable:
    """A parameter that can be pruned.

    Attributes
    ----------
    name : str
        The module's name; for the input projections of an attention ``a``: ``a.in_proj``, or
        ``a.q_proj``, ``a.k_proj``, ``a.v_proj`` where its inputs differ in width.
    module : nn.Module
        Whose parameter it is.
    attribute : str
        Name of the parameter in the module.
    groups : int
        Matrices that it holds, of equal shape.
    """

    name: str
    module: nn.Module
    attribute: str
    groups: int

    @property
    def weight(self) -> torch.Tensor:
        """The parameter as the module uses it, under its mask if there is one."""
        return getattr(self.module, self.attribute)

    @property
    def matrices(self) -> torch.Tensor:
        """The weight as [groups, M / groups, J]; gradients pass."""
        return to_matrices(self.weight, self.groups)


def to_matrices(weight: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """Give [groups, M / groups, J], taps in CSP's order.

    Parameters
    ----------
    weight : [M, C / groups, R, S] of a convolution or [M, J]
    groups : int
    """
    if weight.ndim == 4:
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def from_matrices(matrices: torch.Tensor, shape: Collection[int]) -> torch.Tensor:
    """Give a tensor of a weight's shape from one of :func:`to_matrices`' shape."""
    if len(shape) == 4:
        filters, channels, rows, cols = shape
        return matrices.reshape(filters, rows, cols, channels).permute(0, 3, 1, 2)
    return matrices.reshape(*shape)


def prunable(
    model: nn.Module,
    *,
    kinds: tuple[type[nn.Module], ...] = KINDS,
    names: Iterable[str] | None = None,
) -> dict[str, Prunable]:
    """Give what can be pruned in a model by name, in the order of its modules.

    Parameters
    ----------
    model : nn.Module
    kinds : types of modules
        Only these; the output projection of an attention is a Linear.
    names : patterns of :mod:`fnmatch`, optional
        Only what one of them matches, for example ``block*.conv?``.

    Raises
    ------
    CspError
        A pattern matches nothing.
    """
    found: dict[str, Prunable] = {}
    for label, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) and isinstance(module, kinds):
            found.update((each.name, each) for each in _projections(label, module))
        elif isinstance(module, nn.Conv2d | nn.Linear) and isinstance(module, kinds):
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            found[label] = Prunable(name=label, module=module, attribute="weight", groups=groups)
    if names is None:
        return found
    kept = {name for pattern in names for name in _matches(found, pattern)}
    return {name: each for name, each in found.items() if name in kept}


def resolve(layers: Mapping[str, Prunable], settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Give the setting of each layer that a pattern matches; a later pattern overrides.

    Raises
    ------
    CspError
        A pattern matches nothing.
    """
    chosen = {
        name: setting for pattern, setting in settings.items() for name in _matches(layers, pattern)
    }
    return {name: chosen[name] for name in layers if name in chosen}


def _matches(layers: Mapping[str, Prunable], pattern: str) -> list[str]:
    matches = [name for name in layers if name == pattern or fnmatch.fnmatchcase(name, pattern)]
    if not matches:
        raise CspError(f"there is no layer {pattern} to prune; there are: {', '.join(layers)}")
    return matches


def _projections(label: str, module: nn.MultiheadAttention) -> list[Prunable]:
    prefix = f"{label}." if label else ""
    # Where all inputs have the width of the embedding, the three lie in one parameter.
    if module.in_proj_weight is not None:
        return [
            Prunable(name=f"{prefix}in_proj", module=module, attribute="in_proj_weight", groups=3)
        ]
    return [
        Prunable(
            name=f"{prefix}{part}_proj", module=module, attribute=f"{part}_proj_weight", groups=1
        )
        for part in "qkv"
    ]
