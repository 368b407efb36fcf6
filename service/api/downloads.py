"""Artefacts over HTTP: ETag, conditional requests and single byte ranges. Source: RFC 9110 §§ 13 and 14."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi.responses import Response, StreamingResponse

from service.api.problems import problem_response

if TYPE_CHECKING:
    from starlette.requests import Request

    from service.artifacts import ArtifactStore

FILE_HEADERS = {
    "parameters": [
        {
            "in": "header",
            "name": "Range",
            "required": False,
            "description": "One byte range, such as `bytes=0-1023`.",
            "schema": {"type": "string"},
        },
        {
            "in": "header",
            "name": "If-None-Match",
            "required": False,
            "description": "ETags the client has.",
            "schema": {"type": "string"},
        },
    ]
}
"""`openapi_extra` of routes that send an artefact."""
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Artifact:
    """A file of the artefact store as the client shall see it."""

    key: str
    sha256: str
    media_type: str
    file_name: str


def send_artifact(request: Request, store: ArtifactStore, artifact: Artifact) -> Response:
    """Stream an artefact, the part of it that was asked for, or word that the client has it already.

    Several ranges, another unit and a malformed range are ignored, as the RFC allows: the whole file is sent.

    Raises:
        StorageError: The artefact is gone or the store is away.
    """
    size = store.size(artifact.key)
    etag = f'"{artifact.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        # Artefacts never change: a deployment is written once.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'attachment; filename="{artifact.file_name}"',
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range")
    if wanted is not None and request.headers.get("if-range", etag) == etag and (found := _RANGE.fullmatch(wanted)):
        first, last = found.groups()
        if first or last:
            bounds = _bounds(first, last, size)
            if bounds is None:
                return problem_response(
                    request,
                    status=416,
                    code="range_not_satisfiable",
                    detail=f"The file has {size} bytes; the range '{wanted[:80]}' lies outside.",
                    headers={"Content-Range": f"bytes */{size}"},
                )
            start, end = bounds
            headers |= {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": str(end - start)}
            return StreamingResponse(
                store.stream(artifact.key, start=start, end=end),
                status_code=206,
                headers=headers,
                media_type=artifact.media_type,
            )
    headers["Content-Length"] = str(size)
    return StreamingResponse(store.stream(artifact.key), headers=headers, media_type=artifact.media_type)


def _bounds(first: str, last: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of a range; None where it holds no byte of the file or ends before it starts."""
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    return (start, end) if start < end else None


def _matches(header: str | None, etag: str) -> bool:
    """Weak comparison, as `If-None-Match` has it."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
