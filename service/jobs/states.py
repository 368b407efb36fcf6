"""What a job can be and what it carries. Values only: no queue library, no torch."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.errors import InvalidTransitionError


class JobKind(StrEnum):
    """What there is to do in the background."""

    EXPORT_SUBNET = "export_subnet"
    EVALUATE_POPULATION = "evaluate_population"
    FIT_PREDICTOR = "fit_predictor"
    TRACE_FRONT = "trace_front"
    SEARCH = "search"


class Lane(StrEnum):
    """Jobs wait for those of their own lane only: an export takes seconds, a population up to hours."""

    SHORT = "short"
    LONG = "long"


LANES = {
    JobKind.EXPORT_SUBNET: Lane.SHORT,
    JobKind.EVALUATE_POPULATION: Lane.LONG,
    JobKind.FIT_PREDICTOR: Lane.LONG,
    JobKind.TRACE_FRONT: Lane.LONG,
    JobKind.SEARCH: Lane.LONG,
}


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


POPULATION_FILE = "population.csv"


class PopulationPayload(BaseModel):
    """What an `evaluate_population` job needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    supernet_id: str
    bundle_uri: str
    """As in `ExportPayload`."""
    bundle_sha256: str
    """Of the bundle the order means: what comes with the package changes with an update."""
    images: str
    """Name of a folder of images."""
    archs: int
    seed: int


class PopulationOrder(PopulationPayload):
    """What the child gets: `images` is a path here."""

    max_image_bytes: int
    """Of all images together, decoded."""
    file: str
    """CSV that outlives the attempt: the next one goes on with it."""


class PredictorPayload(BaseModel):
    """What a `fit_predictor` job needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    supernet_id: str
    bundle_uri: str
    """As in `ExportPayload`."""
    bundle_sha256: str
    """As in `PopulationPayload`."""
    populations: dict[str, str]
    """By id: keys of CSVs in the artefact store; what the child gets has paths."""
    target_id: str
    """Supernet that gets the bundle with the new predictor: the same one, or a new one."""


class FrontPayload(BaseModel):
    """What a `trace_front` job needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    supernet_id: str
    bundle_uri: str
    """As in `ExportPayload`."""
    bundle_sha256: str
    """As in `PopulationPayload`."""
    device_id: str
    space: str
    table_version: int
    evaluations: int


class FrontOrder(FrontPayload):
    """What the child gets."""

    table_file: str


class SearchTarget(BaseModel):
    """One device of a `search` job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: str
    space: str
    table_version: int
    budget: dict[str, float]


class SearchPayload(BaseModel):
    """What a `search` job needs; what it finds is stored under the job's id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    supernet_id: str
    bundle_uri: str
    """As in `ExportPayload`."""
    bundle_sha256: str
    """As in `PopulationPayload`."""
    targets: list[SearchTarget]
    question: dict[str, Any]
    """Fields of `service.questions.Question`."""
    front_id: str | None = None
    """Of the front to start from."""
    versions: dict[str, Any]
    """As in the search object."""


class SearchOrder(SearchPayload):
    """What the child gets."""

    table_files: list[str]
    """Per target."""
    start: list[list[int]] | None = None
    """Rows of the front."""


PAYLOADS: dict[JobKind, type[BaseModel]] = {
    JobKind.EXPORT_SUBNET: ExportPayload,
    JobKind.EVALUATE_POPULATION: PopulationPayload,
    JobKind.FIT_PREDICTOR: PredictorPayload,
    JobKind.TRACE_FRONT: FrontPayload,
    JobKind.SEARCH: SearchPayload,
}
