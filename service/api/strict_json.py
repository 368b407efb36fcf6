"""JSON as the standard has it. Python's reader also takes NaN, Infinity, 1e999 and half surrogate pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from math import isfinite
from typing import Any

from fastapi import HTTPException
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

JSON_TYPE = "application/json"


def parse_json(body: bytes) -> Any:
    """Read a JSON document.

    Raises:
        json.JSONDecodeError: It is no standard JSON in UTF-8, is nested too deeply, or holds text no database stores.
    """
    text = ""
    try:
        text = body.decode("utf-8")
        document = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        # Half a surrogate pair or a NUL can only be written as an escape; neither can be stored.
        if "\\ud" in text.lower() or "\\u0000" in text:
            _check_text(document)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise json.JSONDecodeError(reason, text[:1], 0) from error
    return document


def media_type_of(request: Request) -> str:
    """The request's content type without its parameters, lower-case; empty where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class StrictJsonRoute(APIRoute):
    """A route whose JSON body is read by `parse_json`, and that answers 415 to a body of another type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler: the request it is given parses its body strictly."""
        handle = super().get_route_handler()
        takes_json = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            strict = _StrictJsonRequest(request.scope, request.receive)
            if takes_json and media_type_of(strict) != JSON_TYPE and await strict.body():
                given = request.headers.get("content-type", "no content type")
                raise HTTPException(415, f"The body must be sent as '{JSON_TYPE}', got {given!r}.")
            return await handle(strict)

        return handle_strictly


class _StrictJsonRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("a text holds a NUL character or half a surrogate pair")
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name)
            _check_text(item)
