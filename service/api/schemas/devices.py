"""Devices, their latency tables and their limits."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from latency_tables.device import MAX_BATCH_SIZE, MAX_TEXT, MAX_THREADS
from service.api.schemas.base import ArchModel, Real, RequestModel, UtcTime, Whole
from service.api.schemas.jobs import JobSummary
from service.api.schemas.searches import AccuracyInterval, LatencyInterval

Text = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_TEXT)]


class DeviceRequest(RequestModel):
    """Hardware with a runtime. `device_id`, as in a table's `device` block, is read as `id`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "rpi5-ort-4t",
                "chip": "BCM2712",
                "runtime": "onnxruntime",
                "runtime_version": "1.31.1",
                "precision": "fp32",
                "threads": 4,
                "batch_size": 1,
            }
        }
    )

    id: Annotated[str, Field(strict=True, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\z", description="Path segment.")]
    chip: Text
    runtime: Text
    runtime_version: Text
    precision: Text = "fp32"
    threads: Annotated[Whole, Field(ge=1, le=MAX_THREADS)] = 1
    batch_size: Annotated[Whole, Field(ge=1, le=MAX_BATCH_SIZE)] = 1
    clock_mhz: Annotated[Real, Field(gt=0, le=1e12)] | None = None
    governor: Text | None = None
    temperature_c: Annotated[Real, Field(gt=-273, lt=1000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_block(cls, data: Any) -> Any:
        if isinstance(data, dict) and "device_id" in data and "id" not in data:
            return {"id" if name == "device_id" else name: value for name, value in data.items()}
        return data


class TableSummary(BaseModel):
    """The newest version of a device's table for a space."""

    space: str
    version: int
    created_at: UtcTime


class DeviceModel(BaseModel):
    """Hardware with a runtime, and the tables it has."""

    id: str
    chip: str
    runtime: str
    runtime_version: str
    precision: str
    threads: int
    batch_size: int
    clock_mhz: float | None
    governor: str | None
    temperature_c: float | None
    tables: list[TableSummary]
    created_at: UtcTime


class DeviceList(BaseModel):
    """One page of devices, newest first."""

    items: list[DeviceModel]
    next_cursor: str | None


class TableReportModel(BaseModel):
    """What was found in a table: counts, other devices with the same numbers, messages."""

    rows: int
    missing: int
    monotonicity_violations: int
    copied_from: list[str]
    noisy_rows: int
    errors: list[str]
    warnings: list[str]


class TableRegistration(BaseModel):
    """Where a table was stored, and what was found in it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "device": "cpu-x86-1t",
                "space": "cifar_mbv3",
                "version": 2,
                "created": True,
                "report": {
                    "rows": 236,
                    "missing": 0,
                    "monotonicity_violations": 0,
                    "copied_from": [],
                    "noisy_rows": 1,
                    "errors": [],
                    "warnings": ["1 rows spread by more than 10% of their latency; measure them again."],
                },
            }
        }
    )

    device: str
    space: str
    version: int
    created: bool = Field(description="False where the newest version is this very document.")
    report: TableReportModel


class SubnetModel(BaseModel):
    """A subnet with what it costs."""

    arch: ArchModel
    arch_id: str
    latency_ms: float
    macs: int
    params: int
    size_bytes: int
    peak_memory_bytes: int


class RangeModel(BaseModel):
    """Smallest and largest value over all subnets; exact."""

    min: int | float
    max: int | float


class LimitArchs(BaseModel):
    """The subnets with the smallest and the largest estimated latency."""

    fastest: SubnetModel
    slowest: SubnetModel


class FrontPoint(BaseModel):
    """A subnet that no other one known beats in latency and accuracy at once."""

    arch: ArchModel
    arch_id: str
    latency_ms: LatencyInterval
    accuracy: AccuracyInterval


class FrontModel(BaseModel):
    """The best subnet for every latency of a device."""

    id: str
    supernet: str
    device: str
    versions: dict[str, Any] = Field(description="Version of the table; hashes of supernet, predictor and table.")
    points: list[FrontPoint] = Field(description="By rising latency and rising accuracy.")


class FrontOrder(BaseModel):
    """A front that is being traced."""

    job: JobSummary


class LimitsModel(BaseModel):
    """What budgets a device can meet with a supernet."""

    supernet: str
    device: str
    table_version: int
    resolutions: list[int] = Field(description="Known to space, table and predictor.")
    latency_ms: RangeModel
    macs: RangeModel
    params: RangeModel
    size_bytes: RangeModel
    archs: LimitArchs
