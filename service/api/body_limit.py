"""Middleware that refuses bodies above the limit while they arrive, and paths that no id can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import HTTPException
from starlette.requests import Request

from service.api.problems import problem_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limit:
    """The largest body, and the variable that sets it."""

    max_bytes: int
    setting: str

    def detail(self, given: str) -> str:
        """What to tell whoever sent more."""
        return f"The body has {given} bytes; at most {self.max_bytes} are accepted ({self.setting})."


class BodyLimit:
    """Count the bytes of each request body as they are received.

    Args:
        app: The application behind.
        limit: Of every body. A larger `Content-Length` is refused before anything is read.
        others: By method and path, for calls that have a limit of their own.
    """

    def __init__(self, app: ASGIApp, *, limit: Limit, others: Mapping[tuple[str, str], Limit]) -> None:
        self.app = app
        self.limit = limit
        self.others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if "\0" in scope["path"] or "%00" in scope.get("query_string", b"").decode("latin-1"):
            response = problem_response(request, status=404, code="not_found", detail="No id holds a NUL character.")
            await response(scope, receive, send)
            return
        limit = self.others.get((scope["method"], scope["path"]), self.limit)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit.max_bytes:
            response = problem_response(request, status=413, code="body_too_large", detail=limit.detail(declared))
            await response(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit.max_bytes:
                # Raised inside the endpoint's read; becomes a problem body like every HTTPException.
                raise HTTPException(413, limit.detail(f"at least {received}"))
            return message

        await self.app(scope, receive_counted, send)
