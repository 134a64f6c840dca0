# SPDX-License-Identifier: Apache-2.0
"""What pruning leaves of the activations that a layer was trained on.

Where the filters of a layer lose most or all of their weights, the taps of the next layer that read
them are worth little, however large their weights are. A tap is therefore weighed with the variance
of its activation in the dense network as far as the activation in the pruned one explains it:
cov(dense, pruned)² / var(pruned). It is 0 where a filter has no weight left: its map is constant.
"""

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from csp_algo.cascade import Floats
from csp_algo.errors import CspError
from csp_algo.train.layers import Prunable, from_matrices, prunable

#: Share of the layer's mean that no tap falls below, so that every share of zeros is in reach.
FLOOR = 1e-6
#: Share of the mean square below which a variance is one of rounding errors.
CONSTANT = 1e-10


class Activations:
    """What the layers of a model read, while one after the other is pruned.

    Parameters
    ----------
    model : nn.Module
        Stays as it is.
    layers : mapping of name to Prunable
        Those that will be pruned.
    samples : inputs of the model

    Attributes
    ----------
    order : tuple of str
        The layers in the order of their calls.

    Raises
    ------
    CspError
        A layer is a projection of an attention, whose activations have no name, or no sample
        reaches it.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, Prunable], samples: torch.Tensor
    ) -> None:
        for name, layer in layers.items():
            if isinstance(layer.module, nn.MultiheadAttention):
                raise CspError(f"{name}: what an attention's projections read is not known")
        self._model, self._samples = _frozen(model), samples
        found = prunable(self._model)
        self._layers = {name: found[name] for name in layers}
        self._dense = self._read(self._layers)
        self.order = tuple(self._dense)
        missing = [name for name in layers if name not in self._dense]
        if missing:
            raise CspError(f"{', '.join(missing)}: no sample reaches it")

    def weigh(self, name: str) -> Floats:
        """Give what each tap of a layer is weighed with, float64 [groups, J]."""
        layer = self._layers[name]
        (pruned,) = self._read({name: layer}).values()
        groups, _, taps = layer.matrices.shape
        channels = explained(self._dense[name], pruned).reshape(groups, -1)
        return np.tile(channels, (1, taps // channels.shape[1]))

    def prune(self, name: str, kept: npt.NDArray[np.bool_]) -> None:
        """Make weights of a layer 0 but those kept, [groups, M / groups, J]."""
        weight = self._layers[name].weight
        with torch.no_grad():
            weight.mul_(from_matrices(torch.from_numpy(kept), weight.shape))

    @torch.no_grad()
    def _read(self, layers: Mapping[str, Prunable]) -> dict[str, Floats]:
        """Give what layers read, float64 [activations, channels], in the order of their calls."""
        found: dict[str, list[torch.Tensor]] = {}

        def keep(name: str, x: torch.Tensor) -> None:
            found.setdefault(name, []).append(x.flatten(0, -2))

        def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
            last = isinstance(module, nn.Linear)
            return module.register_forward_pre_hook(
                lambda _, given: keep(name, given[0] if last else given[0].movedim(1, -1))
            )

        handles = [watch(name, layer.module) for name, layer in layers.items()]
        try:
            self._model(self._samples)
        finally:
            for handle in handles:
                handle.remove()
        return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def explained(dense: Floats, pruned: Floats) -> Floats:
    """Give the variance of channels in one network that another's explain, float64 [channels].

    Parameters
    ----------
    dense, pruned : float64 [activations, channels]
        What a layer reads, of the same samples.
    """
    before, after = dense - dense.mean(axis=0), pruned - pruned.mean(axis=0)
    common, left = (before * after).mean(axis=0), np.square(after).mean(axis=0)
    varies = left > CONSTANT * float(np.square(pruned).mean())
    known = np.divide(common**2, left, out=np.zeros_like(left), where=varies)
    return np.asarray(np.maximum(known, FLOOR * (float(known.mean()) or 1.0)))


def _frozen(model: nn.Module) -> nn.Module:
    """Give a copy in evaluation mode whose batch normalisations take each batch's statistics.

    Those of the dense network do not fit the pruned one.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
    return model
