"""JSON as the standard has it."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.strict_json import parse_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Neither surrogates nor NUL: no database stores them.
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner)
    ),
    max_leaves=10,
)


@given(VALUES, st.booleans())
def test_what_json_can_say_is_read(value, ensure_ascii: bool):
    assert parse_json(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


@given(st.binary(max_size=30))
def test_any_bytes_are_read_or_refused(body: bytes):
    with suppress(json.JSONDecodeError):
        json.dumps(parse_json(body), allow_nan=False).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"NaN",
        b"[Infinity]",
        b'{"a": -Infinity}',
        b"1e999",
        b"-1e999",
        b'"\\ud800"',
        b'{"\\uDFFF": 1}',
        b'["a", ["\\u0000"]]',
        b'"\xff"',
        b"[" * 200_000,
        b"1" * 5000,
        b"",
    ],
    ids=lambda body: str(body[:20]),
)
def test_what_only_python_reads_is_refused(body: bytes):
    with pytest.raises(json.JSONDecodeError):
        parse_json(body)


def test_an_escaped_backslash_is_no_escape():
    assert parse_json(rb'"\\ud800 \\u0000"') == r"\ud800 \u0000"


def test_a_whole_surrogate_pair_is_one_character():
    assert parse_json(rb'"\ud83d\ude00"') == "😀"
