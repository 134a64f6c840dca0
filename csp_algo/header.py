# SPDX-License-Identifier: Apache-2.0
"""The JSON header of a container: canonical text, and a strict reader led by type hints.

What is read comes from strangers. Each error names the field, in one short line.
"""

import dataclasses
import enum
import functools
import json
import math
import reprlib
import types
import typing
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from csp_algo.errors import CspError, located

#: Digits of the longest number; longer ones are no shape, shift or scale.
DIGIT_LIMIT = 40


def parse(text: bytes | str) -> Any:
    """Parse strict JSON in UTF-8.

    Raises
    ------
    CspError
        It is no JSON, has a name twice in an object, NaN, infinity or an endless number.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return json.loads(
            decoded,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=functools.partial(_number, int),
            parse_float=functools.partial(_number, float),
        )
    except CspError:
        raise
    except (ValueError, RecursionError) as error:
        raise CspError(f"the header is no JSON: {str(error)[:80]}") from error


def canonical(value: Any) -> str:
    """Give JSON with sorted names, no spaces and ASCII only: one text for one value.

    Raises
    ------
    CspError
        It is nested too deeply.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError as error:
        raise CspError("the header is nested too deeply") from error


def encode(value: Any, skip: AbstractSet[str] = frozenset()) -> Any:
    """Give a dataclass, enum, tuple or plain value as JSON values, without the fields ``skip``."""
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: encode(getattr(value, name)) for name in names if name not in skip}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def fields(
    cls: type, value: Any, where: str, skip: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """Give the arguments of a dataclass from a JSON object that has exactly its fields.

    Raises
    ------
    CspError
        A field is unknown, missing, or not of its type.
    """
    hints = {name: hint for name, hint in typing.get_type_hints(cls).items() if name not in skip}
    check_names(value, hints.keys(), where)
    return {name: decode(hint, value[name], f"{where}.{name}") for name, hint in hints.items()}


def check_names(value: Any, expected: AbstractSet[str], where: str) -> None:
    """Refuse what is not a JSON object with exactly these names."""
    if not isinstance(value, dict):
        _refuse(where, "an object", value)
    for name in value.keys() - expected:
        raise CspError(f"{where} has an unknown field {reprlib.repr(name)}")
    for name in sorted(expected - value.keys()):
        raise CspError(f"{where} lacks the field {name!r}")


def decode(hint: Any, value: Any, where: str) -> Any:
    """Give a JSON value as the type that ``hint`` says, without any conversion of numbers.

    Raises
    ------
    CspError
        It has another type; the message says ``where``.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # only "X | None" occurs
        return None if value is None else decode(arguments[0], value, where)
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            _refuse(where, "an object", value)
        return {name: decode(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(typing.cast(type, hint), value, where)
    if issubclass(hint, enum.Enum):
        names = [member.value for member in hint]
        if value not in names:
            _refuse(where, " or ".join(names), value)
        return hint(value)
    if type(value) is not hint:
        _refuse(where, f"of type {hint.__name__}", value)
    return value


def _decode_dataclass(cls: type, value: Any, where: str) -> Any:
    arguments = fields(cls, value, where)
    with located(where):
        return cls(**arguments)


def _decode_tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(where, "a list", value)
    if hints[-1] is ...:
        hints = hints[:1] * len(value)
    if len(value) != len(hints):
        _refuse(where, f"a list of {len(hints)}", value)
    pairs = enumerate(zip(hints, value, strict=True))
    return tuple(decode(hint, item, f"{where}[{index}]") for index, (hint, item) in pairs)


def _refuse(where: str, expected: str, value: Any) -> NoReturn:
    raise CspError(f"{where} must be {expected}, not {reprlib.repr(value)}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise CspError(f"the header has the name {reprlib.repr(name)} twice in one object")
        result[name] = value
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise CspError(f"the header holds {text}, which is no JSON number")


def _number(kind: type, text: str) -> Any:
    if len(text) > DIGIT_LIMIT or not math.isfinite(value := kind(text)):
        raise CspError(f"the header holds the number {reprlib.repr(text)}, which is out of range")
    return value
