"""Devices and what they can do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from latency_tables.device import DeviceProfile
from service.api.deps import ReadSession, ServicesDep, WriteSession
from service.api.jobs import ACCEPTED
from service.api.paging import PageDep, page_body
from service.api.problems import BODY_PROBLEMS, problems
from service.api.schemas.base import MAX_NAME
from service.api.schemas.devices import (
    DeviceList,
    DeviceModel,
    DeviceRequest,
    FrontModel,
    FrontOrder,
    LimitsModel,
    TableSummary,
)
from service.api.schemas.jobs import JobSummary
from service.api.strict_json import StrictJsonRoute
from service.db import repositories
from service.db.models import Device
from service.db.repositories import TableRef
from service.jobs.states import JobState
from service.usecases.devices import delete_device, get_device, register_device
from service.usecases.fronts import order_front
from service.usecases.limits import get_limits

router = APIRouter(prefix="/v1/devices", tags=["devices"], route_class=StrictJsonRoute)


def show_device(device: Device, tables: list[TableRef]) -> DeviceModel:
    """A device as the API shows it."""
    profile = asdict(DeviceProfile.from_dict(device.profile))
    summaries = [TableSummary(space=ref.space, version=ref.version, created_at=ref.created_at) for ref in tables]
    return DeviceModel(id=profile.pop("device_id"), tables=summaries, created_at=device.created_at, **profile)


@router.get("", summary="List devices", response_model=DeviceList, responses=problems(422))
def list_devices(session: ReadSession, page: PageDep) -> dict[str, Any]:
    """Newest first."""
    found = repositories.list_devices(session, page)
    tables = repositories.list_latest_tables(session, [device.device_id for device in found.items])
    return page_body(found, lambda device: show_device(device, tables[device.device_id]))


@router.post(
    "",
    status_code=201,
    summary="Create a device",
    responses={
        200: {"description": "It existed; its profile was brought up to date.", "model": DeviceModel},
        **problems(*BODY_PROBLEMS, 409),
    },
)
def post_device(session: WriteSession, request: DeviceRequest, response: Response) -> DeviceModel:
    """Registering a latency table creates its device as well.

    The id of other hardware (chip, runtime, precision, threads or batch size) is refused: 409 `device_mismatch`.
    """
    fields = request.model_dump(exclude={"id"}, exclude_none=True)
    device, is_new = register_device(session, DeviceProfile(device_id=request.id, **fields))
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/devices/{device.device_id}"
    tables = repositories.list_latest_tables(session, [device.device_id])
    return show_device(device, tables[device.device_id])


@router.get("/{device_id}", summary="Get a device", responses=problems(404))
def read_device(session: ReadSession, device_id: str) -> DeviceModel:
    """Its profile and the newest version of each of its tables."""
    device = get_device(session, device_id)
    return show_device(device, repositories.list_latest_tables(session, [device_id])[device_id])


@router.delete("/{device_id}", status_code=204, summary="Delete a device", responses=problems(404))
def remove_device(session: WriteSession, device_id: str) -> None:
    """Its tables and searches go with it. Deployments made for it stay, can be downloaded and remember its id.

    A device that comes with the package is there again after the next start.
    """
    delete_device(session, device_id)


@router.get(
    "/{device_id}/front",
    summary="The best subnet for every latency",
    response_model=FrontModel,
    responses={
        202: {
            "description": "It is being traced; ask again when the job has succeeded.",
            "model": FrontOrder,
            **ACCEPTED[202],
        },
        **problems(404, 409, 422),
    },
)
def read_front(
    session: WriteSession,
    services: ServicesDep,
    device_id: str,
    supernet: Annotated[str | None, Query(max_length=MAX_NAME, description="The default one where absent.")] = None,
    again: Annotated[
        bool, Query(description="Trace it anew where the last job failed; 409 `failed` otherwise.")
    ] = False,
) -> Any:
    """The Pareto front of predicted accuracy over estimated latency.

    It is traced once for each version of table and predictor, by a job that the first request starts. Searches of the
    device are look-ups from then on.
    """
    front, job = order_front(
        session,
        services.queue,
        services.catalog,
        device_id,
        supernet_id=supernet,
        evaluations=services.settings.front_evaluations,
        again=again,
    )
    if front is not None:
        return front
    order = FrontOrder(job=JobSummary(id=job.job_id, state=JobState(job.state)))
    headers = {"Location": f"/v1/jobs/{job.job_id}", "Retry-After": "1"}
    return JSONResponse(order.model_dump(mode="json"), status_code=202, headers=headers)


@router.get("/{device_id}/limits", summary="What budgets a device can meet", responses=problems(404, 409, 422))
def read_limits(
    session: ReadSession,
    services: ServicesDep,
    device_id: str,
    supernet: Annotated[str | None, Query(max_length=MAX_NAME, description="The default one where absent.")] = None,
) -> LimitsModel:
    """Exact smallest and largest values over all subnets of the supernet, with the fastest and the slowest subnet."""
    return LimitsModel.model_validate(get_limits(session, services.catalog, device_id, supernet_id=supernet))
