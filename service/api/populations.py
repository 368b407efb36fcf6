"""Populations of a supernet, and predictors fitted on them: jobs of the long lane."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.deps import ReadSession, ServicesDep, WriteSession
from service.api.downloads import FILE_HEADERS, Artifact, send_artifact
from service.api.jobs import ACCEPTED, show_job
from service.api.paging import PageDep, page_body
from service.api.problems import BODY_PROBLEMS, problems
from service.api.schemas.jobs import JobError, JobModel, JobSummary
from service.api.schemas.populations import (
    PopulationList,
    PopulationModel,
    PopulationRequest,
    PopulationResult,
    PredictorRequest,
)
from service.api.strict_json import StrictJsonRoute
from service.db import repositories
from service.db.engine import session_scope
from service.db.models import Job, Population
from service.jobs.states import JobState
from service.usecases.populations import create_population, create_predictor, get_csv, get_population
from service.usecases.supernets import get_supernet

router = APIRouter(prefix="/v1/supernets/{supernet_id}", tags=["supernets"], route_class=StrictJsonRoute)

CSV_TYPE = "text/csv"


def show_population(population: Population, job: Job) -> PopulationModel:
    """A population as the API shows it; its state is its job's."""
    state, summary = JobState(job.state), population.summary
    return PopulationModel(
        id=population.population_id,
        state=state,
        job=JobSummary(id=job.job_id, state=state),
        supernet=population.supernet_id,
        images=population.images,
        archs=population.archs,
        seed=population.seed,
        evaluated=None if summary is None else PopulationResult(**summary),
        file=None if summary is None else f"{_path_of(population)}.csv",
        error=None if job.error is None else JobError(**job.error),
        created_at=population.created_at,
    )


def _path_of(population: Population) -> str:
    return f"/v1/supernets/{population.supernet_id}/population/{population.population_id}"


@router.post(
    "/population",
    status_code=202,
    summary="Evaluate a population",
    responses={**ACCEPTED, **problems(*BODY_PROBLEMS, 404, 409)},
)
def post_population(
    services: ServicesDep, supernet_id: str, request: PopulationRequest, response: Response
) -> PopulationModel:
    """Cut archs out of the supernet, recalibrate and evaluate them on images of the server: a job of the long lane.

    The classes of the images have to be the supernet's. 409 `no_images_dir` where the service has no folder of images,
    `no_weights` or `no_calibration` where the supernet can only be searched.
    """
    with session_scope(services.sessions, write=False) as session:
        row = get_supernet(session, supernet_id)
    supernet = services.catalog.supernet(row)
    with session_scope(services.sessions) as session:
        population, job = create_population(
            session,
            services.queue,
            supernet,
            images=request.images,
            images_dir=services.settings.images_dir,
            archs=request.archs,
            seed=request.seed,
        )
    response.headers["Location"] = _path_of(population)
    return show_population(population, job)


@router.get("/population", summary="List populations", response_model=PopulationList, responses=problems(404, 422))
def list_populations(session: ReadSession, supernet_id: str, page: PageDep) -> dict[str, Any]:
    """Newest first."""
    get_supernet(session, supernet_id)
    found = repositories.list_populations(session, supernet_id, page)
    return page_body(found, lambda item: show_population(*item))


@router.get(
    "/population/{population_id}.csv",
    summary="Download a population",
    response_class=Response,
    responses={
        200: {"description": "The CSV.", "content": {CSV_TYPE: {"schema": {"type": "string"}}}},
        206: {"description": "The range asked for.", "content": {CSV_TYPE: {"schema": {"type": "string"}}}},
        304: {"description": "The client has it (`If-None-Match`)."},
        **problems(404, 409, 416),
    },
    openapi_extra=FILE_HEADERS,
)
def download_population(request: Request, services: ServicesDep, supernet_id: str, population_id: str) -> Response:
    """Archs in the columns `ks,e,d,r` and, where the space has them, `w`, with `correct`, `images`, `top1_percent`.

    409 `not_ready` before the job has succeeded, `failed` after it has failed.
    """
    with session_scope(services.sessions, write=False) as session:
        key, sha256 = get_csv(session, supernet_id, population_id)
    return send_artifact(request, services.artifacts, Artifact(key, sha256, CSV_TYPE, f"{population_id}.csv"))


@router.get("/population/{population_id}", summary="Get a population", responses=problems(404))
def read_population(session: ReadSession, supernet_id: str, population_id: str) -> PopulationModel:
    """Its state is its job's; `file` says where to download it once it has succeeded."""
    return show_population(*get_population(session, supernet_id, population_id))


@router.post(
    "/predictor",
    status_code=202,
    summary="Fit a predictor",
    responses={**ACCEPTED, **problems(*BODY_PROBLEMS, 404, 409)},
)
def post_predictor(
    session: WriteSession,
    services: ServicesDep,
    supernet_id: str,
    response: Response,
    request: PredictorRequest | None = None,
) -> JobModel:
    """Fit an accuracy predictor on populations and make a bundle with it the supernet's: a job of the long lane.

    Its other parts stay as they are. Searches made before are `stale_search` for deployments. With an `id` the bundle
    becomes a new supernet instead; one that comes with the package needs that (409 `shipped_supernet`). 409
    `no_population` where none was evaluated, `stale_population` or `mixed_populations` where they do not fit.
    """
    request = request or PredictorRequest.model_validate({})
    job = create_predictor(
        session,
        services.queue,
        services.artifacts,
        supernet_id=supernet_id,
        populations=request.populations,
        target_id=request.id,
    )
    response.headers["Location"] = f"/v1/jobs/{job.job_id}"
    return show_job(job)
