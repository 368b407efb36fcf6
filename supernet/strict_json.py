"""JSON from outside, where a key that occurs twice is an error and not the last one's value."""

from __future__ import annotations

import reprlib
from typing import Any


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of `json.loads`; raises `ValueError` where a key occurs twice."""
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError(f"a key occurs twice among {reprlib.repr([key for key, _ in pairs])}")
    return data
