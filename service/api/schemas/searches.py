"""Searches."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.schemas.base import EXAMPLE_ARCH, ArchModel, Name, Real, RequestModel, Whole
from service.api.schemas.deployments import DeploymentSummary
from service.api.schemas.jobs import JobSummary
from service.api.schemas.problems import Problem
from service.settings import MAX_EVALUATIONS_AT_ONCE

MAX_LATENCY_MS = 1e6
MAX_ENERGY_MJ = 1e9
MAX_COUNT = 10**15
MAX_DEVICES = 16
MAX_SEARCHES = 500
MAX_CANDIDATES, MAX_CANDIDATES_OF_BATCH = 50, 1000
MAX_EVALUATIONS = 50_000_000
# Of all searches of a batch that name a number.
MAX_EVALUATIONS_OF_BATCH = 1_000_000

Milliseconds = Annotated[Real, Field(gt=0, le=MAX_LATENCY_MS)]
Percent = Annotated[Real, Field(ge=0, le=100)]
Millijoules = Annotated[Real, Field(gt=0, le=MAX_ENERGY_MJ)]
Count = Annotated[Whole, Field(gt=0, le=MAX_COUNT)]


class Constraints(RequestModel):
    """Upper limits the subnet has to keep; those that are absent do not bind."""

    latency_ms: Milliseconds | None = Field(None, description="Milliseconds of one inference on the device.")
    latency_percent: Percent | None = Field(
        None, description="The same as a share of the device's range: 0 is its fastest subnet, 100 its slowest."
    )
    energy_mj: Millijoules | None = Field(
        None, description="Millijoules of one inference, where the device's table knows them."
    )
    macs: Count | None = Field(None, description="Multiply-adds of one image.")
    params: Count | None = Field(None, description="Trainable numbers.")
    size_bytes: Count | None = Field(None, description="Bytes of the parameters at the precision asked for.")
    peak_memory_bytes: Count | None = Field(
        None, description="Bytes of the activations that are alive at once, at the precision asked for."
    )
    accuracy_min: Annotated[Real, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Least predicted accuracy, a fraction; of one device the fastest subnet that has it is the answer.",
    )

    @model_validator(mode="after")
    def _one_latency(self) -> Self:
        if self.latency_ms is not None and self.latency_percent is not None:
            raise PydanticCustomError("one_budget", "give 'latency_ms' or 'latency_percent', not both")
        return self


class DeviceBudget(RequestModel):
    """One of several devices, with a budget of its own."""

    device: Name
    latency_ms: Milliseconds | None = None
    latency_percent: Percent | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.latency_ms is None) == (self.latency_percent is None):
            raise PydanticCustomError("one_budget", "give either 'latency_ms' or 'latency_percent'")
        return self


class SearchRequest(RequestModel):
    """Which device, which budget; or several devices with a budget each, for one subnet that suits all."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"device": "cpu-x86-1t", "constraints": {"latency_ms": 1.5}, "confidence": 0.95, "deploy": True}
        }
    )

    supernet: Name | None = Field(None, description="Id of a supernet; the default one where absent.")
    device: Name | None = Field(None, description="Id of a device with a latency table for the supernet's space.")
    devices: list[DeviceBudget] | None = Field(
        None, min_length=1, max_length=MAX_DEVICES, description="In place of `device`: one subnet for all of them."
    )
    constraints: Constraints = Field(default_factory=lambda: Constraints.model_validate({}))
    objective: Literal["accuracy", "latency_ms", "energy_mj", "macs", "params", "size_bytes"] | None = Field(
        None,
        description="`accuracy` is maximised, anything else minimised. Where absent: the latency, of one device with "
        "`accuracy_min`, else the accuracy.",
    )
    confidence: Annotated[Real, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Without it the estimated latency is held to the budget; with it, this quantile of it is.",
    )
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="Of `size_bytes` and `peak_memory_bytes`; deployments are made in fp32."
    )
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = Field(0, description="The same seed gives the same answer.")
    evaluations: Annotated[Whole, Field(ge=100, le=MAX_EVALUATIONS)] | None = Field(
        None,
        description="Upper limit of the archs to look at; the service's setting where absent. Given, archs are looked "
        f"at even where the device's front is known. Above {MAX_EVALUATIONS_AT_ONCE:,} the search is a job.",
    )
    candidates: Annotated[Whole, Field(ge=0, le=MAX_CANDIDATES)] = Field(
        0, description="How many of the best subnets to name, the answer first, to be measured on the device."
    )
    deploy: Annotated[bool, Field(strict=True)] = Field(False, description="Make a deployment of the answer at once.")

    @model_validator(mode="after")
    def _devices_fit(self) -> Self:
        if (self.device is None) == (self.devices is None):
            raise PydanticCustomError("one_target", "give either 'device' or 'devices'")
        if self.devices is not None:
            names = [budget.device for budget in self.devices]
            if len(set(names)) < len(names):
                raise PydanticCustomError("one_target", "name each of 'devices' once")
            if self.constraints.latency_ms is not None or self.constraints.latency_percent is not None:
                raise PydanticCustomError("one_target", "latency budgets of several devices belong into 'devices'")
        return self


class BatchRequest(RequestModel):
    """Many searches at once, such as a fleet of devices with a few budgets each."""

    searches: list[SearchRequest] = Field(min_length=1, max_length=MAX_SEARCHES)

    @model_validator(mode="after")
    def _is_soon_done(self) -> Self:
        if any((search.evaluations or 0) > MAX_EVALUATIONS_AT_ONCE for search in self.searches):
            raise PydanticCustomError(
                "too_many",
                "a search of a batch looks at {most} archs at most; POST larger ones alone",
                {"most": MAX_EVALUATIONS_AT_ONCE},
            )
        if sum(search.evaluations or 0 for search in self.searches) > MAX_EVALUATIONS_OF_BATCH:
            raise PydanticCustomError(
                "too_many",
                "the searches of a batch look at {most} archs at most together; without 'evaluations' they share what "
                "they find",
                {"most": MAX_EVALUATIONS_OF_BATCH},
            )
        if sum(search.candidates for search in self.searches) > MAX_CANDIDATES_OF_BATCH:
            raise PydanticCustomError(
                "too_many",
                "the searches of a batch name {most} candidates at most; POST some of them alone",
                {"most": MAX_CANDIDATES_OF_BATCH},
            )
        return self


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


class CandidateModel(BaseModel):
    """A subnet that keeps every constraint and that none the search looked at beats in accuracy and cost at once."""

    arch: ArchModel
    arch_id: str
    accuracy: AccuracyInterval
    latencies: dict[str, LatencyInterval] = Field(description="By device.")


class SearchModel(BaseModel):
    """The best subnet found within the constraints."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0b0f3c5e7a5d4d0c9b1f6d2c8e4a7b13",
                "supernet": "cifar_mbv3",
                "device": "cpu-x86-1t",
                "constraints": {"latency_ms": 1.5},
                "objective": "accuracy",
                "arch": EXAMPLE_ARCH,
                "arch_id": "8f14e45fceea167a",
                "accuracy": {"predicted": 0.914, "low": 0.909, "high": 0.919, "level": 0.9},
                "latency_ms": {"estimated": 1.41, "low": 1.35, "high": 1.48, "level": 0.9},
                "latencies": None,
                "macs": 12_400_000,
                "params": 812_000,
                "size_bytes": 3_248_000,
                "peak_memory_bytes": 196_608,
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
    device: str | None = Field(description="Null where several were asked for.")
    constraints: dict[str, float | int]
    objective: str = Field("accuracy", description="What was maximised or minimised.")
    arch: ArchModel
    arch_id: str
    accuracy: AccuracyInterval
    latency_ms: LatencyInterval | None = Field(description="Null where several devices were asked for.")
    latencies: dict[str, LatencyInterval] | None = Field(description="By device, where several were asked for.")
    energy_mj: float | None = Field(None, description="Null where the table does not know it.")
    macs: int
    params: int
    size_bytes: int
    peak_memory_bytes: int | None = Field(description="Null in searches of older versions.")
    evaluations: int
    seconds: float
    source: Literal["front", "evolution"]
    candidates: list[CandidateModel] | None = Field(None, description="Where they were asked for; the answer first.")
    versions: dict[str, Any] = Field(description="Version of the table; hashes of supernet, predictor and table.")
    deployment: DeploymentSummary | None = Field(description="The newest deployment made from this search.")


class SearchOrder(BaseModel):
    """A search that is under way; its answer will have this id."""

    id: str
    job: JobSummary


class BatchItem(BaseModel):
    """The answer to one search of a batch: either the search object, or why there is none."""

    search: SearchModel | None
    problem: Problem | None


class BatchModel(BaseModel):
    """One answer per search, in the order they were asked."""

    items: list[BatchItem]
    seconds: float


class SearchList(BaseModel):
    """One page of searches, newest first."""

    items: list[SearchModel]
    next_cursor: str | None
