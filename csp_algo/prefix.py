# SPDX-License-Identifier: Apache-2.0
"""A choice of the chunks that each tap keeps: as much of the weights' norm as possible.

For a price λ of a stored weight, tap j keeps the n first chunks with the largest
Σ‖W[chunk, j]‖² − λ · (their weights). The larger λ, the fewer: each chunk has a λ up to which it
stays, its worth, found once. This is Lagrangian relaxation (H. Everett, Operations Research 11,
1963, doi 10.1287/opre.11.3.399): no other cascade of as few weights keeps a larger norm.

A weight matters for the outputs as much as the activations that it meets are large, so W² may be
multiplied by the mean of the squared activations of its tap (as Wanda does with single weights,
arXiv:2306.11695): what is lost is then the outputs' squared error, if activations are uncorrelated.
"""

import math
from collections.abc import Sequence

import numpy as np

from csp_algo.cascade import (
    Counts,
    Floats,
    Weights,
    checked,
    chunk_sums,
    nearest_strength,
    reach,
)


def worths(
    weights: Weights, cols: int, *, moments: Floats | None = None, name: str = "weights"
) -> Floats:
    """Give the largest λ at which each chunk stays; chunks without a weight are worth 0.

    It is the slope of the concave hull of the kept squared norm over the kept weights:
    min over a ≤ k of max over b ≥ k of the mean of W² in chunks a … b of the tap.

    Parameters
    ----------
    weights : [..., M, J]
    cols : int
        Filters of a chunk.
    moments : float64 [..., J], optional
        Mean of the squared activations of each tap; 1 if not given.
    name : str
        What error messages call the layer.

    Returns
    -------
    float64 [..., K, J]
        Not increasing with k.

    Raises
    ------
    CspError
        A weight is NaN or infinite.
    """
    squares = chunk_sums(checked(weights, cols, name) ** 2, cols)
    if moments is not None:
        squares = squares * moments[..., None, :]
    sizes = np.full(squares.shape[-2], float(cols))
    sizes[-1] = np.asarray(weights).shape[-2] - cols * (len(sizes) - 1)
    best = np.full(squares.shape, np.inf)
    for start in range(len(sizes)):
        sums = np.cumsum(squares[..., start:, :], axis=-2)
        means = sums / np.cumsum(sizes[start:])[:, None]
        later = np.flip(np.maximum.accumulate(np.flip(means, axis=-2), axis=-2), axis=-2)
        tail = best[..., start:, :]
        np.minimum(tail, later, out=tail)
    return best


def counts_at(worth: Floats, price: float) -> Counts:
    """Give how many chunks of each tap are worth more than a price λ, int64 [..., J]."""
    return np.asarray((worth > price).sum(axis=-2, dtype=np.int64))


def counts_for_shares(
    weights: Weights,
    cols: int,
    shares: Sequence[float],
    *,
    moments: Floats | None = None,
    name: str = "weights",
) -> list[Counts]:
    """Give the counts with which a layer keeps at most some shares of its weights that are not 0.

    It keeps at least its best chunk.

    Parameters
    ----------
    weights : [..., M, J]
    cols : int
        Filters of a chunk.
    shares : sequence of float
        Above 0, at most 1.
    moments : float64 [..., J], optional
        Mean of the squared activations of each tap.
    name : str
        What error messages call the layer.

    Returns
    -------
    list of int64 [..., J]

    Raises
    ------
    CspError
        A weight is NaN or infinite.
    """
    worth = worths(weights, cols, moments=moments, name=name)
    nonzero = chunk_sums((np.asarray(weights) != 0).astype(np.float64), cols).ravel()
    order = np.argsort(-worth, axis=None, kind="stable")
    prices, stored = worth.ravel()[order], np.cumsum(nonzero[order])
    found = []
    for share in shares:
        fitting = int(np.searchsorted(stored, share * stored[-1], side="right"))
        # The first one that no longer fits is the price; chunks that are worth as much go, too.
        price = prices[fitting] if fitting < len(prices) else 0.0
        price = min(price, math.nextafter(prices[0], 0.0))
        found.append(counts_at(worth, price))
    return found


def price_for_sparsity(
    layers: Sequence[Weights],
    cols: int,
    target: float,
    *,
    moments: Sequence[Floats] | None = None,
    relative: bool = False,
    name: str = "weights",
) -> tuple[float, list[Counts]]:
    """Give the price λ with which some layers together come closest to a sparsity, by bisection.

    Each layer keeps at least its best chunk.

    Parameters
    ----------
    layers : of [..., M, J]
    cols : int
        Filters of a chunk.
    target : float
        Share of zero weights of all layers together, 0 ≤ target < 1.
    moments : of float64 [..., J], optional
        Mean of the squared activations of each tap, for each layer.
    relative : bool
        Whether what each layer keeps is taken relative to all of it, a weight on average.
    name : str
        What error messages call the layers.

    Returns
    -------
    float and list of int64 [..., J]
        λ, and the counts of each layer.

    Raises
    ------
    CspError
        The target is out of range or out of reach, or a weight is not finite.
    """
    given = [None] * len(layers) if moments is None else moments
    priced = [
        worths(weights, cols, moments=moment, name=name)
        for weights, moment in zip(layers, given, strict=True)
    ]
    if relative:
        priced = [worth / (float(worth.mean()) or 1.0) for worth in priced]
    top = max(float(worth.max()) for worth in priced)
    for worth in priced:
        # A layer is never erased as a whole.
        worth.flat[int(np.argmax(worth))] = top
    nonzero = [
        chunk_sums((checked(weights, cols, name) != 0).astype(np.float64), cols)
        for weights in layers
    ]
    size = sum(np.asarray(weights).size for weights in layers)

    def result(price: float) -> float:
        kept = sum(float(n[w > price].sum()) for n, w in zip(nonzero, priced, strict=True))
        return 1.0 - kept / size

    taps = sum(worth.size // worth.shape[-2] for worth in priced)
    best = nearest_strength(result, target, tolerance=reach(taps), cols=cols, name=name)
    counts = [counts_at(worth, best) for worth in priced]
    return best, counts


def kept_norm(weights: Weights, kept: Weights, order: int) -> float:
    """Give the share of the L1 (order 1) or L2 (order 2) norm of weights that is kept."""
    full = float(np.sum(np.abs(np.asarray(weights, dtype=np.float64)) ** order))
    part = float(np.sum(np.abs(np.asarray(kept, dtype=np.float64)) ** order))
    return math.pow(part / full, 1 / order) if full else 1.0
