"""Searches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import ArchModel, Name, Real, RequestModel, Whole
from service.api.schemas.deployments import DeploymentSummary

MAX_LATENCY_MS = 1e6
MAX_COUNT = 10**15
MAX_EVALUATIONS = 200_000

Milliseconds = Annotated[Real, Field(gt=0, le=MAX_LATENCY_MS)]
Count = Annotated[Whole, Field(gt=0, le=MAX_COUNT)]


class Constraints(RequestModel):
    """Upper limits the subnet has to keep; those that are absent do not bind."""

    latency_ms: Milliseconds | None = Field(None, description="Milliseconds of one inference on the device.")
    macs: Count | None = Field(None, description="Multiply-adds of one image.")
    params: Count | None = Field(None, description="Trainable numbers.")
    size_bytes: Count | None = Field(None, description="Bytes of the parameters at the precision asked for.")


class SearchRequest(RequestModel):
    """Which device, which budget."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"device": "cpu-x86-1t", "constraints": {"latency_ms": 1.5}, "confidence": 0.95, "deploy": True}
        }
    )

    supernet: Name | None = Field(None, description="Id of a supernet; the default one where absent.")
    device: Name = Field(description="Id of a device with a latency table for the supernet's space.")
    constraints: Constraints
    confidence: Annotated[Real, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Without it the estimated latency is held to the budget; with it, this quantile of it is.",
    )
    precision: Literal["fp32"] = "fp32"
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = Field(0, description="The same seed gives the same answer.")
    evaluations: Annotated[Whole, Field(ge=100, le=MAX_EVALUATIONS)] | None = Field(
        None, description="Upper limit of the archs to look at; the service's setting where absent."
    )
    deploy: Annotated[bool, Field(strict=True)] = Field(False, description="Make a deployment of the answer at once.")


class AccuracyInterval(BaseModel):
    """Top-1 accuracy as a fraction: the prediction, and the interval that holds the true one at `level`.

    `low`, `high` and `level` are null where the supernet's predictor was imported: nobody knows how far off it is.
    """

    predicted: float
    low: float | None
    high: float | None
    level: float | None


class LatencyInterval(BaseModel):
    """Milliseconds: the estimate, and the interval that holds a measurement at `level`."""

    estimated: float
    low: float
    high: float
    level: float


class SearchModel(BaseModel):
    """The best subnet found within the constraints."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0b0f3c5e7a5d4d0c9b1f6d2c8e4a7b13",
                "supernet": "cifar_mbv3",
                "device": "cpu-x86-1t",
                "constraints": {"latency_ms": 1.5},
                "arch": {
                    "resolution": 28,
                    "depths": [1, 2, 1, 2, 1],
                    "kernel_sizes": [3, 0, 0, 5, 3, 0, 3, 0, 0, 3, 7, 0, 3, 0, 0],
                    "expand_ratios": [3, 0, 0, 4, 2, 0, 4, 0, 0, 3, 4, 0, 4, 0, 0],
                    "widths": [],
                },
                "arch_id": "8f14e45fceea167a",
                "accuracy": {"predicted": 0.914, "low": 0.909, "high": 0.919, "level": 0.9},
                "latency_ms": {"estimated": 1.41, "low": 1.35, "high": 1.48, "level": 0.9},
                "latencies": None,
                "macs": 12_400_000,
                "params": 812_000,
                "size_bytes": 3_248_000,
                "peak_memory_bytes": None,
                "evaluations": 10_000,
                "seconds": 0.21,
                "source": "evolution",
                "versions": {"table": 1, "supernet": "5d41…", "predictor": "7d79…", "tailor": "0.1.0"},
                "deployment": {
                    "id": "5b1e8a52c3a94c0f8f2d1d7c6b9e0a41",
                    "state": "queued",
                    "job": {"id": "c2a2f1d09e6b4b6c8d6f5b1a7e3d9c20", "state": "queued"},
                },
            }
        }
    )

    id: str
    supernet: str
    device: str
    constraints: dict[str, float | int]
    arch: ArchModel
    arch_id: str
    accuracy: AccuracyInterval
    latency_ms: LatencyInterval
    latencies: dict[str, LatencyInterval] | None = Field(description="By device, where several were asked for.")
    macs: int
    params: int
    size_bytes: int
    peak_memory_bytes: int | None
    evaluations: int
    seconds: float
    source: Literal["front", "evolution"]
    versions: dict[str, Any] = Field(description="Version of the table; hashes of supernet, predictor and table.")
    deployment: DeploymentSummary | None = Field(description="The newest deployment made from this search.")


class SearchList(BaseModel):
    """One page of searches, newest first."""

    items: list[SearchModel]
    next_cursor: str | None
