"""Background work as its user sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.db import repositories
from service.errors import ConflictError, NotFoundError
from service.jobs.states import JobState

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from service.db.models import Job
    from service.jobs.queue import JobQueue


def get_job(session: Session, job_id: str) -> Job:
    """The job with this id.

    Raises:
        NotFoundError: `unknown_job`.
    """
    job = repositories.find_job(session, job_id)
    if job is None:
        raise NotFoundError(f"No job {job_id[:80]!r}. GET /v1/jobs lists those there are.", code="unknown_job")
    return job


def cancel_job(session: Session, queue: JobQueue, job_id: str) -> Job:
    """Cancel a queued job at once; ask the worker to stop a running one.

    Raises:
        NotFoundError: `unknown_job`.
        InvalidTransitionError: It has finished.
    """
    get_job(session, job_id)
    return queue.request_cancel(session, job_id)


def unfinished_error(what: str, job: Job) -> ConflictError:
    """Why what a job makes is not there: `failed`, with the job's error where it has one, or `not_ready`.

    Args:
        what: The beginning of the sentence, such as "Deployment 'x'".
        job: One that has not succeeded.
    """
    summary = {"id": job.job_id, "state": job.state}
    if job.state == JobState.FAILED:
        reason = (job.error or {}).get("message", "unknown")
        return ConflictError(f"{what} failed: {reason}", code="failed", job=summary, error=job.error)
    if job.state == JobState.CANCELLED:
        return ConflictError(f"{what} was cancelled. Create a new one.", code="failed", job=summary)
    return ConflictError(
        f"{what} has no files yet: its job is {job.state}. Follow /v1/jobs/{job.job_id}/events.",
        code="not_ready",
        job=summary,
    )
