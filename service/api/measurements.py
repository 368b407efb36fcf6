"""Whole networks that a device measured: its table follows them."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.deps import ServicesDep
from service.api.problems import BODY_PROBLEMS, problems
from service.api.schemas.measurements import AgreementModel, MeasurementsModel, MeasurementsRequest
from service.api.strict_json import StrictJsonRoute
from service.usecases.latency_tables import report_measurements
from supernet.spaces.arch import Arch

router = APIRouter(
    prefix="/v1/devices/{device_id}/tables/{space}/measurements", tags=["devices"], route_class=StrictJsonRoute
)


@router.post("", status_code=201, summary="Report measured networks", responses=problems(*BODY_PROBLEMS, 404, 409))
def post_measurements(
    services: ServicesDep, device_id: str, space: str, request: MeasurementsRequest, response: Response
) -> MeasurementsModel:
    """Recalibrate the newest table of the device into a new version; its rows stay.

    A few networks scale the estimates and widen or narrow their intervals; once there are as many different ones as the
    table was calibrated with, small and large ones, its calibration is fitted to them. Of a network that is reported
    again the newest latency counts. All versions stay.
    """
    measured = [(Arch.from_dict(one.arch.model_dump()), one.latency_ms) for one in request.networks]
    stored, outcome = report_measurements(services.sessions, device_id, space, measured)
    response.headers["Location"] = f"/v1/devices/{device_id}/tables/{space}?version={stored.version}"
    return MeasurementsModel(
        device=device_id,
        space=space,
        version=stored.version,
        networks=outcome.networks,
        refitted=outcome.refitted,
        agreement=AgreementModel(**outcome.agreement.to_dict()),
    )
