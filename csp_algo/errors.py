# SPDX-License-Identifier: Apache-2.0
"""The one error of user input, and the words that say where it happened."""

import contextlib
from collections.abc import Iterator


class CspError(ValueError):
    """Something that a user gave is wrong; the message is one line that names it."""


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where: `` in front of the message of a :class:`CspError` raised inside."""
    try:
        yield
    except CspError as error:
        raise CspError(f"{where}: {error}") from error


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not an integer of ``low`` … ``high``; a bool is no integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise CspError(f"{name} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise CspError(f"{name} must be {low} … {high}, not {value}")


def check_ints(name: str, value: object, length: int, low: int, high: int) -> None:
    """Refuse what is not a tuple of ``length`` integers, each of ``low`` … ``high``."""
    if not isinstance(value, tuple) or len(value) != length:
        raise CspError(f"{name} must be a tuple of {length} integers, not {value!r}")
    for item in value:
        check_int(name, item, low, high)
