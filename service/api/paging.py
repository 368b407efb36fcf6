"""Cursors of lists: opaque to the client, a page key inside."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from service.db.repositories import Page, PageKey, PageRequest
from service.errors import InvalidRequestError

Item = TypeVar("Item")

DEFAULT_LIMIT, MAX_LIMIT = 50, 200


def page_request(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items on a page.")] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=400, description="`next_cursor` of the page before; none for the first.")
    ] = None,
) -> PageRequest:
    """Read `limit` and `cursor`.

    Raises:
        InvalidRequestError: The cursor is not one this service gave.
    """
    return PageRequest(limit, None if cursor is None else _decode(cursor))


PageDep = Annotated[PageRequest, Depends(page_request)]


def page_body(page: Page[Item], show: Callable[[Item], Any]) -> dict[str, Any]:
    """`{items, next_cursor}` of a page."""
    cursor = None if page.next_key is None else _encode(page.next_key)
    return {"items": [show(item) for item in page.items], "next_cursor": cursor}


def _encode(key: PageKey) -> str:
    text = json.dumps([key.created_at.isoformat(), key.item_id])
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> PageKey:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, item_id = json.loads(urlsafe_b64decode(padded.encode("ascii")))
        if not isinstance(item_id, str) or not item_id.isprintable():
            raise ValueError("no id")
        return PageKey(datetime.fromisoformat(at), item_id)
    except (ValueError, TypeError, Base64Error, RecursionError) as error:
        raise InvalidRequestError(
            "This cursor was not given by this service. Pass the 'next_cursor' of the page before unchanged, "
            "or none for the first page.",
            code="invalid_cursor",
        ) from error
