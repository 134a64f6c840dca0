# SPDX-License-Identifier: Apache-2.0
"""The ways of pruning that are compared: a penalty while training, and a rule afterwards."""

import enum

import numpy as np
import numpy.typing as npt

from csp_algo import cascade, chunkwise, prefix
from csp_algo.cascade import Floats, Weights
from csp_algo.train.regulariser import Penalty, cascade_regulariser, group_lasso


class Method(enum.StrEnum):
    """A penalty and a rule."""

    #: CSP-A: the cascade's penalty and rule.
    CASCADE = "cascade"
    #: The cascade's penalty; each tap keeps the prefix that is worth the most for its weights.
    PREFIX = "prefix"
    #: The same, layer after layer, each tap weighed with what is left of its activations.
    SEQUENTIAL = "sequential"
    #: Structured sparsity learning: group lasso over chunks, each chunk lives by itself.
    SSL = "ssl"
    #: Plain chunk pruning: no penalty, each chunk lives by itself.
    CHUNK = "chunk"

    @property
    def penalty(self) -> Penalty | None:
        """What λ multiplies while training, if anything."""
        penalties = {
            Method.CASCADE: cascade_regulariser,
            Method.PREFIX: cascade_regulariser,
            Method.SEQUENTIAL: cascade_regulariser,
            Method.SSL: group_lasso,
        }
        return penalties.get(self)

    def strength(
        self,
        matrices: Weights,
        cols: int,
        target: float,
        name: str,
        moments: Floats | None = None,
    ) -> float:
        """Give q for a share of zeros; errors are those of the rule.

        The q of ``prefix`` and ``sequential`` is the price λ of a weight, in squared weights, times
        moments if there are any.
        """
        if self in (Method.PREFIX, Method.SEQUENTIAL):
            weighed = None if moments is None else [moments]
            price, _ = prefix.price_for_sparsity(
                [matrices], cols, target, moments=weighed, name=name
            )
            return price
        rule = cascade if self is Method.CASCADE else chunkwise
        return rule.q_for_sparsity(matrices, cols, target, name=name)

    def kept(
        self,
        matrices: Weights,
        cols: int,
        q: float,
        name: str,
        moments: Floats | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Give which weights [..., M, J] survive strength q; errors are those of the rule."""
        filters = matrices.shape[-2]
        if self in (Method.SSL, Method.CHUNK):
            alive = chunkwise.alive_at(matrices, cols, q, name=name)
            return chunkwise.mask_of(alive, filters, cols)
        if self is Method.CASCADE:
            counts = cascade.counts_at(matrices, cols, q, name=name)
        else:
            cascade.check_strength(q, name)
            counts = prefix.counts_at(prefix.worths(matrices, cols, moments=moments, name=name), q)
        return cascade.mask_of(counts, filters, cols)
