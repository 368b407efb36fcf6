"""What a job can be and what it carries. Values only: no queue library, no torch."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.errors import InvalidTransitionError


class JobKind(StrEnum):
    """What there is to do in the background."""

    EXPORT_SUBNET = "export_subnet"


class JobState(StrEnum):
    """Where a job stands. A wish to cancel is a flag on the row, not a state."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

# A job goes from running to running when its attempt was interrupted and a new one starts, and back to queued when
# the worker stops in good order.
ALLOWED_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(JobState),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def validate_transition(found: JobState, wanted: JobState) -> None:
    """Refuse a step the state machine does not have.

    Raises:
        InvalidTransitionError: Names both states and what is allowed.
    """
    allowed = ALLOWED_TRANSITIONS[found]
    if wanted not in allowed:
        ways = f"can only become {', '.join(sorted(allowed))}" if allowed else "is finished and stays as it is"
        raise InvalidTransitionError(f"The job is {found} and cannot become {wanted}: it {ways}.")


class ExportPayload(BaseModel):
    """What an `export_subnet` job needs: ids and settings, never tensors or rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")  # part of a key of the artefact store
    supernet_id: str
    bundle_uri: str
    """`shipped:NAME` or `artifact:KEY`; what the child gets has `folder:PATH` in place of the second."""
    arch: dict[str, Any]
    device_id: str | None = None
    opset: int = 18
    precision: str = "fp32"
    accuracy: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    table_version: int | None = None


PAYLOADS: dict[JobKind, type[BaseModel]] = {JobKind.EXPORT_SUBNET: ExportPayload}
