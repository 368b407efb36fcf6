"""Every error as an RFC 9457 problem body with a `code`; which status an error has is decided in `service.errors`."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from latency_tables.errors import LatencyError
from service.api.schemas.problems import Problem
from service.db.engine import DatabaseError, is_outage
from service.errors import BusyError, ServiceError, status_and_code
from supernet.errors import InfeasibleBudgetError, SupernetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger(__name__)

# Seconds after which whoever was told to ask again may do so.
RETRY_S = 1

# Errors the framework raises itself, by status.
_FRAMEWORK_CODES = {
    400: "malformed_body",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_DESCRIPTIONS = {
    400: "The body cannot be read (`malformed_body`).",
    404: "An id, in the path or in the body, that nobody knows.",
    409: "What is asked for exists, but not in the state this call needs; `code` says which.",
    413: "The body is larger than the service accepts (`body_too_large`).",
    415: "The body has another content type (`unsupported_media_type`).",
    416: "The range lies beyond the end of the file (`range_not_satisfiable`).",
    422: "A field or query parameter is unknown, malformed or out of range; `errors` lists them.",
    429: "Another search is under way and took too long (`busy`); `Retry-After` says when to ask again.",
    500: "An error nobody expected (`internal_error`); `error_id` is in the log.",
    503: "The database or the artefact store cannot be used (`storage_unavailable`).",
}


class ProblemResponse(JSONResponse):
    """A problem body."""

    media_type = "application/problem+json"


def problem_response(
    request: Request,
    *,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> ProblemResponse:
    """Build a problem body.

    Args:
        request: Its path becomes `instance`.
        status: HTTP status.
        code: Stable word for programs.
        detail: What was given, what is allowed, what to do.
        headers: Of the response.
        members: Further members of the body; JSON values.
    """
    body = _body(request, status=status, code=code, detail=detail, members=members)
    return ProblemResponse(body, status_code=int(status), headers=dict(headers or {}))


def problem_body(request: Request, error: Exception) -> dict[str, Any]:
    """The problem body of an error that is the answer to a part of the request."""
    status, code = status_and_code(error)
    return _body(request, status=status, code=code, detail=str(error), members=_members_of(error))


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer with these statuses; 500 and 503 are always among them."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {ProblemResponse.media_type: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
        }
        for status in sorted({*statuses, 500, 503})
    }


# What every route with a JSON body can answer.
BODY_PROBLEMS = (400, 413, 415, 422)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem body."""
    app.add_exception_handler(ServiceError, _handle_known)
    app.add_exception_handler(SupernetError, _handle_known)
    app.add_exception_handler(LatencyError, _handle_known)
    app.add_exception_handler(RequestValidationError, _handle_validation)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(DatabaseError, _handle_database)
    app.add_exception_handler(Exception, _handle_unexpected)


async def _handle_known(request: Request, error: Exception) -> ProblemResponse:
    status, code = status_and_code(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return await _handle_unexpected(request, error)
    members = _members_of(error)
    headers = {"Retry-After": str(RETRY_S)} if isinstance(error, BusyError) else None
    return problem_response(request, status=status, code=code, detail=str(error), headers=headers, **members)


async def _handle_database(request: Request, error: Exception) -> ProblemResponse:
    if not is_outage(error):
        return await _handle_unexpected(request, error)
    logger.error("the database cannot be used", exc_info=error)
    detail = "The database cannot be used at the moment. Ask again; GET /readyz says whether it is back."
    return problem_response(request, status=503, code="storage_unavailable", detail=detail)


async def _handle_validation(request: Request, error: Exception) -> ProblemResponse:
    found = cast("RequestValidationError", error).errors()
    if any(item["type"] == "json_invalid" for item in found):
        reason = found[0].get("ctx", {}).get("error", "malformed")
        return problem_response(
            request, status=400, code="malformed_body", detail=f"The body is no standard JSON: {reason}."
        )
    errors = [_describe(item) for item in found]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:5])
    return problem_response(request, status=422, code="invalid_request", detail=detail, errors=errors)


async def _handle_http(request: Request, error: Exception) -> ProblemResponse:
    http = cast("HTTPException", error)
    code = _FRAMEWORK_CODES.get(http.status_code, "http_error")
    detail = str(http.detail)
    if http.status_code == HTTPStatus.NOT_FOUND:
        detail = f"Nothing lies at {request.url.path}; /openapi.json lists every path."
    elif http.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (http.headers or {}).get("Allow", "another method")
        detail = f"{request.method} is not offered here; allowed: {allowed}."
    return problem_response(request, status=http.status_code, code=code, detail=detail, headers=http.headers)


async def _handle_unexpected(request: Request, error: Exception) -> ProblemResponse:
    error_id = uuid4().hex
    logger.error("error_id=%s %s %s failed", error_id, request.method, request.url.path, exc_info=error)
    detail = f"An unexpected error; the service's log has it under {error_id}."
    return problem_response(request, status=500, code="internal_error", detail=detail, error_id=error_id)


def _describe(item: Mapping[str, Any]) -> dict[str, Any]:
    """One finding of pydantic as field, message and, where it is short, what was given."""
    where: Sequence[Any] = item["loc"]
    described: dict[str, Any] = {
        "field": ".".join(map(str, where[1:] if len(where) > 1 else where)) or "body",
        "in": str(where[0]) if where else "body",
        "message": item["msg"],
        "type": item["type"],
    }
    given = item.get("input")
    if isinstance(given, str | int | float | bool) and len(repr(given)) <= 80:
        described["given"] = given
    return described


def _members_of(error: Exception) -> dict[str, Any]:
    if isinstance(error, InfeasibleBudgetError):
        best = {**error.best_achievable, "arch": error.arch.to_dict(), "arch_id": error.arch.arch_id}
        return {"binding": error.binding, "best_achievable": best}
    return error.extra if isinstance(error, ServiceError) else {}


def _body(request: Request, *, status: int, code: str, detail: str, members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": f"urn:tailor:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        **members,
    }
