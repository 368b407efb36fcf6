"""Pools of a supernet."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.api.schemas.base import ArchModel
from service.jobs.states import JobState


class EvaluatedAccuracy(BaseModel):
    """Top-1 accuracy as a fraction, and on how many images; they chose the subnet, so it is a little too high."""

    evaluated: float
    images: int


class PoolDeployment(BaseModel):
    """A deployment of a pool's arch; the rest is at `/v1/deployments/{id}`."""

    id: str
    state: JobState


class PoolModel(BaseModel):
    """The best subnet of one pool: what training chose for one amount of a resource."""

    resource: str = Field(description="`macs`, or the device whose latency table the pools were measured by.")
    low: float = Field(description="The pool holds subnets from this amount on: multiply-adds or milliseconds.")
    high: float = Field(description="And below this one.")
    arch: ArchModel
    arch_id: str
    accuracy: EvaluatedAccuracy
    macs: int
    params: int
    deployments: list[PoolDeployment] = Field(description="Of this arch from this supernet, the newest 20.")


class PoolList(BaseModel):
    """Every pool of a supernet on one page, by resource and from the smallest."""

    items: list[PoolModel]
    next_cursor: None = None
