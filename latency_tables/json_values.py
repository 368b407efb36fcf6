"""Reading JSON values from outside: strict documents, known keys, finite numbers."""

from __future__ import annotations

import json
import reprlib
from math import isfinite
from typing import TYPE_CHECKING, Any

from latency_tables.errors import TableFormatError
from supernet.strict_json import unique_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = 80


def load_json(text: str, what: str) -> Any:
    """Read JSON without NaN, infinities and repeated keys.

    Args:
        text: Of the document.
        what: Its name in the error.

    Raises:
        TableFormatError: It is no such JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise TableFormatError(f"This {what} is no JSON: {error}.") from error


def key_difference(
    data: Mapping[Any, Any], *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    """The keys nobody knows, sorted, and the required ones that are absent, in their order."""
    unknown = sorted(str(key) for key in data if key not in required and key not in optional)
    return unknown, [key for key in required if key not in data]


def finite_number(name: str, value: Any) -> float:
    """The value as a float; raises `TableFormatError` with the name where it is no finite number."""
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or (isinstance(value, int) and abs(value) > 10**15) or not isfinite(value):
        raise TableFormatError(f"'{name}' must be a finite number, got {shown(value)}.")
    return float(value)


def shown(value: Any) -> str:
    """A value as an error message quotes it: short, however large the value is."""
    return _SHORT.repr(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
