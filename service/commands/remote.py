"""A running service, as commands with `--server` see it."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from service.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Mapping

# A large bundle takes a while to be checked and stored before the answer begins.
_TIMEOUT_S, _ANSWER_S = 60.0, 600.0
_TAR_TYPE, _JSON_TYPE = "application/x-tar", "application/json"


def call(
    server: str,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    archive: IO[bytes] | None = None,
    body: Any = None,
) -> Any:
    """Ask a service for something.

    Args:
        server: Its address, such as `http://127.0.0.1:8000`.
        method: HTTP method.
        path: With its leading slash.
        query: Parameters.
        archive: A tar to send, in pieces.
        body: JSON values to send in its place.

    Returns:
        The answer's JSON; None where it is empty.

    Raises:
        RemoteError: It cannot be reached, refuses, or is no Tailor.
    """
    import httpx

    url = f"{server.rstrip('/')}{path}"
    content: IO[bytes] | bytes | None = archive
    headers = {"content-type": _TAR_TYPE} if archive is not None else {}
    if body is not None:
        content, headers = json.dumps(body, allow_nan=False).encode(), {"content-type": _JSON_TYPE}
    try:
        response = httpx.request(
            method,
            url,
            params=dict(query or {}),
            content=content,
            headers=headers,
            timeout=httpx.Timeout(_TIMEOUT_S, read=_ANSWER_S),
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(f"{url} cannot be reached: {error}. Is the service running, and '--server' right?") from error
    try:
        answer = response.json() if response.content else None
    except ValueError as error:
        raise RemoteError(
            f"{url} answered {response.status_code} without JSON, as no Tailor service does. Is '--server' right?"
        ) from error
    if response.is_error:
        detail = answer.get("detail") if isinstance(answer, dict) else None
        raise RemoteError(f"{url} answered {response.status_code}: {detail or response.reason_phrase}")
    return answer
