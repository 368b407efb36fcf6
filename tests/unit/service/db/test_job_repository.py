"""Who may write a job, and when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import IntegrityError

from service.db import job_repository
from service.db.engine import session_scope
from service.db.job_repository import Signal
from service.db.models import Deployment, Job, Supernet
from service.errors import ConflictError, InvalidTransitionError, NotFoundError
from service.jobs.states import JobKind, JobState

ERROR = {"code": "boom", "message": "It broke."}


@pytest.fixture
def job_id(factory) -> str:
    with session_scope(factory) as session:
        return job_repository.add_job(session, JobKind.EXPORT_SUBNET, {"n": 1}).job_id


@pytest.fixture
def call(factory):
    """Call a function of the repository in a transaction of its own."""

    def call(function, *args, **kwargs):
        with session_scope(factory) as session:
            return function(session, *args, **kwargs)

    return call


@pytest.fixture
def begin(call, job_id):
    return lambda **kwargs: call(job_repository.begin_attempt, job_id, **{"max_attempts": 3, **kwargs})


@pytest.fixture
def finish(call, job_id):
    return lambda attempt, state, **kwargs: call(job_repository.finish_attempt, job_id, attempt, state=state, **kwargs)


@pytest.fixture
def read(factory, job_id):
    def read() -> Job:
        with session_scope(factory, write=False) as session:
            return session.get_one(Job, job_id)

    return read


def test_each_attempt_has_the_next_number(begin, read):
    assert [begin().attempt for _ in range(3)] == [1, 2, 3]
    assert read().state == JobState.RUNNING


def test_a_superseded_attempt_writes_nothing(begin, finish, call, read, job_id):
    paused, current = begin().attempt, begin().attempt
    report = {"share": 0.9, "stage": "late"}
    assert call(job_repository.read_signal, job_id, paused) is Signal.SUPERSEDED
    assert call(job_repository.report_progress, job_id, paused, **report) is False
    assert finish(paused, JobState.SUCCEEDED) is None
    assert finish(paused, JobState.FAILED, error=ERROR) is None
    assert finish(paused, JobState.QUEUED) is None
    job = read()
    assert (job.state, job.attempt, job.progress, job.stage) == (JobState.RUNNING, current, 0.0, "")
    assert finish(current, JobState.SUCCEEDED) is JobState.SUCCEEDED


def test_a_finished_job_is_finished_once(begin, finish, read):
    begin()
    assert finish(1, JobState.SUCCEEDED) is JobState.SUCCEEDED
    assert finish(1, JobState.FAILED, error=ERROR) is None
    assert begin() is None
    job = read()
    assert (job.state, job.error, job.progress) == (JobState.SUCCEEDED, None, 1.0)
    assert job.finished_at is not None


def test_a_failed_job_keeps_its_error(begin, finish, read):
    begin()
    finish(1, JobState.FAILED, error=ERROR)
    assert (read().state, read().error) == (JobState.FAILED, ERROR)


def test_a_job_interrupted_too_often_fails_and_says_why(begin, read):
    begin(max_attempts=2), begin(max_attempts=2)
    assert begin(max_attempts=2, interruption="its process ended with exit code 7.") is None
    job = read()
    assert (job.state, job.error["code"], job.attempt) == (JobState.FAILED, "attempts_exhausted", 2)
    assert "interrupted 2 times" in job.error["message"]
    assert "exit code 7" in job.error["message"]


def test_an_attempt_a_stopping_worker_gave_back_does_not_count(begin, finish, read):
    for attempt in range(1, 6):
        assert begin(max_attempts=1).attempt == attempt
        assert finish(attempt, JobState.QUEUED) is JobState.QUEUED
        assert (read().state, read().finished_at) == (JobState.QUEUED, None)
    begin(max_attempts=1)
    assert begin(max_attempts=1) is None
    assert read().state == JobState.FAILED
    assert "interrupted 1 times" in read().error["message"]


def test_a_new_attempt_starts_from_zero(begin, call, read, job_id):
    begin()
    assert call(job_repository.report_progress, job_id, 1, share=0.7, stage="export")
    assert (read().progress, read().stage) == (0.7, "export")
    begin()
    assert (read().progress, read().stage) == (0.0, "")


@pytest.mark.parametrize(("share", "stored"), [(-1.0, 0.0), (0.5, 0.5), (7.0, 1.0)])
def test_progress_is_a_share_and_stages_are_cut(begin, call, read, job_id, share, stored):
    begin()
    call(job_repository.report_progress, job_id, 1, share=share, stage="s" * 200)
    assert (read().progress, len(read().stage)) == (stored, 64)


def test_a_queued_job_is_cancelled_at_once(call, begin, read, job_id):
    assert call(job_repository.request_cancel, job_id).state == JobState.CANCELLED
    assert begin() is None
    assert read().attempt == 0


def test_an_accepted_cancellation_wins_over_a_later_success(begin, finish, call, read, job_id):
    begin()
    assert call(job_repository.request_cancel, job_id).state == JobState.RUNNING
    assert call(job_repository.request_cancel, job_id).cancel_requested
    assert call(job_repository.read_signal, job_id, 1) is Signal.CANCEL
    assert finish(1, JobState.SUCCEEDED) is JobState.CANCELLED
    assert read().state == JobState.CANCELLED


def test_a_job_whose_worker_died_is_cancelled_instead_of_repeated(begin, call, read, job_id):
    begin()
    call(job_repository.request_cancel, job_id)
    assert begin() is None
    assert (read().state, read().attempt) == (JobState.CANCELLED, 1)


def test_a_finished_job_cannot_be_cancelled(begin, finish, call, job_id):
    begin()
    finish(1, JobState.SUCCEEDED)
    with pytest.raises(InvalidTransitionError, match="is succeeded and cannot become cancelled"):
        call(job_repository.request_cancel, job_id)


def test_an_unknown_job_is_named(call):
    with pytest.raises(NotFoundError, match="nobody"):
        call(job_repository.request_cancel, "nobody")


def test_unfinished_jobs_are_listed_oldest_first(factory, call):
    with session_scope(factory) as session:
        for number, state in enumerate(JobState):
            session.add(
                Job(
                    job_id=state.value,
                    kind="export_subnet",
                    state=state.value,
                    payload={},
                    attempt=1,
                    created_at=datetime(2026, 1, 9 - number, tzinfo=UTC),
                    **({} if state in ("queued", "running") else {"finished_at": datetime(2026, 2, 1, tzinfo=UTC)}),
                    **({"error": ERROR} if state == "failed" else {}),
                )
            )
    assert [job.job_id for job in call(job_repository.list_unfinished)] == ["running", "queued"]


def test_the_database_refuses_impossible_states(factory, job_id):
    def set_error() -> None:
        with session_scope(factory) as session:
            session.get_one(Job, job_id).error = ERROR

    with pytest.raises(IntegrityError, match="error_of_failed"):
        set_error()


def test_a_deployment_is_published_once(factory, call, job_id):
    with session_scope(factory) as session:
        session.add(Supernet(supernet_id="s", space="x", bundle_uri="shipped:s", bundle_sha256="0" * 64, manifest={}))
        session.flush()
        session.add(
            Deployment(
                deployment_id="d", job_id=job_id, supernet_id="s", arch={}, arch_id="a", precision="fp32", opset=18
            )
        )
    call(job_repository.publish_deployment, "d", prefix="deployments/d/1", manifest={"a": 1})
    with pytest.raises(ConflictError, match="already has its files"):
        call(job_repository.publish_deployment, "d", prefix="deployments/d/2", manifest={})
    with session_scope(factory, write=False) as session:
        assert session.get_one(Deployment, "d").artifact_prefix == "deployments/d/1"
