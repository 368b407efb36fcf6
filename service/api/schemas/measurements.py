"""Whole networks that a device measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import EXAMPLE_ARCH, ArchModel, Real, RequestModel
from service.api.schemas.searches import MAX_LATENCY_MS

MAX_NETWORKS = 1000


class NetworkMeasurement(RequestModel):
    """One network, and how long it took."""

    arch: ArchModel
    latency_ms: Annotated[Real, Field(gt=0, le=MAX_LATENCY_MS)] = Field(
        description="Milliseconds of one inference, measured like the table's rows."
    )


class MeasurementsRequest(RequestModel):
    """What a device measured since its table was made."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "networks": [
                    {
                        "arch": EXAMPLE_ARCH,
                        "latency_ms": 1.47,
                    }
                ]
            }
        }
    )

    networks: list[NetworkMeasurement] = Field(min_length=1, max_length=MAX_NETWORKS)


class AgreementModel(BaseModel):
    """Estimates against measurements; shares and errors are fractions."""

    n: int
    mape: float = Field(description="Mean of |estimated - measured| / measured.")
    within_10_percent: float
    spearman: float | None = Field(description="Rank correlation; null where it is not defined.")
    coverage_90: float = Field(description="Share of the networks inside their 90 % interval.")


class MeasurementsModel(BaseModel):
    """The new version of a table, and how far off the one before was."""

    device: str
    space: str
    version: int
    networks: int = Field(description="Reported for this table so far.")
    refitted: bool = Field(description="Whether the calibration was fitted again, to all of them, or scaled.")
    agreement: AgreementModel = Field(description="Of the version before with these networks.")
