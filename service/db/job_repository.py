"""Queries of the job table's life cycle: who may write a job, and when. Functions take a session and never commit.

Whatever a worker writes goes through `_owned`: the row must still be running the very attempt the worker was given.
A worker that was paused while another took over thus finds that it has nothing to write to.
"""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import null, select, update

from service.db.clock import utc_now
from service.db.models import Deployment, Front, Job, Population
from service.errors import ConflictError, NotFoundError
from service.jobs.states import FINISHED, JobKind, JobState, validate_transition

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import InstrumentedAttribute, Session

_STAGE_LENGTH = 64


class Signal(StrEnum):
    """What the row tells a worker in the middle of an attempt."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    SUPERSEDED = "superseded"


def add_job(session: Session, kind: JobKind, payload: dict[str, Any]) -> Job:
    """Insert a queued job now, so that rows which refer to it can follow in the same transaction."""
    job = Job(job_id=uuid.uuid4().hex, kind=kind.value, state=JobState.QUEUED.value, payload=payload)
    session.add(job)
    session.flush()
    return job


def lock_job(session: Session, job_id: str) -> Job:
    """Read a job and keep everybody else from changing it until the transaction ends.

    Raises:
        NotFoundError: There is no such job.
    """
    job = _lock(session, select(Job).where(Job.job_id == job_id))
    if job is None:
        raise NotFoundError(f"There is no job '{job_id}'. GET /v1/jobs lists all.", code="unknown_job")
    return job


def list_unfinished(session: Session) -> list[Job]:
    """Jobs that are queued or running, oldest first."""
    unfinished = [state.value for state in JobState if state not in FINISHED]
    return list(session.scalars(select(Job).where(Job.state.in_(unfinished)).order_by(Job.created_at, Job.job_id)))


def begin_attempt(session: Session, job_id: str, *, max_attempts: int, interruption: str = "") -> Job | None:
    """Give the next attempt of a job to the caller, who from now on owns it.

    Args:
        session: A writing transaction.
        job_id: The job.
        max_attempts: A job that was interrupted so often fails instead; attempts that were given back do not count.
        interruption: What ended the attempt before this one, for the error of a job that fails here.

    Returns:
        The running job; its `attempt` is the fence of every later write. None when there is nothing to do: the job
        was finished, cancelled or tried too often.
    """
    job = lock_job(session, job_id)
    if JobState(job.state) in FINISHED:
        return None
    if job.cancel_requested:
        _finish(job, JobState.CANCELLED)
        return None
    interrupted = job.attempt - job.given_back
    if interrupted >= max_attempts:
        reason = f" The last one: {interruption}" if interruption else ""
        # A stopped worker may have left it queued; it did run, and failed while running.
        job.state = JobState.RUNNING.value
        fail = {
            "code": "attempts_exhausted",
            "message": f"The job was interrupted {interrupted} times, which is the limit.{reason} "
            "Look into the worker's log, then create it again.",
        }
        _finish(job, JobState.FAILED, error=fail)
        return None
    validate_transition(JobState(job.state), JobState.RUNNING)
    job.attempt += 1
    job.state = JobState.RUNNING.value
    job.started_at = utc_now()
    job.progress, job.stage = 0.0, ""
    return job


def read_signal(session: Session, job_id: str, attempt: int) -> Signal:
    """Whether the owner of an attempt may go on."""
    row = session.execute(select(Job.state, Job.attempt, Job.cancel_requested).where(Job.job_id == job_id)).one()
    if row.state != JobState.RUNNING or row.attempt != attempt:
        return Signal.SUPERSEDED
    return Signal.CANCEL if row.cancel_requested else Signal.CONTINUE


def report_progress(session: Session, job_id: str, attempt: int, *, share: float, stage: str) -> bool:
    """Write how far an attempt is; False, and nothing written, when it was superseded."""
    job = _owned(session, job_id, attempt)
    if job is None:
        return False
    job.progress = min(1.0, max(0.0, share))
    job.stage = stage[:_STAGE_LENGTH]
    return True


def finish_attempt(
    session: Session, job_id: str, attempt: int, *, state: JobState, error: dict[str, Any] | None = None
) -> JobState | None:
    """End an attempt.

    Args:
        session: A writing transaction; what belongs to the result is written in the same one.
        job_id: The job.
        attempt: The attempt the caller owns.
        state: What came of it; queued when the worker stops and somebody else shall try again.
        error: `{code, message}`, with and only with the state failed.

    Returns:
        The state the job now has: cancelled where a cancellation was accepted before this. None, and nothing
        written, when the attempt was superseded.
    """
    job = _owned(session, job_id, attempt)
    if job is None:
        return None
    if job.cancel_requested:
        state, error = JobState.CANCELLED, None
    if state is JobState.QUEUED:
        job.given_back += 1
    _finish(job, state, error=error)
    return state


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel a queued job at once; ask the worker to stop a running one. Asking twice is fine.

    Raises:
        NotFoundError: There is no such job.
        InvalidTransitionError: It is finished.
    """
    job = lock_job(session, job_id)
    validate_transition(JobState(job.state), JobState.CANCELLED)
    job.cancel_requested = True
    if job.state == JobState.QUEUED:
        _finish(job, JobState.CANCELLED)
    session.flush()
    return job


def publish_deployment(session: Session, deployment_id: str, *, prefix: str, manifest: dict[str, Any]) -> None:
    """Make a deployment's files available; belongs into the transaction in which its job succeeds.

    Raises:
        ConflictError: There is no such deployment, or its files were published before.
    """
    values = {"artifact_prefix": prefix, "manifest": manifest}
    if not _publish(session, Deployment.deployment_id, deployment_id, once=Deployment.artifact_prefix, values=values):
        raise ConflictError(f"Deployment '{deployment_id}' does not exist or already has its files; create a new one.")


def publish_population(session: Session, population_id: str, *, key: str, summary: dict[str, Any]) -> None:
    """Make a population's CSV available; belongs into the transaction in which its job succeeds.

    Raises:
        ConflictError: There is no such population, or its CSV was published before.
    """
    values = {"artifact_key": key, "summary": summary}
    if not _publish(session, Population.population_id, population_id, once=Population.artifact_key, values=values):
        raise ConflictError(f"Population '{population_id}' does not exist or already has its file; create a new one.")


def publish_front(session: Session, front_id: str, *, document: dict[str, Any]) -> None:
    """Make a front known; belongs into the transaction in which its job succeeds.

    Raises:
        ConflictError: There is no such front any more, or it was published before.
    """
    if not _publish(session, Front.front_id, front_id, once=Front.document, values={"document": document}):
        raise ConflictError(f"Front '{front_id}' does not exist or is known already; ask for it again.")


def _publish(
    session: Session,
    key: InstrumentedAttribute[str],
    value: str,
    *,
    once: InstrumentedAttribute[Any],
    values: dict[str, Any],
) -> bool:
    """Write the values into the row with this key, unless the column `once` is filled; whether there was such a row."""
    statement = update(key.class_).where(key == value, once.is_(null())).values(values).returning(key)
    return session.scalars(statement).one_or_none() is not None


def _owned(session: Session, job_id: str, attempt: int) -> Job | None:
    statement = select(Job).where(Job.job_id == job_id, Job.attempt == attempt, Job.state == JobState.RUNNING.value)
    return _lock(session, statement)


def _lock(session: Session, statement: Select[Job]) -> Job | None:
    # What the session read before it held the lock may be old.
    return session.scalars(statement.with_for_update(), execution_options={"populate_existing": True}).one_or_none()


def _finish(job: Job, state: JobState, *, error: dict[str, Any] | None = None) -> None:
    validate_transition(JobState(job.state), state)
    job.state = state.value
    if error is not None:  # assigning None would store the JSON value null
        job.error = error
    if state in FINISHED:
        job.finished_at = utc_now()
    if state == JobState.SUCCEEDED:
        job.progress = 1.0
