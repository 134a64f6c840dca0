# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from csp_algo.cascade import (
    counts_at,
    mask_of,
    q_for_sparsity,
    regulariser,
    scores,
    sparsity,
    tail_weights,
)
from csp_algo.errors import CspError

#: Eighths: their sums are exact, so that a reference in another order decides alike.
eighths = hnp.arrays(
    np.int64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(-20, 20),
).map(lambda w: w / 8)
columns = st.integers(1, 5)


def ref_counts(weights: np.ndarray, cols: int, q: float) -> list[int]:
    """The rule, one element at a time."""
    filters, taps = weights.shape
    total = -(-filters // cols)
    counts = []
    for j in range(taps):
        count = 0
        for k in range(total):
            tail = [abs(weights[m, j]) for m in range(k * cols, filters)]
            if not sum(tail) / len(tail) * (total - k) > q * np.std(weights):
                break
            count += 1
        counts.append(count)
    return counts


def normal(filters: int = 40, taps: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(filters, taps))


@given(eighths, columns, st.floats(0, 10))
def test_counts_follow_the_rule(weights, cols, q):
    assert counts_at(weights, cols, q).tolist() == ref_counts(weights, cols, q)


@given(eighths, columns)
def test_a_score_equal_to_the_threshold_does_not_survive(weights, cols):
    deviation = np.std(weights)
    for score in scores(weights, cols).ravel():
        q = score / deviation if deviation else 0.0
        assert counts_at(weights, cols, q).tolist() == ref_counts(weights, cols, q)


def test_chunks_of_negative_weights_survive():
    weights = np.array([[-3.0, 1.0], [-3.0, 0.0], [-3.0, 0.0], [-3.0, 0.0]])
    assert counts_at(weights, 2, 0.25).tolist() == [2, 1]


def test_closing_removes_what_follows_a_lost_chunk():
    weights = np.array([[5.0], [5.0], [0.0], [0.0], [3.0]])
    assert scores(weights, 2).ravel().tolist() == pytest.approx([7.8, 2.0, 3.0])
    assert counts_at(weights, 2, 2.5 / np.std(weights)).tolist() == [1]


def test_a_lost_first_chunk_loses_the_tap():
    weights = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [4.0, 1.0], [4.0, 1.0]])
    deviation = np.std(weights)
    first, second = scores(weights, 3)[:, 0]
    assert first < second
    assert counts_at(weights, 3, (first + second) / 2 / deviation)[0] == 0


def test_means_are_over_real_filters():
    assert scores(np.ones((5, 1)), 4).ravel().tolist() == [2.0, 1.0]


def test_scores_of_equal_weights_grow_towards_the_front():
    assert scores(np.full((6, 1), -2.0), 2).ravel().tolist() == [6.0, 4.0, 2.0]


def test_equal_weights_have_no_deviation_and_all_survive():
    assert counts_at(np.full((4, 3), 7.0), 2, 1e9).tolist() == [2, 2, 2]
    assert counts_at(np.zeros((4, 3)), 2, 0.0).tolist() == [0, 0, 0]


def test_groups_share_the_deviation_and_nothing_else():
    weights = np.stack([normal(seed=1), 3 * normal(seed=2)])
    counts = counts_at(weights, 8, 3.0)
    assert counts.shape == (2, 60)
    for group, own in zip(weights, counts, strict=True):
        q = 3.0 * np.std(weights) / np.std(group)
        np.testing.assert_array_equal(counts_at(group, 8, q), own)


def test_float32_is_decided_in_float64():
    weights = normal().astype(np.float32)
    expected = counts_at(weights.astype(np.float64), 8, 2.0)
    np.testing.assert_array_equal(counts_at(weights, 8, 2.0), expected)


@given(eighths, columns, st.floats(0, 10))
def test_mask_keeps_the_first_chunks(weights, cols, q):
    counts = counts_at(weights, cols, q)
    mask = mask_of(counts, len(weights), cols)
    for (m, j), kept in np.ndenumerate(mask):
        assert kept == (m // cols < counts[j])


def test_sparsity_is_the_share_of_zeros():
    assert sparsity(np.array([[0, 1], [2, 0], [3, 0]])) == pytest.approx(0.5)


@pytest.mark.parametrize("target", [0.0, 0.1, 0.5, 0.78, 0.9, 0.99])
@pytest.mark.parametrize("cols", [4, 8, 32])
def test_targets_are_reached(target, cols):
    weights = normal(200, 300)
    q = q_for_sparsity(weights, cols, target)
    reached = sparsity(weights * mask_of(counts_at(weights, cols, q), 200, cols))
    assert reached == pytest.approx(target, abs=0.002)


@given(st.integers(0, 1000), st.floats(0, 0.99), columns)
def test_the_result_is_the_nearest_step(seed, target, cols):
    weights = normal(7, 5, seed)
    q = q_for_sparsity(weights, cols, target, tolerance=1.0)

    def reached(strength: float) -> float:
        return sparsity(weights * mask_of(counts_at(weights, cols, strength), 7, cols))

    levels = scores(weights, cols).ravel() / np.std(weights)
    steps = [reached(level * (1 + 1e-9)) for level in [0.0, *levels]]
    nearest = min(abs(step - target) for step in steps if step < 1)
    assert abs(reached(q) - target) == pytest.approx(nearest)
    assert reached(q) < 1


def test_zeros_that_are_there_already_count():
    weights = normal()
    weights[:, :30] = 0
    assert q_for_sparsity(weights, 8, 0.5) == 0.0
    q = q_for_sparsity(weights, 8, 0.7)
    reached = sparsity(weights * mask_of(counts_at(weights, 8, q), 40, 8))
    assert reached == pytest.approx(0.7, abs=0.01)


def test_a_target_for_groups_is_that_of_the_layer():
    weights = np.random.default_rng(3).normal(size=(16, 4, 9))
    q = q_for_sparsity(weights, 2, 0.6)
    reached = sparsity(weights * mask_of(counts_at(weights, 2, q), 4, 2))
    assert reached == pytest.approx(0.6, abs=0.01)


def test_targets_out_of_reach_are_refused():
    few = normal(4, 3)
    with pytest.raises(
        CspError,
        match=r"^fc: a sparsity of 0.5 ± 0.01 is out of reach with chunks of 4 filters; "
        r"the closest is 0\.(3333|6667)$",
    ):
        q_for_sparsity(few, 4, 0.5, tolerance=0.01, name="fc")
    weights = normal()
    weights[:, :30] = 0
    with pytest.raises(CspError, match=r"the closest is 0\.5000$"):
        q_for_sparsity(weights, 8, 0.2)


def test_equal_weights_cannot_be_told_apart():
    with pytest.raises(CspError, match=r"the closest is 0\.0000$"):
        q_for_sparsity(np.ones((8, 8)), 4, 0.5)


def test_a_layer_of_zeros_is_refused():
    with pytest.raises(
        CspError, match=r"^fc: all weights are zero, no sparsity of 0.5 can be chosen$"
    ):
        q_for_sparsity(np.zeros((8, 8)), 4, 0.5, name="fc")


@pytest.mark.parametrize("target", [-0.1, 1.0, float("nan")])
def test_targets_out_of_range_are_refused(target):
    with pytest.raises(CspError, match=r"^fc: target sparsity must be 0 or more and below 1, not "):
        q_for_sparsity(normal(), 8, target, name="fc")


@pytest.mark.parametrize("q", [-1.0, float("nan"), float("inf")])
def test_strengths_out_of_range_are_refused(q):
    with pytest.raises(CspError, match=r"^conv1: strength q must be finite and not negative, not "):
        counts_at(normal(), 8, q, name="conv1")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "use",
    [
        lambda w: counts_at(w, 8, 1.0, name="conv1"),
        lambda w: q_for_sparsity(w, 8, 0.5, name="conv1"),
        lambda w: regulariser(w, 8, name="conv1"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(use, value):
    weights = normal()
    weights[3, 5] = weights[4, 0] = value
    with pytest.raises(CspError, match=rf"^conv1: weight \[3, 5\] is {value}$"):
        use(weights)


def test_other_shapes_are_refused():
    with pytest.raises(CspError, match=r"^conv1: weights must be \[\.\.\., M, J\], not \[5\]$"):
        scores(np.ones(5), 8, name="conv1")
    with pytest.raises(CspError, match=r"^weights: weights must be .*, not \[5, 0\]$"):
        scores(np.ones((5, 0)), 8)
    with pytest.raises(CspError, match=r"^conv1: cols must be 1 … 256, not 0$"):
        scores(np.ones((5, 1)), 0, name="conv1")


@given(eighths, columns)
def test_regulariser_is_the_sum_over_tails(weights, cols):
    count = -(-len(weights) // cols)
    expected = sum(
        (k + 1) / (count * (count + 1) / 2) * np.linalg.norm(weights[k * cols :, j])
        for k in range(count)
        for j in range(weights.shape[1])
    )
    assert regulariser(weights, cols) == pytest.approx(expected)
    assert regulariser(np.stack([weights, weights]), cols) == pytest.approx(2 * expected)


def test_tail_weights_grow_and_add_up_to_one():
    assert tail_weights(6, 2).tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
