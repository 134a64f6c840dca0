# SPDX-License-Identifier: Apache-2.0
"""Cascade pruning: a tap keeps its first chunks of filters and loses all later ones.

A layer's weights are [M, J], or [groups, M, J] for a grouped convolution: each group has its own
chunks and counts, while the deviation, q and the sparsity belong to the layer as a whole.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError, check_int
from csp_algo.geometry import COLS_LIMIT, chunks

Weights = npt.NDArray[np.floating] | npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

#: Default share of the weights by which a reached sparsity may miss its target.
TOLERANCE = 0.01


def scores(weights: Weights, cols: int, *, name: str = "weights") -> Floats:
    """Give mean|W[k·cols:, j]|·(K − k), the mean over real filters.

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
    absolute = np.abs(checked(weights, cols, name))
    tails = _tail_sums(absolute, cols)
    starts = np.arange(0, absolute.shape[-2], cols)
    left = absolute.shape[-2] - starts
    return np.asarray(tails / left[:, None] * np.arange(len(starts), 0, -1)[:, None])


def counts_at(weights: Weights, cols: int, q: float, *, name: str = "weights") -> Counts:
    """Give how many chunks of each tap survive strength q.

    Chunk k survives iff its score exceeds q·std(W) (population, ddof 0, float64) and so do those
    of all earlier chunks of the tap (closing).

    Returns
    -------
    int64 [..., J]

    Raises
    ------
    CspError
        q is negative or not finite, or a weight is not finite.
    """
    check_strength(q, name)
    values = checked(weights, cols, name)
    alive = scores(values, cols, name=name) > q * float(np.std(values))
    return np.asarray(np.logical_and.accumulate(alive, axis=-2).sum(axis=-2, dtype=np.int64))


def mask_of(counts: npt.NDArray[np.integer], filters: int, cols: int) -> npt.NDArray[np.bool_]:
    """Give which weights [..., M, J] counts [..., J] keep."""
    chunk = np.arange(filters) // cols
    return np.asarray(chunk[:, None] < counts[..., None, :])


def sparsity(weights: npt.NDArray[np.generic]) -> float:
    """Give the share of weights that are zero."""
    return 1.0 - np.count_nonzero(weights) / weights.size


def q_for_sparsity(
    weights: Weights,
    cols: int,
    target: float,
    *,
    tolerance: float | None = None,
    name: str = "weights",
) -> float:
    """Give the strength q at which a layer comes closest to a target sparsity, by bisection.

    Sparsity grows with q in steps, so the result is the end of the step that is nearer to the
    target. Weights that are zero already count. A layer is never erased as a whole.

    Parameters
    ----------
    weights : [..., M, J]
    cols : int
    target : float
        Share of zero weights, 0 ≤ target < 1.
    tolerance : float, optional
        By how much the result may miss the target; the larger of 0.01 and half the share of one
        tap if not given.
    name : str
        What error messages call the layer.

    Raises
    ------
    CspError
        The target is out of range or out of reach (the message says what is the closest), or a
        weight is not finite.
    """
    reached = np.minimum.accumulate(scores(weights, cols, name=name), axis=-2)
    return strength_for(reached, weights, cols, target, tolerance=tolerance, name=name)


def strength_for(
    reached: Floats,
    weights: Weights,
    cols: int,
    target: float,
    *,
    tolerance: float | None = None,
    name: str = "weights",
) -> float:
    """Give the strength q for a target sparsity where a chunk survives iff reached > q·std(W).

    Parameters
    ----------
    reached : float64 [..., K, J]
        Of each chunk.

    The others, and the errors, are those of :func:`q_for_sparsity`.
    """
    values = checked(weights, cols, name)
    deviation = float(np.std(values))
    nonzero = chunk_sums((values != 0).astype(np.float64), cols)

    def result(q: float) -> float:
        return 1.0 - float(nonzero[reached > q * deviation].sum()) / values.size

    allowed = reach(values.size // values.shape[-2]) if tolerance is None else tolerance
    return nearest_strength(
        result, target, tolerance=allowed, cols=cols, name=name, even=deviation == 0
    )


def reach(taps: int) -> float:
    """Give by how much a sparsity may miss its target: 0.01, or half the share of a tap."""
    return max(TOLERANCE, 0.5 / taps)


def nearest_strength(
    result: Callable[[float], float],
    target: float,
    *,
    tolerance: float,
    cols: int,
    name: str,
    even: bool = False,
) -> float:
    """Give the strength whose sparsity is nearest to a target, by bisection.

    Parameters
    ----------
    result : function of a strength, which gives the sparsity
        Not decreasing.
    target, tolerance : float
    cols : int
        Filters of a chunk, for the message.
    name : str
        What error messages call the layer.
    even : bool
        Whether the strength does not matter, since all weights are equal.

    Raises
    ------
    CspError
        The target is out of range or out of reach (the message says what is the closest).
    """
    if not 0 <= target < 1:
        raise CspError(f"{name}: target sparsity must be 0 or more and below 1, not {target}")
    low, high = 0.0, 1.0
    if even or result(0.0) >= target:
        high = 0.0
    while high and result(high) < target:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if result(middle) >= target else (middle, high)
    ends = [strength for strength in (low, high) if result(strength) < 1]
    best = min(ends, key=lambda strength: abs(result(strength) - target), default=None)
    if best is None:
        raise CspError(f"{name}: all weights are zero, no sparsity of {target:g} can be chosen")
    if abs(result(best) - target) > tolerance:
        raise CspError(
            f"{name}: a sparsity of {target:g} ± {tolerance:g} is out of reach with chunks of "
            f"{cols} filters; the closest is {result(best):.4f}"
        )
    return best


def regulariser(weights: Weights, cols: int, *, name: str = "weights") -> float:
    """Give R = Σ_k s_k Σ_j ‖W[k·cols:, j]‖₂ with s_k = (k + 1) / (K (K + 1) / 2).

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
    norms = np.sqrt(_tail_sums(values**2, cols))
    return float((norms * tail_weights(values.shape[-2], cols)[:, None]).sum())


def tail_weights(filters: int, cols: int) -> Floats:
    """Give s_k for k = 0 … K − 1; they add up to 1 and grow with k."""
    count = chunks(filters, cols)
    return np.arange(1, count + 1, dtype=np.float64) / (count * (count + 1) / 2)


def check_strength(q: float, name: str) -> None:
    """Refuse a strength q that is negative or not finite."""
    if not (np.isfinite(q) and q >= 0):
        raise CspError(f"{name}: strength q must be finite and not negative, not {q}")


def checked(weights: Weights, cols: int, name: str) -> Floats:
    """Give weights [..., M, J] as float64.

    Raises
    ------
    CspError
        They are no such array, ``cols`` is out of range, or a weight is NaN or infinite.
    """
    values = np.asarray(weights, dtype=np.float64)
    check_int(f"{name}: cols", cols, 1, COLS_LIMIT)
    if values.ndim < 2 or not values.size:
        raise CspError(f"{name}: weights must be [..., M, J], not {list(values.shape)}")
    finite = np.isfinite(values)
    if not finite.all():
        position = np.unravel_index(int(np.argmin(finite)), values.shape)
        where = ", ".join(str(index) for index in position)
        raise CspError(f"{name}: weight [{where}] is {values[position]}")
    return values


def chunk_sums(values: Floats, cols: int) -> Floats:
    """Give the sum over the filters of each chunk, [..., K, J] for [..., M, J]."""
    return np.asarray(np.add.reduceat(values, np.arange(0, values.shape[-2], cols), axis=-2))


def _tail_sums(values: Floats, cols: int) -> Floats:
    sums = chunk_sums(values, cols)
    return np.flip(np.cumsum(np.flip(sums, axis=-2), axis=-2), axis=-2)
