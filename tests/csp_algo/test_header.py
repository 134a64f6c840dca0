# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.header import canonical, check_names, decode, encode, fields, parse
from csp_algo.integers import ActDtype
from csp_algo.network import Concat, Residual

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, width=32).filter(lambda x: abs(x) < 1e300)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_canonical_text_is_parsed_to_the_same_value(value):
    text = canonical(value)
    assert text.isascii()
    assert parse(text) == parse(text.encode()) == value
    assert canonical(parse(text)) == text


def test_canonical_text_does_not_depend_on_order():
    assert canonical({"b": 1, "a": [1.5, "é"]}) == canonical({"a": [1.5, "é"], "b": 1})
    assert canonical({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"\\u00e9"],"b":1}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header is no JSON: Expecting value"),
        ('{"a":', "the header is no JSON: Expecting value"),
        (b'"\xff"', "the header is no JSON: 'utf-8' codec can't decode"),
        ("[" * 100_000, "the header is no JSON: maximum recursion depth"),
        ('{"a":1,"a":1}', "the header has the name 'a' twice in one object"),
        ("NaN", "the header holds NaN, which is no JSON number"),
        ("[-Infinity]", "the header holds -Infinity, which is no JSON number"),
        ("1e999", "the header holds the number '1e999', which is out of range"),
        ("1" * 41, "the header holds the number '111"),
        ("1" * 5000, "the header holds the number '111"),
        ("0." + "1" * 100, "the header holds the number '0.111"),
    ],
)
def test_what_is_no_strict_json_is_refused(text, message):
    with pytest.raises(CspError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 150


def test_canonical_refuses_deep_nesting():
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CspError, match=r"^the header is nested too deeply$"):
        canonical(value)


def test_records_are_encoded_and_decoded():
    shape = Geometry(in_shape=(9, 8, 6), filters=4, kernel=(3, 2), stride=(2, 1), groups=2)
    assert decode(Geometry, encode(shape), "x") == shape
    assert json.loads(canonical(encode(shape)))["in_shape"] == [9, 8, 6]
    residual = decode(Residual | None, {"input": "a", "mult": 0, "shift": 3}, "x")
    assert (residual.input, residual.mult, residual.shift) == ("a", 0, 3)
    assert decode(Residual | None, None, "x") is None
    assert decode(ActDtype, "uint8", "x") is ActDtype.UINT8
    assert decode(dict[str, str], {"a": "b"}, "x") == {"a": "b"}
    assert encode(Concat(name="c", inputs=("a", "b")), {"name"}) == {"inputs": ["a", "b"]}
    assert fields(Concat, {"inputs": ["a"]}, "x", {"name"}) == {"inputs": ("a",)}


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, 1.0, "x must be of type int, not 1.0"),
        (int, True, "x must be of type int, not True"),
        (float, 1, "x must be of type float, not 1"),
        (bool, 1, "x must be of type bool, not 1"),
        (str, None, "x must be of type str, not None"),
        (list, {}, "x must be of type list, not {}"),
        (tuple[int, int], "ab", "x must be a list, not 'ab'"),
        (tuple[int, int], [1], "x must be a list of 2, not [1]"),
        (tuple[int, int], [1, "2"], "x[1] must be of type int, not '2'"),
        (tuple[str, ...], ["a", 1], "x[1] must be of type str, not 1"),
        (dict[str, str], [], "x must be an object, not []"),
        (dict[str, str], {"a": 1}, "x.a must be of type str, not 1"),
        (ActDtype, "int4", "x must be int8 or uint8 or int32, not 'int4'"),
        (ActDtype, [], "x must be int8 or uint8 or int32, not []"),
        (Residual | None, 3, "x must be an object, not 3"),
        (Residual, {"input": "a", "mult": 0}, "x lacks the field 'shift'"),
        (Residual, {"input": "a", "mult": 0, "shift": 0, "z": 0}, "x has an unknown field 'z'"),
        (Residual, {"input": "a", "mult": 0, "shift": "0"}, "x.shift must be of type int, not '0'"),
        (
            Residual,
            {"input": "a", "mult": 5, "shift": 0},
            "x: residual a: mult must be 0 or 32768 … 65535, not 5",
        ),
        (int, "y" * 1000, "x must be of type int, not 'yyy"),
    ],
)
def test_other_types_are_refused_by_name(hint, value, message):
    with pytest.raises(CspError) as caught:
        decode(hint, value, "x")
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 150


def test_check_names_wants_exactly_the_names():
    check_names({"a": 1, "b": 2}, {"a", "b"}, "x")
    with pytest.raises(CspError, match=r"^x must be an object, not None$"):
        check_names(None, {"a"}, "x")
    with pytest.raises(CspError, match=r"^x has an unknown field 'c'$"):
        check_names({"a": 1, "c": 2}, {"a"}, "x")
    with pytest.raises(CspError, match=r"^x lacks the field 'b'$"):
        check_names({"a": 1}, {"a", "b"}, "x")
