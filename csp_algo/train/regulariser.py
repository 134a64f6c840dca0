# SPDX-License-Identifier: Apache-2.0
"""Penalties that pull whole groups of a tap's filters towards zero.

For a layer's weights W[M, J] and K chunks of ``cols`` filters the *cascade* (Hanson et al., ISCA
2022, doi 10.1145/3470496.3527419) takes tails of chunks,

    R = Σ_k s_k · Σ_j ‖W[k·cols:, j]‖₂,   s_k = (k + 1) / (K·(K + 1) / 2).

The last chunks belong to every tail, so they shrink first; a tap's surviving chunks are then a
prefix, which one count a tap describes. The baseline, the group lasso of structured sparsity
learning (Wen et al., NeurIPS 2016, arXiv 1608.03665), takes each chunk by itself,

    R = Σ_k Σ_j ‖W[k·cols : (k+1)·cols, j]‖₂ / K.

A tap's terms have weights that add up to 1 in both, so that one λ is about as strong in either.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from csp_algo.train.layers import Prunable

#: Takes matrices [groups, M, J] and ``cols``, gives a scalar.
Penalty = Callable[[torch.Tensor, int], torch.Tensor]


def cascade_regulariser(matrices: torch.Tensor, cols: int) -> torch.Tensor:
    """Give the cascade's R of matrices [..., M, J], added over the groups, a scalar of their type.

    A tail of zeros adds nothing and pulls nothing: its sub-gradient is 0, not NaN.
    """
    squares = _chunk_squares(matrices, cols)
    # A tail is the sum of the chunks from k on: cumulative from the last one.
    norms = _roots(squares.flip(-2).cumsum(-2).flip(-2))
    chunks = squares.shape[-2]
    strengths = torch.arange(1, chunks + 1, dtype=matrices.dtype, device=matrices.device)
    strengths = strengths / (chunks * (chunks + 1) / 2)
    return (strengths[:, None] * norms).sum()


def group_lasso(matrices: torch.Tensor, cols: int) -> torch.Tensor:
    """Give the group lasso over the chunks of matrices [..., M, J], a scalar of their type.

    A chunk of zeros adds nothing and pulls nothing.
    """
    squares = _chunk_squares(matrices, cols)
    return _roots(squares).sum() / squares.shape[-2]


def model_regulariser(
    layers: Iterable[Prunable], cols: int, penalty: Penalty = cascade_regulariser
) -> torch.Tensor:
    """Give the sum of a penalty over layers."""
    total = torch.zeros(())
    for layer in layers:
        total = total + penalty(layer.matrices, cols)
    return total


def _chunk_squares(matrices: torch.Tensor, cols: int) -> torch.Tensor:
    """Give the squared norm of each chunk, [..., K, J]; padding of the last chunk adds nothing."""
    *groups, filters, taps = matrices.shape
    chunks = -(-filters // cols)
    padded = nn.functional.pad(matrices, (0, 0, 0, chunks * cols - filters))
    return padded.square().reshape(*groups, chunks, cols, taps).sum(-2)


def _roots(squares: torch.Tensor) -> torch.Tensor:
    # The square root has no finite gradient at 0: keep such sums out of it.
    empty = squares == 0
    return torch.where(empty, torch.zeros_like(squares), torch.where(empty, 1.0, squares).sqrt())
