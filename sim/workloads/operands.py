# SPDX-License-Identifier: Apache-2.0
"""Zeros of a layer as masks, drawn anew each time: only one layer's are in memory.

Real ones (:mod:`sim.workloads.zeros`) take the place of drawn ones.
"""

import dataclasses
import enum

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError
from sim.workloads import draw
from sim.workloads.catalogue import Work


class Pruning(enum.StrEnum):
    """How weights were pruned."""

    CASCADE = "cascade"
    #: At the densities of the cascade.
    UNSTRUCTURED = "unstructured"
    #: At densities that others published; only where there are some.
    PUBLISHED = "published"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operands:
    """Which operands of a layer are not zero.

    Parameters
    ----------
    weights : bool[groups, M/groups, J]
        Taps in the order of :mod:`csp_algo.geometry`.
    inputs : bool[H, W, C]
        Of one image.
    """

    weights: npt.NDArray[np.bool_]
    inputs: npt.NDArray[np.bool_]


def prunings(work: Work) -> tuple[Pruning, ...]:
    """Give the ways in which a layer's weights can be pruned."""
    return tuple(p for p in Pruning if p is not Pruning.PUBLISHED or work.published is not None)


def operands(work: Work, pruning: Pruning, *, cols: int = 32, seed: int = 0) -> Operands:
    """Give a layer's zeros, drawn at its densities or real; prunings have the same activations.

    Parameters
    ----------
    work : Work
    pruning : Pruning
    cols : int
        Filters of a chunk of a cascade.
    seed : int

    Raises
    ------
    CspError
        Nobody published a density of this layer.
    """
    geometry = work.shape.geometry
    filters, taps = geometry.group_filters, geometry.taps
    density = work.published if pruning is Pruning.PUBLISHED else work.weights
    if density is None:
        raise CspError(f"{work.shape.name}: no density of unstructured weights was published")
    weights = np.empty((geometry.groups, filters, taps), dtype=np.bool_)
    if pruning is Pruning.CASCADE:
        for group, counts in enumerate(cascade(work, cols=cols, seed=seed)):
            weights[group] = draw.cascade_mask(counts, filters=filters, cols=cols)
    elif work.zeros is not None:
        weights = work.zeros.unstructured(density)
    else:
        rng = draw.generator(work.shape.name, pruning, seed=seed)
        for group in range(geometry.groups):
            weights[group] = draw.unstructured_mask(
                rng, filters=filters, taps=taps, density=density
            )
    if work.zeros is not None:
        return Operands(weights=weights, inputs=work.zeros.inputs)
    inputs = draw.activation_mask(
        draw.generator(work.shape.name, "inputs", seed=seed),
        shape=geometry.in_shape,
        density=work.inputs,
    )
    return Operands(weights=weights, inputs=inputs)


def cascade(work: Work, *, cols: int = 32, seed: int = 0) -> tuple[npt.NDArray[np.int64], ...]:
    """Give the counts of each group's taps, the same ones as those of :func:`operands`."""
    if work.zeros is not None:
        return tuple(work.zeros.counts(cols))
    geometry = work.shape.geometry
    rng = draw.generator(work.shape.name, Pruning.CASCADE, seed=seed)
    return tuple(
        draw.cascade_counts(
            rng,
            filters=geometry.group_filters,
            taps=geometry.taps,
            cols=cols,
            density=work.weights,
        )
        for _ in range(geometry.groups)
    )
