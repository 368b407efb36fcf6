"""Deployments."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.schemas.base import EXAMPLE_ARCH, ArchModel, Name, RequestModel, UtcTime, Whole
from service.api.schemas.jobs import JobError, JobSummary
from service.jobs.states import JobState

# What the exporter writes and ONNX Runtime reads.
MIN_OPSET, MAX_OPSET, DEFAULT_OPSET = 18, 23, 18


class DeploymentRequest(RequestModel):
    """Either `search_id`, or an `arch` of a supernet; with a device, its latency is estimated too."""

    model_config = ConfigDict(json_schema_extra={"example": {"search_id": "0b0f3c5e7a5d4d0c9b1f6d2c8e4a7b13"}})

    search_id: Name | None = None
    supernet: Name | None = Field(None, description="Id of a supernet; the default one where absent.")
    arch: ArchModel | None = None
    device: Name | None = None
    precision: Literal["fp32"] = "fp32"
    opset: Annotated[Whole, Field(ge=MIN_OPSET, le=MAX_OPSET)] = Field(DEFAULT_OPSET, description="ONNX opset.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.search_id is None) == (self.arch is None):
            raise PydanticCustomError("one_source", "give either 'search_id' or 'arch'")
        if self.search_id is not None and (self.supernet is not None or self.device is not None):
            raise PydanticCustomError("one_source", "a 'search_id' names supernet and device already; leave them out")
        return self


class DeploymentSummary(BaseModel):
    """A deployment in brief."""

    id: str
    state: JobState
    job: JobSummary


class DeploymentModel(DeploymentSummary):
    """One subnet on its way to, or available as, a verified ONNX file."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "5b1e8a52c3a94c0f8f2d1d7c6b9e0a41",
                "state": "queued",
                "job": {"id": "c2a2f1d09e6b4b6c8d6f5b1a7e3d9c20", "state": "queued"},
                "supernet": "cifar_mbv3",
                "search_id": "0b0f3c5e7a5d4d0c9b1f6d2c8e4a7b13",
                "device": "cpu-x86-1t",
                "arch": EXAMPLE_ARCH,
                "arch_id": "8f14e45fceea167a",
                "precision": "fp32",
                "opset": 18,
                "error": None,
                "files": None,
                "created_at": "2026-11-21T12:00:00Z",
            }
        }
    )

    supernet: str
    search_id: str | None
    device: str | None
    arch: ArchModel
    arch_id: str
    precision: str
    opset: int
    error: JobError | None
    files: dict[str, str] | None = Field(description="Paths of model.onnx and manifest.json once it has succeeded.")
    created_at: UtcTime


class DeploymentList(BaseModel):
    """One page of deployments, newest first."""

    items: list[DeploymentModel]
    next_cursor: str | None
