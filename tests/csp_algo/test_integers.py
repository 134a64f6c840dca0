# SPDX-License-Identifier: Apache-2.0
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_algo.errors import CspError
from csp_algo.integers import ActDtype, accumulate, affine, requantise, rescale, rhu, sat

values = st.integers(-(2**48), 2**48)


def ref_rhu(x: int, s: int) -> int:
    return math.floor(Fraction(x, 2**s) + Fraction(1, 2)) if s else x


def ref_sat(x: int, bits: int) -> int:
    return max(-(2 ** (bits - 1)), min(x, 2 ** (bits - 1) - 1))


@given(values, st.integers(0, 47))
def test_rhu_rounds_half_up(x, s):
    assert rhu(x, s) == ref_rhu(x, s)


@pytest.mark.parametrize(
    ("x", "s", "expected"), [(1, 1, 1), (-1, 1, 0), (-3, 1, -1), (3, 1, 2), (-5, 0, -5), (6, 2, 2)]
)
def test_rhu_of_known_values(x, s, expected):
    assert rhu(x, s) == expected


def test_rhu_broadcasts_and_widens():
    result = rhu(np.array([[127], [-128]], dtype=np.int8), np.array([0, 1, 4], dtype=np.uint8))
    assert result.dtype == np.int64
    assert result.tolist() == [[127, 64, 8], [-128, -64, -8]]


@given(values, st.integers(1, 48))
def test_sat_clips_to_signed_bits(x, bits):
    assert sat(x, bits) == ref_sat(x, bits)


@given(
    st.integers(8, 32),
    st.lists(st.tuples(values, st.integers(-(2**20), 2**20)), min_size=1),
    st.data(),
)
def test_accumulate_counts_what_saturates(bits, pairs, data):
    t = data.draw(st.integers(0, 15))
    acc = [ref_sat(a, bits) for a, _ in pairs]
    run = [r for _, r in pairs]
    exact = [a + ref_rhu(r, t) for a, r in zip(acc, run, strict=True)]
    clipped = [ref_sat(x, bits) for x in exact]
    result, saturations = accumulate(np.array(acc), np.array(run), t, bits)
    assert result.tolist() == clipped
    assert saturations == sum(x != y for x, y in zip(exact, clipped, strict=True))


@given(st.integers(8, 32), st.data())
def test_affine_is_exact_up_to_33_bits(bits, data):
    t = data.draw(st.integers(0, min(15, 32 - bits)))
    acc = data.draw(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    bias = data.draw(st.integers(-(2**31), 2**31 - 1))
    assert affine(np.int32(acc), t, np.int32(bias)) == acc * 2**t + bias


extremes = st.sampled_from([-(2**32), -(2**31), -1, 0, 1, 2**31 - 1, 2**32 - 1])


@given(
    extremes | st.integers(-(2**32), 2**32 - 1),
    st.just(0) | st.integers(2**15, 2**16 - 1),
    st.integers(0, 47),
    st.sampled_from([ActDtype.INT8, ActDtype.UINT8]),
    st.booleans(),
    st.none()
    | st.tuples(st.integers(-128, 255), st.integers(2**15, 2**16 - 1), st.integers(0, 47)),
)
def test_requantise_equals_python_integers(v, mult, shift, dtype, relu, residual):
    z = ref_rhu(v * mult, shift)
    if residual is not None:
        r, rmult, rshift = residual
        z = ref_sat(z, 16) + ref_rhu(r * rmult, rshift)
    if relu:
        z = max(z, 0)
    low, high = {ActDtype.INT8: (-128, 127), ActDtype.UINT8: (0, 255)}[dtype]
    addend = None if residual is None else rescale(*residual)
    result = requantise(v, mult, shift, dtype, relu=relu, residual=addend)
    assert result == max(low, min(z, high))


def test_a_residual_is_added_to_16_bits():
    # Without the clip the sum of a huge z and a negative residual would still be huge.
    result = requantise(2**31, 2**15, 0, ActDtype.INT8, residual=np.int64(-(2**15) + 50))
    assert result == 49


def test_filters_are_on_the_last_axis():
    v = np.array([[100, 100], [200, 200]])
    mult, shift = np.array([2**15, 2**15]), np.array([15, 16])
    assert requantise(v, mult, shift, ActDtype.UINT8).tolist() == [[100, 50], [200, 100]]


@given(st.integers(-(2**32), 2**32))
def test_int32_is_v_itself_in_32_bits(v):
    assert requantise(v, 0, 0, ActDtype.INT32) == ref_sat(v, 32)


@pytest.mark.parametrize("options", [{"relu": True}, {"residual": 0}])
def test_int32_refuses_relu_and_residual(options):
    message = "^an int32 output is v itself: it takes neither ReLU nor a residual$"
    with pytest.raises(CspError, match=message):
        requantise(1, 2**15, 0, ActDtype.INT32, **options)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "magnitude"),
    [
        (ActDtype.INT8, -128, 127, 128),
        (ActDtype.UINT8, 0, 255, 255),
        (ActDtype.INT32, -(2**31), 2**31 - 1, 2**31),
    ],
)
def test_limits_of_types(dtype, low, high, magnitude):
    assert (dtype.low, dtype.high, dtype.magnitude) == (low, high, magnitude)
    assert dtype.numpy == np.dtype(dtype.value)
