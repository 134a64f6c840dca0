# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from csp_algo import cascade
from csp_algo.chunkwise import alive_at, mask_of, q_for_sparsity, regulariser, scores
from csp_algo.errors import CspError

#: Eighths: their sums are exact, so that a reference in another order decides alike.
eighths = hnp.arrays(
    np.int64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(-20, 20),
).map(lambda w: w / 8)
columns = st.integers(1, 5)


def normal(filters: int = 40, taps: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(filters, taps))


@given(eighths, columns, st.floats(0, 4))
def test_each_chunk_is_judged_by_itself(weights, cols, q):
    mask = mask_of(alive_at(weights, cols, q), len(weights), cols)
    for (m, j), kept in np.ndenumerate(mask):
        start = m // cols * cols
        chunk = [abs(weights[i, j]) for i in range(start, min(start + cols, len(weights)))]
        assert kept == (sum(chunk) / len(chunk) > q * np.std(weights))


@given(eighths, columns)
def test_regulariser_is_the_sum_over_chunks(weights, cols):
    starts = range(0, len(weights), cols)
    norms = [np.sqrt((weights[start : start + cols] ** 2).sum(axis=0)).sum() for start in starts]
    assert regulariser(weights, cols) == pytest.approx(sum(norms) / len(norms))


def test_with_one_chunk_it_is_the_cascade():
    weights = normal(8)
    np.testing.assert_array_equal(scores(weights, 8), cascade.scores(weights, 8))
    assert regulariser(weights, 8) == pytest.approx(cascade.regulariser(weights, 8))
    for target in (0.2, 0.7):
        assert q_for_sparsity(weights, 8, target) == cascade.q_for_sparsity(weights, 8, target)


@pytest.mark.parametrize("target", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("cols", [4, 7])
def test_targets_are_reached(target, cols):
    weights = normal()
    alive = alive_at(weights, cols, q_for_sparsity(weights, cols, target))
    kept = mask_of(alive, len(weights), cols)
    assert abs(cascade.sparsity(weights * kept) - target) <= 0.01


@pytest.mark.parametrize("q", [-0.1, np.inf, np.nan])
def test_strengths_out_of_range_are_refused(q):
    with pytest.raises(CspError, match=r"^conv: strength q must be finite and not negative, not "):
        alive_at(normal(), 4, q, name="conv")


def test_other_weights_are_refused():
    with pytest.raises(CspError, match=r"^conv: weight \[0, 1\] is nan$"):
        scores(np.array([[1.0, np.nan]]), 4, name="conv")
    with pytest.raises(CspError, match=r"^conv: target sparsity must be 0 or more and below 1"):
        q_for_sparsity(normal(), 4, 1.0, name="conv")
