"""Cursors: what was given out comes back as it was, anything else is refused."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.paging import page_body, page_request
from service.db.repositories import Page, PageKey
from service.errors import InvalidRequestError


@given(
    st.datetimes(timezones=st.sampled_from([None, UTC])), st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
)
def test_a_cursor_survives_the_journey(at: datetime, item_id: str):
    cursor = page_body(Page([1, 2], PageKey(at, item_id)), str)["next_cursor"]
    assert page_request(2, cursor).after == PageKey(at, item_id)


def test_the_last_page_has_no_cursor():
    assert page_body(Page([1, 2], None), str) == {"items": ["1", "2"], "next_cursor": None}


@given(st.text(max_size=60))
def test_any_other_text_is_refused_or_harmless(cursor: str):
    with suppress(InvalidRequestError):
        after = page_request(2, cursor).after
        assert isinstance(after.created_at, datetime)


def test_no_cursor_is_the_first_page():
    assert page_request(7, None) == (7, None)


@pytest.mark.parametrize("cursor", ["WyIyMDI2LTAxLTAxIiwgIlx1MDAwMCJd", "WyIyMDI2LTAxLTAxIiwgM10"])
def test_an_id_no_database_holds_is_refused(cursor: str):
    with pytest.raises(InvalidRequestError, match="first page"):
        page_request(2, cursor)
