# SPDX-License-Identifier: Apache-2.0
"""Prefixes of the most norm, against every other choice there is."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_algo import cascade, prefix
from csp_algo.errors import CspError

SEEDS = st.integers(0, 2**32 - 1)


def kept(weights, counts, cols):
    return float(np.square(weights * cascade.mask_of(counts, weights.shape[-2], cols)).sum())


def stored(counts, filters, cols):
    return int(cascade.mask_of(counts, filters, cols).sum())


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 9), st.integers(1, 4))
def test_no_cascade_of_as_few_weights_keeps_more(seed, filters, cols):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((filters, 3)) * rng.uniform(0.1, 3, (filters, 1))
    worth = prefix.worths(weights, cols)
    chunks = -(-filters // cols)
    everything = [np.array(counts) for counts in itertools.product(range(chunks + 1), repeat=3)]
    for price in rng.choice(worth.ravel(), 3):
        counts = prefix.counts_at(worth, float(price))
        size, norm = stored(counts, filters, cols), kept(weights, counts, cols)
        rivals = (each for each in everything if stored(each, filters, cols) <= size)
        assert all(kept(weights, rival, cols) <= norm + 1e-9 for rival in rivals)


@settings(max_examples=30)
@given(SEEDS)
def test_worths_fall_and_add_up(seed):
    """Over a tap, worth times size adds up to its squared norm: it is shared, not changed."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((2, 11, 5))
    worth = prefix.worths(weights, 4)
    assert (np.diff(worth, axis=-2) <= 1e-12).all()
    sizes = np.array([4, 4, 3])[:, None]
    np.testing.assert_allclose((worth * sizes).sum(axis=-2), np.square(weights).sum(axis=-2))


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_the_target_is_met_and_more_is_kept_than_by_tails(target):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 200)) * rng.uniform(0.2, 2, (1, 200))
    price, (counts,) = prefix.price_for_sparsity([weights], 8, target)
    assert price > 0
    assert abs(1 - stored(counts, 64, 8) / weights.size - target) <= 0.01
    q = cascade.q_for_sparsity(weights, 8, target)
    tails = cascade.counts_at(weights, 8, q)
    assert stored(tails, 64, 8) >= stored(counts, 64, 8) - 0.01 * weights.size
    assert kept(weights, counts, 8) > kept(weights, tails, 8)


def test_one_price_serves_several_layers():
    rng = np.random.default_rng(1)
    flat, steep = rng.uniform(0.9, 1.1, (32, 50)), rng.standard_normal((32, 50)) ** 3
    _, counts = prefix.price_for_sparsity([10 * flat, steep], 4, 0.5, relative=True)
    sizes = [stored(each, 32, 4) for each in counts]
    assert abs(1 - sum(sizes) / 3200 - 0.5) <= 0.01
    assert sizes[0] > sizes[1]
    _, again = prefix.price_for_sparsity([flat, 10 * steep], 4, 0.5, relative=True)
    for one, other in zip(counts, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (1.0, r"^net: target sparsity must be 0 or more and below 1, not 1\.0$"),
        (-0.1, r"^net: target sparsity must be 0 or more and below 1, not -0\.1$"),
        (
            0.1,
            r"^net: a sparsity of 0\.1 ± 0\.125 is out of reach .*; the closest is 0\.7500$",
        ),
    ],
)
def test_targets_out_of_reach_are_told(target, message):
    weights = np.zeros((4, 4))
    weights[:, 0] = 1
    with pytest.raises(CspError, match=message):
        prefix.price_for_sparsity([weights], 4, target, name="net")


def test_no_layer_is_left_empty():
    strong, weak = np.full((4, 8), 9.0), np.full((4, 8), 0.1)
    weak[:, 3] = 0.2
    _, counts = prefix.price_for_sparsity([strong, weak], 4, 0.44)
    assert counts[0].tolist() == [1] * 8
    assert counts[1].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_taps_that_see_little_go_first():
    weights = np.ones((4, 8))
    moments = np.array([5.0, 1, 6, 2, 7, 3, 8, 4])
    _, (counts,) = prefix.price_for_sparsity([weights], 4, 0.5, moments=[moments])
    assert counts.tolist() == [1, 0, 1, 0, 1, 0, 1, 0]


def test_what_is_not_finite_is_told():
    weights = np.ones((4, 3))
    weights[2, 1] = np.nan
    with pytest.raises(CspError, match=r"^net: weight \[2, 1\] is nan$"):
        prefix.worths(weights, 2, name="net")


def test_kept_norms():
    weights = np.array([[3.0, -4.0]])
    assert prefix.kept_norm(weights, weights * [1, 0], 1) == pytest.approx(3 / 7)
    assert prefix.kept_norm(weights, weights * [1, 0], 2) == pytest.approx(3 / 5)
    assert prefix.kept_norm(0 * weights, 0 * weights, 2) == 1
