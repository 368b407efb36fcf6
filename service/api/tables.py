"""Latency tables of devices: JSON or CSV in, JSON or CSV out."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from latency_tables.errors import TableFormatError
from latency_tables.table import FORMAT, LatencyTable, parse_table
from service.api.deps import ReadSession, ServicesDep
from service.api.problems import BODY_PROBLEMS, problems
from service.api.schemas.devices import TableRegistration, TableReportModel
from service.api.strict_json import JSON_TYPE, media_type_of, parse_json
from service.db.engine import session_scope
from service.usecases.latency_tables import check_registration, get_table, register_table

router = APIRouter(prefix="/v1/devices/{device_id}/tables", tags=["devices"])

CSV_TYPE = "text/csv"
_EXAMPLE = {
    "format": FORMAT,
    "device": {
        "device_id": "rpi5-ort-4t",
        "chip": "BCM2712",
        "runtime": "onnxruntime",
        "runtime_version": "1.31.1",
        "precision": "fp32",
        "threads": 4,
        "batch_size": 1,
    },
    "space": "cifar_mbv3",
    "source": {"measured_by": "you", "licence": "CC0-1.0"},
    "calibration": None,
    "rows": [
        {
            "kind": "conv",
            "in_size": 32,
            "in_chs": 3,
            "mid_chs": 3,
            "out_chs": 16,
            "kernel_size": 3,
            "stride": 2,
            "act": "hswish",
            "out_act": "none",
            "se_chs": 0,
            "shortcut": False,
            "norm": True,
            "bias": False,
            "latency_ms": {"median": 0.021, "std": 0.001, "count": 200},
        }
    ],
}
_BODY = {
    "required": True,
    "content": {
        JSON_TYPE: {
            "schema": {
                "type": "object",
                "description": "A latency table: device, space, source, one row per block, and a calibration.",
                "required": ["format", "device", "space", "source", "rows"],
            },
            "example": _EXAMPLE,
        },
        CSV_TYPE: {"schema": {"type": "string", "description": "The same: `# key: json` lines, then columns."}},
    },
}


async def read_table(request: Request) -> LatencyTable:
    """The table in the request's body."""
    media_type = media_type_of(request)
    if media_type not in (JSON_TYPE, CSV_TYPE):
        given = request.headers.get("content-type", "no content type")
        raise HTTPException(415, f"A table is sent as '{JSON_TYPE}' or '{CSV_TYPE}', got {given!r}.")
    # Seconds for a large one, in which the others are to be answered.
    return await run_in_threadpool(_parse, await request.body(), media_type)


def _parse(body: bytes, media_type: str) -> LatencyTable:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"The body is no UTF-8 text: {error.reason}.") from error
    if media_type == JSON_TYPE:
        try:
            parse_json(body)
        except json.JSONDecodeError as error:
            raise HTTPException(400, f"The body is no standard JSON: {error.msg}.") from error
    elif text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        raise TableFormatError(f"The body was sent as '{CSV_TYPE}' but looks like JSON; send it as '{JSON_TYPE}'.")
    return parse_table(text)


@router.put(
    "/{space}",
    summary="Register a latency table",
    status_code=201,
    response_model=TableRegistration,
    responses={
        200: {"description": "The newest version is this very document.", "model": TableRegistration},
        **problems(*BODY_PROBLEMS, 404, 409),
    },
    openapi_extra={"requestBody": _BODY},
)
def put_table(
    services: ServicesDep,
    device_id: str,
    space: str,
    table: Annotated[LatencyTable, Depends(read_table)],
    response: Response,
) -> Any:
    """Store a new version; creates the device from the table's `device` block.

    Device id and space of the path must be those of the document (422 `path_mismatch`). A table that cannot be used
    is refused (422 `invalid_table` or `refused_table`, with the report) and nothing is stored.
    """
    with session_scope(services.sessions, write=False) as session:
        report = check_registration(session, table, device_id=device_id, space=space)
    with session_scope(services.sessions) as session:
        stored, is_new = register_table(session, table)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/devices/{device_id}/tables/{space}?version={stored.version}"
    return TableRegistration(
        device=device_id,
        space=space,
        version=stored.version,
        created=is_new,
        report=TableReportModel(**report.to_dict()),
    )


@router.get(
    "/{space}",
    summary="Get a latency table",
    response_class=Response,
    responses={
        200: {
            "description": "The table; `Content-Location` names its version.",
            "content": {
                JSON_TYPE: {"schema": {"type": "object"}, "example": _EXAMPLE},
                CSV_TYPE: {"schema": {"type": "string"}},
            },
        },
        **problems(404, 422),
    },
)
def read_latency_table(
    request: Request,
    session: ReadSession,
    device_id: str,
    space: str,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="The newest where absent.")] = None,
    table_format: Annotated[
        Literal["json", "csv"] | None, Query(alias="format", description="Before `Accept`, which is asked otherwise.")
    ] = None,
) -> Response:
    """Any version, as JSON or CSV."""
    stored, table = get_table(session, device_id, space, version=version)
    headers = {
        "Content-Location": f"/v1/devices/{device_id}/tables/{space}?version={stored.version}",
        "Vary": "Accept",
    }
    if table_format == "csv" or (table_format is None and _prefers_csv(request.headers.get("accept", ""))):
        return Response(table.to_csv(), media_type=CSV_TYPE, headers=headers)
    return Response(table.to_json(), media_type=JSON_TYPE, headers=headers)


def _prefers_csv(accept: str) -> bool:
    """Whether CSV is named before JSON, or alone. Quality values are not weighed."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    asked = [name for name in named if name in (CSV_TYPE, JSON_TYPE, "*/*", "application/*", "text/*")]
    return bool(asked) and asked[0] in (CSV_TYPE, "text/*")
