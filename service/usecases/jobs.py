"""Background work as its user sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.db import repositories
from service.errors import NotFoundError

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
