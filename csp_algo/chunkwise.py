# SPDX-License-Identifier: Apache-2.0
"""Plain chunk pruning, the baseline of :mod:`csp_algo.cascade`: each chunk lives by itself.

Chunks and shapes are those of the cascade. What survives need be no prefix of a tap's chunks, so
the one count that is stored for a tap covers zero chunks too: at equal sparsity such a layer has
more words than a cascade.
"""

import numpy as np
import numpy.typing as npt

from csp_algo.cascade import Floats, Weights, check_strength, checked, chunk_sums, strength_for
from csp_algo.geometry import chunks

Alive = npt.NDArray[np.bool_]


def scores(weights: Weights, cols: int, *, name: str = "weights") -> Floats:
    """Give mean|W[k·cols : (k+1)·cols, j]|, the mean over real filters.

    Parameters
    ----------
    weights : [..., M, J]
    cols : int
        Filters of a chunk.
    name : str
        What error messages call the layer.

    Returns
    -------
    float64 [..., K, J]

    Raises
    ------
    CspError
        A weight is NaN or infinite; the message names the layer and the position.
    """
    values = checked(weights, cols, name)
    filters = values.shape[-2]
    sizes = np.minimum(cols, filters - cols * np.arange(chunks(filters, cols)))
    return np.asarray(chunk_sums(np.abs(values), cols) / sizes[:, None])


def alive_at(weights: Weights, cols: int, q: float, *, name: str = "weights") -> Alive:
    """Give which chunks survive strength q: those whose score exceeds q·std(W).

    Returns
    -------
    bool [..., K, J]

    Raises
    ------
    CspError
        q is negative or not finite, or a weight is not finite.
    """
    check_strength(q, name)
    values = checked(weights, cols, name)
    return np.asarray(scores(values, cols, name=name) > q * float(np.std(values)))


def mask_of(alive: Alive, filters: int, cols: int) -> Alive:
    """Give which weights [..., M, J] surviving chunks [..., K, J] keep."""
    return np.asarray(np.repeat(alive, cols, axis=-2)[..., :filters, :])


def q_for_sparsity(
    weights: Weights,
    cols: int,
    target: float,
    *,
    tolerance: float | None = None,
    name: str = "weights",
) -> float:
    """Give the strength q at which a layer comes closest to a target sparsity.

    Parameters and errors are those of :func:`csp_algo.cascade.q_for_sparsity`.
    """
    reached = scores(weights, cols, name=name)
    return strength_for(reached, weights, cols, target, tolerance=tolerance, name=name)


def regulariser(weights: Weights, cols: int, *, name: str = "weights") -> float:
    """Give R = Σ_k Σ_j ‖W[k·cols : (k+1)·cols, j]‖₂ / K, a group lasso over chunks.

    It is the penalty of structured sparsity learning (Wen et al., NeurIPS 2016, arXiv 1608.03665)
    for groups of this shape. As in the cascade's, the weights of a tap's terms add up to 1.

    Parameters
    ----------
    weights : [..., M, J]
        Groups, if any, are added.

    Raises
    ------
    CspError
        A weight is NaN or infinite.
    """
    values = checked(weights, cols, name)
    norms = np.sqrt(chunk_sums(values**2, cols))
    return float(norms.sum() / norms.shape[-2])
