"""Jobs: state, progress, events, cancellation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from service.api.deps import ReadSession, Services, ServicesDep, WriteSession
from service.api.paging import PageDep, page_body
from service.api.problems import problems
from service.api.schemas.jobs import JobError, JobList, JobModel
from service.api.strict_json import StrictJsonRoute
from service.db import repositories
from service.db.engine import session_scope
from service.db.models import Job
from service.jobs.states import FINISHED, JobKind, JobState
from service.usecases.jobs import cancel_job, get_job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictJsonRoute)

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"headers": {"Location": {"description": "Where to follow it.", "schema": {"type": "string"}}}}
}
"""`responses` of routes that enqueue a job."""
POLL_S = 0.25
# A comment now and then, so that proxies keep the connection and a closed one is noticed.
_KEEP_ALIVE_S = 15.0


def show_job(job: Job) -> JobModel:
    """A job as the API shows it."""
    return JobModel(
        id=job.job_id,
        kind=job.kind,
        state=JobState(job.state),
        attempts=job.attempt,
        cancel_requested=job.cancel_requested,
        progress=job.progress,
        stage=job.stage,
        error=None if job.error is None else JobError(**job.error),
        deployment=job.payload.get("deployment_id"),
        result=_result_path(job) if job.state == JobState.SUCCEEDED else None,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _result_path(job: Job) -> str:
    match JobKind(job.kind):
        case JobKind.EXPORT_SUBNET:
            return f"/v1/deployments/{job.payload['deployment_id']}"
        case JobKind.EVALUATE_POPULATION:
            return f"/v1/supernets/{job.payload['supernet_id']}/population/{job.job_id}.csv"
        case JobKind.SEARCH:
            return f"/v1/searches/{job.job_id}"
        case JobKind.TRACE_FRONT:
            return f"/v1/devices/{job.payload['device_id']}/front?supernet={job.payload['supernet_id']}"
        case JobKind.FIT_PREDICTOR:
            return f"/v1/supernets/{job.payload['target_id']}"


@router.get("", summary="List jobs", response_model=JobList, responses=problems(422))
def list_jobs(session: ReadSession, page: PageDep) -> dict[str, Any]:
    """Newest first."""
    return page_body(repositories.list_jobs(session, page), show_job)


@router.get("/{job_id}", summary="Get a job", responses=problems(404))
def read_job(session: ReadSession, job_id: str) -> JobModel:
    """State, attempts and progress."""
    return show_job(get_job(session, job_id))


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 409))
def post_cancel(session: WriteSession, services: ServicesDep, job_id: str) -> JobModel:
    """A queued job is cancelled at once; a running one is asked to stop (`cancel_requested`). 409 once it has ended."""
    return show_job(cancel_job(session, services.queue, job_id))


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events `job`, each with the job as data, until it has ended.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The client has seen the last event (`Last-Event-ID`): it need not come back."},
        **problems(404),
    },
)
async def stream_events(
    services: ServicesDep,
    job_id: str,
    last_event_id: Annotated[str | None, Header(description="Sent by browsers that reconnect.")] = None,
) -> Response:
    """The first event is the state now; further ones follow each change of state, attempt, progress or stage."""
    job = await run_in_threadpool(_read, services, job_id)
    if job.state in FINISHED and last_event_id == _event_id(job):
        return Response(status_code=204)
    return StreamingResponse(
        _events(services, job),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _events(services: Services, job: JobModel) -> AsyncIterator[str]:
    """Look at the job again and again; the database is read in a thread, so the loop stays free."""
    sent = ""
    quiet_s = 0.0
    while True:
        event_id = _event_id(job)
        if event_id != sent:
            sent, quiet_s = event_id, 0.0
            yield f"event: job\nid: {event_id}\ndata: {job.model_dump_json()}\n\n"
        elif quiet_s >= _KEEP_ALIVE_S:
            quiet_s = 0.0
            yield ": still here\n\n"
        if job.state in FINISHED:
            return
        await anyio.sleep(POLL_S)
        quiet_s += POLL_S
        job = await run_in_threadpool(_read, services, job.id)


def _read(services: Services, job_id: str) -> JobModel:
    with session_scope(services.sessions, write=False) as session:
        return show_job(get_job(session, job_id))


def _event_id(job: JobModel) -> str:
    stage = "".join(character if character.isascii() and character.isalnum() else "-" for character in job.stage)
    return f"{job.attempts}.{job.state}.{job.progress:.4f}.{int(job.cancel_requested)}.{stage}"
