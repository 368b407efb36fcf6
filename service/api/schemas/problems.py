"""The one error body."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class FieldError(BaseModel):
    """One field that was refused."""

    model_config = ConfigDict(extra="allow")

    field: str = Field(description="Where in the request, parts joined by dots.")
    message: str
    type: str = Field(description="Stable word for the kind of fault.")
    given: Any = Field(None, description="What was sent, where it is short.")


class Problem(BaseModel):
    """RFC 9457 problem details. `code` is for programs, `detail` for people; further members depend on the code."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:tailor:problem:unknown_device",
                "title": "Not Found",
                "status": 404,
                "detail": "No device 'rpi6'. GET /v1/devices lists those there are.",
                "instance": "/v1/devices/rpi6",
                "code": "unknown_device",
            }
        },
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError] | None = None
