# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry, check_map, checked_chunks, chunks, flatten_order, windows
from tests.strategies import random_geometry

BASE = {"in_shape": (9, 9, 6), "filters": 4, "kernel": (3, 3)}


def ref_unfold(shape: Geometry, x: np.ndarray) -> np.ndarray:
    """One element at a time, straight from the definition of a convolution."""
    (height, width, _), channels = shape.out_shape, shape.group_channels
    (rows, cols), (top, left, *_) = shape.kernel, shape.padding
    result = np.zeros((shape.groups, len(x), height, width, shape.taps), dtype=x.dtype)
    every = (shape.groups, len(x), height, width, rows, cols, channels)
    for g, n, oy, ox, r, s, c in itertools.product(*(range(size) for size in every)):
        y = oy * shape.stride[0] + r * shape.dilation[0] - top
        z = ox * shape.stride[1] + s * shape.dilation[1] - left
        if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
            j = (r * cols + s) * channels + c
            result[g, n, oy, ox, j] = x[n, y, z, g * channels + c]
    return result


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.int8, np.uint8, np.float32]))
def test_unfold_equals_a_loop(seed, dtype):
    rng = np.random.default_rng(seed)
    shape = random_geometry(rng, max_side=5, max_taps=24, max_filters=3)
    x = rng.integers(0, 100, (int(rng.integers(1, 3)), *shape.in_shape)).astype(dtype)
    result = shape.unfold(x)
    assert result.dtype == dtype
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, ref_unfold(shape, x))


def test_unfold_takes_any_memory_order():
    shape = Geometry(in_shape=(5, 4, 3), filters=1, kernel=(2, 2))
    x = np.arange(60).reshape(1, 3, 4, 5).transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(shape.unfold(x), ref_unfold(shape, x))


def test_padding_may_exceed_the_kernel():
    shape = Geometry(in_shape=(2, 2, 1), filters=1, padding=(2, 1, 0, 3))
    x = np.arange(1, 5).reshape(1, 2, 2, 1)
    assert shape.out_shape == (4, 6, 1)
    np.testing.assert_array_equal(shape.unfold(x), ref_unfold(shape, x))


def test_depthwise_and_linear_are_special_cases():
    depthwise = Geometry(in_shape=(4, 4, 6), filters=12, kernel=(3, 3), groups=6)
    assert (depthwise.taps, depthwise.group_filters, depthwise.group_channels) == (9, 2, 1)
    linear = Geometry(in_shape=(1, 7, 20), filters=3)
    x = np.arange(2 * 7 * 20).reshape(2, 1, 7, 20)
    assert linear.out_shape == (1, 7, 3)
    np.testing.assert_array_equal(linear.unfold(x)[0], x)


@pytest.mark.parametrize("shape", [(9, 9, 6), (1, 9, 9, 5), (1, 9, 8, 6)])
def test_unfold_refuses_other_shapes(shape):
    with pytest.raises(CspError, match=r"^activations have shape \[.*\], not \[N, 9, 9, 6\]$"):
        Geometry(**BASE).unfold(np.zeros(shape))


@given(st.integers(0, 2**32 - 1))
def test_matrices_times_taps_are_a_convolution(seed):
    rng = np.random.default_rng(seed)
    shape = random_geometry(rng, max_side=4, max_taps=16, max_filters=3)
    x = rng.integers(-9, 9, (1, *shape.in_shape))
    weights = rng.integers(-9, 9, (shape.filters, shape.group_channels, *shape.kernel))
    matrices = shape.weights_to_matrices(weights)
    result = np.einsum("gnyxj,gmj->nyxgm", shape.unfold(x), matrices)
    result = result.reshape(1, *shape.out_shape)
    padded = np.pad(x, ((0, 0), shape.padding[::2], shape.padding[1::2], (0, 0)))
    for m, oy, ox in itertools.product(range(shape.filters), *map(range, shape.out_shape[:2])):
        first = m // shape.group_filters * shape.group_channels
        total = 0
        for r, s in itertools.product(*map(range, shape.kernel)):
            y = oy * shape.stride[0] + r * shape.dilation[0]
            z = ox * shape.stride[1] + s * shape.dilation[1]
            pixel = padded[0, y, z, first : first + shape.group_channels]
            total += int(weights[m, :, r, s] @ pixel)
        assert result[0, oy, ox, m] == total
    np.testing.assert_array_equal(shape.matrices_to_weights(matrices), weights)


def test_linear_weights_may_lack_the_kernel():
    weights = np.arange(60).reshape(3, 20)
    shape = Geometry(in_shape=(1, 1, 20), filters=3)
    np.testing.assert_array_equal(shape.weights_to_matrices(weights), weights[None])


def test_weights_of_another_shape_are_refused():
    shape = Geometry(**BASE)
    with pytest.raises(CspError, match=r"^weights have shape \[4, 6\], not \[4, 6, 3, 3\]$"):
        shape.weights_to_matrices(np.zeros((4, 6)))
    with pytest.raises(CspError, match=r"^weights have shape \[4, 3, 3, 6\], not \[4, 6, 3, 3\]$"):
        shape.weights_to_matrices(np.zeros((4, 3, 3, 6)))
    with pytest.raises(CspError, match=r"^matrices have shape \[4, 54\], not \[1, 4, 54\]$"):
        shape.matrices_to_weights(np.zeros((4, 54)))


def test_flatten_order_moves_c_y_x_to_y_x_c():
    rng = np.random.default_rng(1)
    x, weights = rng.integers(-9, 9, (5, 3, 4)), rng.integers(-9, 9, (2, 60))
    expected = weights @ x.transpose(2, 0, 1).ravel()
    np.testing.assert_array_equal(weights[:, flatten_order((5, 3, 4))] @ x.ravel(), expected)


@pytest.mark.parametrize(
    ("arguments", "ceil_mode", "expected"),
    [
        ((5, 2, 2, 0, 0), False, 2),
        ((5, 2, 2, 0, 0), True, 3),
        ((6, 2, 2, 0, 0), True, 3),
        # The last window would start in the padding behind the map: it does not count.
        ((3, 2, 2, 1, 1), True, 2),
        ((112, 3, 2, 0, 0), True, 56),
        ((2, 3, 1, 0, 0), False, 0),
    ],
)
def test_windows(arguments, ceil_mode, expected):
    assert windows(*arguments, ceil_mode=ceil_mode) == expected


@pytest.mark.parametrize(("filters", "expected"), [(1, 1), (32, 1), (33, 2), (8160, 255)])
def test_chunks(filters, expected):
    shape = Geometry(in_shape=(1, 1, 2), filters=2 * filters, groups=2)
    assert chunks(filters, 32) == checked_chunks(filters, 32) == shape.chunks(32) == expected


def test_too_many_chunks_are_refused():
    with pytest.raises(
        CspError, match=r"^1021 filters make 256 chunks of 4, at most 255 are possible$"
    ):
        Geometry(in_shape=(1, 1, 1), filters=1021).chunks(4)
    with pytest.raises(CspError, match=r"^cols must be 1 … 256, not 0$"):
        checked_chunks(4, 0)


def test_macs():
    shape = Geometry(in_shape=(8, 8, 4), filters=6, kernel=(3, 3), groups=2)
    assert shape.macs == 6 * 6 * 6 * 18


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_shape": (0, 9, 6)}, "in_shape must be 1 … 65535, not 0"),
        ({"in_shape": (9, 9)}, "in_shape must be a tuple of 3 integers, not (9, 9)"),
        ({"in_shape": (65535, 65535, 1)}, "in_shape (65535, 65535, 1) has more than"),
        ({"filters": 65_536}, "filters must be 1 … 65535, not 65536"),
        ({"filters": 4.0}, "filters must be an integer, not 4.0"),
        ({"kernel": (12, 3)}, "kernel must be 1 … 11, not 12"),
        ({"kernel": (3, 0)}, "kernel must be 1 … 11, not 0"),
        ({"stride": (0, 1)}, "stride must be 1 … 255, not 0"),
        ({"stride": 2}, "stride must be a tuple of 2 integers, not 2"),
        ({"padding": (0, 0, -1, 0)}, "padding must be 0 … 255, not -1"),
        ({"dilation": (1, 0)}, "dilation must be 1 … 255, not 0"),
        ({"groups": 0}, "groups must be 1 … 65535, not 0"),
        ({"groups": 4}, "groups 4 does not divide 6 channels"),
        ({"groups": 3}, "groups 3 does not divide 4 filters"),
        ({"in_shape": (9, 9, 7282)}, "a group has 65538 taps, at most 65535 are possible"),
        (
            {"dilation": (5, 1)},
            "a kernel of extent 11 does not fit 9 rows, padding included",
        ),
        (
            {"dilation": (1, 6), "padding": (0, 1, 0, 1)},
            "a kernel of extent 13 does not fit 11 columns, padding included",
        ),
        (
            {"in_shape": (255, 255, 1), "filters": 65_535, "kernel": (1, 1)},
            "out_shape (255, 255, 65535) has more than 2147483647 elements",
        ),
    ],
)
def test_what_is_out_of_range_is_refused(changes, message):
    with pytest.raises(CspError) as caught:
        Geometry(**{**BASE, **changes})
    assert str(caught.value).startswith(message)


def test_check_map_names_the_map():
    check_map("x", (1, 1, 65_535))
    with pytest.raises(CspError, match=r"^x must be 1 … 65535, not -1$"):
        check_map("x", (1, -1, 1))
