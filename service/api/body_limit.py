"""Middleware that refuses bodies above the limit while they arrive, and paths that no id can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import HTTPException
from starlette.requests import Request

from service.api.problems import problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Count the bytes of each request body as they are received.

    Args:
        app: The application behind.
        max_body_bytes: Largest body. A larger `Content-Length` is refused before anything is read.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

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
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_body_bytes:
            response = problem_response(request, status=413, code="body_too_large", detail=self._detail(declared))
            await response(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                # Raised inside the endpoint's read; becomes a problem body like every HTTPException.
                raise HTTPException(413, self._detail(f"at least {received}"))
            return message

        await self.app(scope, receive_counted, send)

    def _detail(self, given: str) -> str:
        return f"The body has {given} bytes; at most {self.max_body_bytes} are accepted (TAILOR_MAX_BODY_BYTES)."
