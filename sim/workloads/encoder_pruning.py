# SPDX-License-Identifier: Apache-2.0
"""An encoder's linear layers pruned to cascades, filters re-ordered where nothing else changes.

Which filters may change places: those of the inner layer of each feed-forward pair; heads, and
filters inside each head, of queries and keys together and of values; and the channels of the
states between blocks, which all blocks share: filters of the output projections and of the outer
feed-forward layers. Whatever reads them follows: taps, layer norms, embedding tables. An embedding
has its elements in another order then, which no cosine sees.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from csp_algo import cascade, prefix
from csp_algo.prune import UNSEEN
from csp_algo.reorder import shared_order, unit
from sim.workloads.minilm import CONTEXT, DOWN, KEY, QUERY, UP, VALUE, Encoder, Floats, Ids

Moments = Mapping[str, npt.NDArray[np.float64]]
Indices = npt.NDArray[np.int64]


def linear_inputs(encoder: Encoder, texts: Sequence[Ids]) -> dict[str, Floats]:
    """Give what each linear layer reads of some texts, float32 [tokens, J]."""
    seen: dict[str, list[Floats]] = {name: [] for name in encoder.linears}

    def linear(name: str, x: Floats) -> Floats:
        seen[name].append(x)
        return encoder.linear(name, x)

    encoder.embed(texts, linear)
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def moments_of(inputs: Mapping[str, Floats]) -> Moments:
    """Give the mean square of each tap, float64 [J], and a hundredth of the layer's mean more."""
    squares = {name: np.square(x, dtype=np.float64).mean(axis=0) for name, x in inputs.items()}
    return {name: each + UNSEEN * each.mean() for name, each in squares.items()}


def reordered(
    encoder: Encoder, moments: Moments, target: float, cols: int
) -> tuple[Encoder, Indices]:
    """Give the encoder in an order of which cascades keep more, and the order of embeddings.

    Parameters
    ----------
    encoder : Encoder
    moments : mapping of layer name to float64 [J]
    target : float
        Share of zeros that each linear layer is to be pruned to.
    cols : int
        Filters of a chunk.

    Returns
    -------
    Encoder and int64 [width]
        Element i of its embeddings is element order[i] of the other's.
    """
    units = {
        name: unit(encoder.weights(name).astype(np.float64), moments[name])
        for name in encoder.linears
    }
    targets = dict.fromkeys(units, target)
    outer = {name: each for name, each in units.items() if name.endswith((CONTEXT, DOWN))}
    order = shared_order(outer, targets, cols)
    tensors = {
        name: each[..., order]
        for name, each in encoder.tensors.items()
        if "LayerNorm" in name or name.endswith("embeddings.weight")
    }
    for number in range(encoder.blocks):
        block = encoder.block(number)
        pairs, values = _inside_heads(units, block, encoder.heads)
        inner = shared_order({f"{block}.{UP}": units[f"{block}.{UP}"]}, targets, cols)
        for part, filters, taps in (
            (QUERY, pairs, order),
            (KEY, pairs, order),
            (VALUE, values, order),
            (CONTEXT, order, values),
            (UP, inner, order),
            (DOWN, order, inner),
        ):
            name = f"{block}.{part}"
            tensors[f"{name}.weight"] = encoder.weights(name)[filters][:, taps]
            tensors[f"{name}.bias"] = encoder.bias(name)[filters]
    return encoder.with_tensors(tensors), order


def pruned(encoder: Encoder, moments: Moments, target: float, cols: int) -> Encoder:
    """Give the encoder with every linear layer a cascade of one sparsity.

    Each tap keeps its first chunks, for the most of the norm: :mod:`csp_algo.prefix`.

    Parameters
    ----------
    encoder : Encoder
    moments : mapping of layer name to float64 [J]
    target : float
        Share of zeros, 0 ≤ target < 1.
    cols : int
        Filters of a chunk.

    Raises
    ------
    CspError
        The target is out of reach; the message names the layer.
    """
    tensors = {}
    for name in encoder.linears:
        weights = encoder.weights(name)
        _, (counts,) = prefix.price_for_sparsity(
            [weights], cols, target, moments=[moments[name]], name=f"layer {name}"
        )
        tensors[f"{name}.weight"] = weights * cascade.mask_of(counts, len(weights), cols)
    return encoder.with_tensors(tensors)


def _inside_heads(units: Moments, block: str, heads: int) -> tuple[Indices, Indices]:
    """Give the order of queries and keys and that of values, each head's filters together."""
    norms = {
        part: np.square(units[f"{block}.{part}"]).sum(axis=1).reshape(heads, -1)
        for part in (QUERY, KEY, VALUE)
    }
    pairs, values = norms[QUERY] + norms[KEY], norms[VALUE]
    first = np.argsort(-(pairs + values).sum(axis=1), kind="stable")[:, None]

    def order(each: npt.NDArray[np.float64]) -> Indices:
        inside = np.argsort(-each, axis=1, kind="stable")
        return np.asarray((first * each.shape[1] + inside[first[:, 0]]).ravel())

    return order(pairs), order(values)
