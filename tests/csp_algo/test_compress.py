# SPDX-License-Identifier: Apache-2.0
import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_algo.compress import CompressedMatrix, compress, counts_of, stream_order
from csp_algo.errors import CspError
from tests.strategies import CASES, random_counts, random_weights


@st.composite
def matrices(draw):
    """Weights, cols, T, and counts that may be larger than needed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cols, period = draw(st.integers(1, 9)), draw(st.integers(1, 32))
    filters, taps = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    case = draw(st.sampled_from(CASES))
    counts = random_counts(rng, taps, -(-filters // cols), case=case, period=period)
    return random_weights(rng, filters, counts, cols, case=case), cols, period, counts


def ref_words(weights, cols, period, counts):
    """The stream, word by word, as the format says it."""
    survivors = [j for j, count in enumerate(counts) if count]
    words = []
    for start in range(0, len(survivors), period):
        block = survivors[start : start + period]
        for k in range(max(counts[j] for j in block)):
            for j in block:
                if counts[j] > k:
                    chunk = list(weights[k * cols : (k + 1) * cols, j])
                    words.append(chunk + [0] * (cols - len(chunk)))
    return words


def packed() -> CompressedMatrix:
    weights = np.arange(1, 19, dtype=np.int8).reshape(6, 3)
    weights[4:, 0] = 0
    weights[:, 1] = 0
    return compress(weights, 4, 2)


@given(matrices())
def test_decompress_undoes_compress(case):
    weights, cols, period, counts = case
    for given_counts in (None, counts):
        matrix = compress(weights, cols, period, counts=given_counts)
        result = matrix.decompress()
        assert result.dtype == np.int8
        np.testing.assert_array_equal(result, weights)


@given(matrices())
def test_words_are_in_the_order_of_the_stream(case):
    weights, cols, period, counts = case
    matrix = compress(weights, cols, period, counts=counts)
    assert matrix.words.tolist() == ref_words(weights, cols, period, counts)
    assert matrix.words.shape == (counts.sum(), cols)
    np.testing.assert_array_equal(matrix.counts, counts)


@given(matrices())
def test_counts_are_one_plus_the_last_chunk_with_a_weight(case):
    weights, cols, _, _ = case
    expected = [int(np.flatnonzero(w)[-1]) // cols + 1 if w.any() else 0 for w in weights.T]
    counts = counts_of(weights, cols)
    assert counts.dtype == np.uint8
    assert counts.tolist() == expected


@given(matrices())
def test_blocks_are_t_surviving_taps(case):
    weights, cols, period, counts = case
    matrix = compress(weights, cols, period, counts=counts)
    blocks = matrix.blocks()
    assert [tap for block in blocks for tap in block] == list(np.flatnonzero(counts))
    assert all(len(block) == period for block in blocks[:-1])
    assert all(0 < len(block) <= period for block in blocks[-1:])
    np.testing.assert_array_equal(matrix.survivors(), np.flatnonzero(counts))


def test_a_known_stream():
    matrix = packed()
    assert matrix.counts.tolist() == [1, 0, 2]
    assert matrix.words.tolist() == [[1, 4, 7, 10], [3, 6, 9, 12], [15, 18, 0, 0]]
    assert (matrix.taps, matrix.chunks) == (3, 2)
    taps, chunk = stream_order(matrix.counts, 2)
    assert (taps.tolist(), chunk.tolist()) == ([0, 2, 2], [0, 0, 1])


def test_the_largest_number_of_chunks():
    weights = np.zeros((255, 2), dtype=np.int8)
    weights[254, 1] = -127
    matrix = compress(weights, 1, 32)
    assert matrix.counts.tolist() == [0, 255]
    np.testing.assert_array_equal(matrix.decompress(), weights)


def test_a_large_layer_takes_far_less_than_a_second():
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (512, 4608)).astype(np.int8)
    start = time.perf_counter()
    compress(weights, 4, 32)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros((2, 2)), r"^weights must be int8 with 2 axes, not float64 of shape \[2, 2\]$"),
        (np.zeros(2, np.int8), r"^weights must be int8 with 2 axes, not int8 of shape \[2\]$"),
        ([[1]], r"^weights must be an array, not list$"),
        (np.full((1, 2), -128, np.int8), r"^weight \[0, 0\] is -128, the least weight is -127$"),
        (np.zeros((0, 2), np.int8), r"^filters must be 1 … 65535, not 0$"),
        (np.zeros((2, 0), np.int8), r"^taps must be 1 … 65535, not 0$"),
        (np.zeros((1, 65536), np.int8), r"^taps must be 1 … 65535, not 65536$"),
        (np.zeros((1021, 1), np.int8), r"^1021 filters make 256 chunks of 4, at most 255 "),
    ],
)
def test_compress_refuses_other_weights(weights, message):
    with pytest.raises(CspError, match=message):
        compress(weights, 4, 8)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 0, 1], r"^count 1 of tap 2 must be 2 … 2$"),
        ([3, 0, 2], r"^count 3 of tap 0 must be 1 … 2$"),
        ([1, 0], r"^there are 2 counts for 3 taps$"),
    ],
)
def test_compress_refuses_counts_that_do_not_fit(counts, message):
    with pytest.raises(CspError, match=message):
        compress(packed().decompress(), 4, 2, counts=np.array(counts, dtype=np.uint8))


def test_compress_refuses_counts_of_another_type():
    with pytest.raises(CspError, match=r"^counts must be uint8 with 1 axes, not int64 "):
        compress(packed().decompress(), 4, 2, counts=np.array([1, 0, 2]))


@pytest.mark.parametrize("period", [0, 33])
def test_periods_out_of_range_are_refused(period):
    with pytest.raises(CspError, match=rf"^period must be 1 … 32, not {period}$"):
        compress(packed().decompress(), 4, period)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": 0}, r"^filters must be 1 … 65535, not 0$"),
        ({"cols": 257}, r"^cols must be 1 … 256, not 257$"),
        ({"filters": 1024}, r"^1024 filters make 256 chunks of 4, at most 255 are possible$"),
        ({"period": 33}, r"^period must be 1 … 32, not 33$"),
        ({"counts": np.array([1, 0, 2])}, r"^counts must be uint8 with 1 axes, not int64 "),
        ({"counts": np.zeros(0, np.uint8)}, r"^taps must be 1 … 65535, not 0$"),
        ({"counts": np.array([1, 3, 2], np.uint8)}, r"^count 3 of tap 1 exceeds the 2 chunks$"),
        ({"counts": np.array([1, 1, 2], np.uint8)}, r"^words have shape \[3, 4\], not \[4, 4\]$"),
        ({"words": np.zeros((3, 4), np.uint8)}, r"^words must be int8 with 2 axes, not uint8 "),
        ({"words": np.zeros((3, 5), np.int8)}, r"^words have shape \[3, 5\], not \[3, 4\]$"),
        (
            {"words": np.full((3, 4), -128, np.int8)},
            r"^word \[0, 0\] is -128, the least weight is -127$",
        ),
        ({"words": np.full((3, 4), 9, np.int8)}, r"^padding of the last chunk holds 9, not 0$"),
    ],
)
def test_a_matrix_checks_itself(changes, message):
    with pytest.raises(CspError, match=message):
        dataclasses.replace(packed(), **changes)
