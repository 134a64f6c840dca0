# SPDX-License-Identifier: Apache-2.0
"""Real zeros of a layer: its trained weights, pruned in two ways, and a map that it reads."""

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from csp_algo import cascade

Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Zeros:
    """Where a layer has zeros.

    Parameters
    ----------
    name : str
        What error messages call the layer.
    weights : float[groups, M/groups, J]
        As trained, taps in the order of :mod:`csp_algo.geometry`.
    sparsity : float
        Share of zeros that a cascade is pruned to; 0: weights are as they are.
    inputs : bool[H, W, C]
        Which activations of one image are not zero.
    """

    name: str
    weights: npt.NDArray[np.floating]
    sparsity: float
    inputs: Mask

    @functools.cache  # noqa: B019 - a workload lives as long as its layers
    def counts(self, cols: int) -> Counts:
        """Give the chunks of ``cols`` filters that taps keep, int64[groups, J].

        Raises
        ------
        CspError
            The sparsity is out of reach.
        """
        q = 0.0
        if self.sparsity:
            q = cascade.q_for_sparsity(self.weights, cols, self.sparsity, name=self.name)
        return cascade.counts_at(self.weights, cols, q, name=self.name)

    def unstructured(self, density: float) -> Mask:
        """Give which weights bool[groups, M/groups, J] are there if the smallest are zero.

        Exactly round(density · weights) of them, the layer as a whole; of equals the first.
        """
        wanted = round(density * self.weights.size)
        order = np.argsort(-np.abs(self.weights), axis=None, kind="stable")
        mask = np.zeros(self.weights.size, dtype=np.bool_)
        mask[order[:wanted]] = True
        return mask.reshape(self.weights.shape)
