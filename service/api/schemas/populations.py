"""Populations, and predictors fitted on them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import Name, RequestModel, UtcTime, Whole
from service.api.schemas.jobs import JobError, JobSummary
from service.jobs.states import JobState
from service.names import PATTERN

MAX_ARCHS = 10_000
MAX_POPULATIONS = 100
DEFAULT_ARCHS = 250
_Segment = Annotated[Name, Field(pattern=f"^{PATTERN}$")]


class PopulationRequest(RequestModel):
    """Which images, how many archs."""

    model_config = ConfigDict(json_schema_extra={"example": {"images": "cifar10-val", "archs": 250}})

    images: _Segment = Field(
        description="Name of a folder on the server, below the one of `TAILOR_IMAGES_DIR`, with parquet files or one "
        "folder per class. The supernet must not have learnt from them."
    )
    archs: Annotated[Whole, Field(ge=1, le=MAX_ARCHS)] = Field(
        DEFAULT_ARCHS,
        description="Largest and smallest of the space, then random ones; a predictor needs 20 in all, or all of a "
        "smaller space.",
    )
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = Field(0, description="The same seed draws the same archs.")


class PredictorRequest(RequestModel):
    """Populations to fit on, and where the result goes."""

    model_config = ConfigDict(json_schema_extra={"example": {"id": "cifar_mbv3_mine"}})

    populations: list[Name] = Field(
        [], max_length=MAX_POPULATIONS, description="Ids; the newest one that is finished where absent."
    )
    id: _Segment | None = Field(
        None, description="Of a new supernet that gets the predictor; this supernet's own is replaced where absent."
    )


class PopulationResult(BaseModel):
    """What came of a population; accuracies are fractions."""

    archs: int
    images: int
    mean_top1: float
    best_top1: float


class PopulationModel(BaseModel):
    """Archs of a supernet that were, or are being, evaluated. Its id is its job's."""

    id: str
    state: JobState
    job: JobSummary
    supernet: str
    images: str
    archs: int = Field(description="How many were asked for.")
    seed: int
    evaluated: PopulationResult | None = Field(description="Once it has succeeded.")
    file: str | None = Field(description="Path of its CSV, once it has succeeded.")
    error: JobError | None
    created_at: UtcTime


class PopulationList(BaseModel):
    """One page of populations, newest first."""

    items: list[PopulationModel]
    next_cursor: str | None
