"""Jobs."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.api.schemas.base import UtcTime
from service.jobs.states import JobState


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class JobModel(BaseModel):
    """Background work. `state` goes queued, running, then succeeded, failed or cancelled."""

    id: str
    kind: str
    state: JobState
    attempts: int = Field(description="How often it was started; more than one after a crash.")
    cancel_requested: bool
    progress: float = Field(ge=0, le=1)
    stage: str = Field(description="What it is doing, for people.")
    error: JobError | None
    deployment: str | None = Field(description="Id of the deployment it makes.")
    result: str | None = Field(description="Path of what it made, once it has succeeded.")
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None


class JobList(BaseModel):
    """One page of jobs, newest first."""

    items: list[JobModel]
    next_cursor: str | None


class JobSummary(BaseModel):
    """A job in brief."""

    id: str
    state: JobState
