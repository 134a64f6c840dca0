# SPDX-License-Identifier: Apache-2.0
"""The ways of pruning that are compared: a penalty while training, and a rule afterwards."""

import enum

import numpy as np
import numpy.typing as npt

from csp_algo import cascade, chunkwise, prefix
from csp_algo.train.regulariser import Penalty, cascade_regulariser, group_lasso


class Method(enum.StrEnum):
    """A penalty and a rule."""

    #: CSP-A: the cascade's penalty and rule.
    CASCADE = "cascade"
    #: The cascade's penalty; each tap keeps the prefix that is worth the most for its weights.
    PREFIX = "prefix"
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
            Method.SSL: group_lasso,
        }
        return penalties.get(self)

    def strength(self, matrices: cascade.Weights, cols: int, target: float, name: str) -> float:
        """Give q for a share of zeros; errors are those of the rule.

        The q of ``prefix`` is its price λ of a weight, in squared weights.
        """
        if self is Method.PREFIX:
            return prefix.price_for_sparsity([matrices], cols, target, name=name)[0]
        rule = cascade if self is Method.CASCADE else chunkwise
        return rule.q_for_sparsity(matrices, cols, target, name=name)

    def kept(
        self, matrices: cascade.Weights, cols: int, q: float, name: str
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
            counts = prefix.counts_at(prefix.worths(matrices, cols, name=name), q)
        return cascade.mask_of(counts, filters, cols)
