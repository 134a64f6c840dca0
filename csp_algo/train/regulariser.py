# SPDX-License-Identifier: Apache-2.0
"""The cascading regulariser: it pulls whole tails of filters towards zero.

For a layer's weights W[M, J] and chunks of ``cols`` filters,

    R = Σ_k s_k · Σ_j ‖W[k·cols:, j]‖₂,   s_k = (k + 1) / (K·(K + 1) / 2).

The last chunks belong to every tail, so they shrink first; a tap's surviving chunks are then a
prefix, which one count a tap describes.
"""

import torch
from torch import nn


def tap_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Give a layer's weights as [M, J], taps in the order (r·S + s)·C + c.

    Parameters
    ----------
    weight : [M, C, R, S] of a convolution (C inputs of a group) or [M, J] of a linear layer
    """
    if weight.ndim == 2:
        return weight
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def cascade_regulariser(matrix: torch.Tensor, cols: int) -> torch.Tensor:
    """Give R of one matrix [M, J] as a scalar of its type.

    A tail of zeros adds nothing and pulls nothing: its sub-gradient is 0, not NaN.
    """
    filters, taps = matrix.shape
    chunks = -(-filters // cols)
    padded = nn.functional.pad(matrix, (0, 0, 0, chunks * cols - filters))
    squares = padded.square().reshape(chunks, cols, taps).sum(1)
    # A tail is the sum of the chunks from k on: cumulative from the last one.
    tails = squares.flip(0).cumsum(0).flip(0)
    # The square root has no finite gradient at 0: keep such tails out of it.
    empty = tails == 0
    norms = torch.where(empty, torch.zeros_like(tails), torch.where(empty, 1.0, tails).sqrt())
    strengths = torch.arange(1, chunks + 1, dtype=matrix.dtype, device=matrix.device)
    strengths = strengths / (chunks * (chunks + 1) / 2)
    return (strengths[:, None] * norms).sum()


def model_regulariser(
    weights: list[torch.Tensor], cols: int, *, groups: list[int] | None = None
) -> torch.Tensor:
    """Give the sum of R over layers; a grouped convolution is a matrix for each group."""
    total = torch.zeros(())
    for index, weight in enumerate(weights):
        parts = 1 if groups is None else groups[index]
        for part in tap_matrix(weight).chunk(parts):
            total = total + cascade_regulariser(part, cols)
    return total
