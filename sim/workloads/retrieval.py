# SPDX-License-Identifier: Apache-2.0
"""How good sentence embeddings are: definitions look for their words among all words."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

#: Parts of the texts in which similarities are ranked, each by itself.
PARTS = 10


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Mean:
    """A mean of independent values.

    Parameters
    ----------
    values : float64 [N]
    """

    values: npt.NDArray[np.float64]

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.values.mean())

    @property
    def error(self) -> float:
        """Its standard error."""
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values))

    def less(self, other: "Mean") -> "Mean":
        """Give the mean of the differences, value by value."""
        return Mean(values=self.values - other.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """Measures of the embeddings of N definitions and of their words.

    Parameters
    ----------
    first : Mean
        1 where a definition's own words are nearer to it than all other words are.
    reciprocal : Mean
        1 / the place of a definition's own words among all.
    field : Mean
        1 where the definition that is nearest to a definition is of the same field.
    rank : Mean
        Spearman's correlation of the cosines between definitions with those of other embeddings,
        in each of :data:`PARTS` parts of the definitions.
    """

    first: Mean
    reciprocal: Mean
    field: Mean
    rank: Mean


def quality(definitions: Floats, words: Floats, fields: Ints, dense: Floats) -> Quality:
    """Measure embeddings.

    Parameters
    ----------
    definitions, words : float [N, width], of length 1
    fields : integers [N]
    dense : float [N, …], of length 1
        Definitions as the network before pruning embeds them.
    """
    places = places_of(definitions @ words.T)
    near = definitions @ definitions.T
    np.fill_diagonal(near, -math.inf)
    same = fields[near.argmax(axis=1)] == fields
    parts = [slice(number, None, PARTS) for number in range(PARTS)]
    ranks = [spearman(_cosines(definitions[part]), _cosines(dense[part])) for part in parts]
    return Quality(
        first=Mean(values=(places == 1).astype(np.float64)),
        reciprocal=Mean(values=1 / places),
        field=Mean(values=same.astype(np.float64)),
        rank=Mean(values=np.array(ranks)),
    )


def places_of(similarities: Floats) -> Ints:
    """Give the place of each row's own column, int64 [N], 1 the best, behind its equals."""
    own = np.diagonal(similarities)[:, None]
    return np.asarray((similarities >= own).sum(axis=1))


def spearman(one: Floats, other: Floats) -> float:
    """Give Spearman's correlation of two arrays without equals."""
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (one, other)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _cosines(embeddings: Floats) -> Floats:
    """Give the cosine of each pair."""
    return np.asarray((embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)])
