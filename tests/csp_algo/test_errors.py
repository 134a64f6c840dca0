# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from csp_algo.errors import CspError, check_int, check_ints, located


def test_located_puts_the_place_in_front_of_the_message():
    message = "^network a: layer b: too big$"
    with pytest.raises(ValueError, match=message), located("network a"), located("layer b"):
        raise CspError("too big")


def test_located_leaves_other_errors_alone():
    with pytest.raises(KeyError), located("network a"):
        raise KeyError("b")


@pytest.mark.parametrize("value", [1, 5])
def test_check_int_accepts_its_limits(value):
    check_int("x", value, 1, 5)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.int64(1)])
def test_check_int_refuses_other_types(value):
    with pytest.raises(CspError, match=r"^x must be an integer, not "):
        check_int("x", value, 0, 5)


@pytest.mark.parametrize("value", [-1, 6])
def test_check_int_refuses_what_is_out_of_range(value):
    with pytest.raises(CspError, match=rf"^x must be 0 … 5, not {value}$"):
        check_int("x", value, 0, 5)


@pytest.mark.parametrize("value", [[1, 2], (1,), (1, 2, 3), 1, None])
def test_check_ints_refuses_other_shapes(value):
    with pytest.raises(CspError, match=r"^x must be a tuple of 2 integers, not "):
        check_ints("x", value, 2, 0, 5)


def test_check_ints_checks_each_item():
    check_ints("x", (0, 5), 2, 0, 5)
    with pytest.raises(CspError, match=r"^x must be 0 … 5, not 6$"):
        check_ints("x", (0, 6), 2, 0, 5)
