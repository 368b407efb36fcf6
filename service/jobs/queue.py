"""The queue: durable hand-over of jobs to the worker. The only module that knows the queue library (DBOS).

The `jobs` table is the truth; DBOS only calls `execute(job_id)` until it returns. Decisions, each for a trap seen:
- One constant executor id. DBOS runs the unfinished work of its id again at launch, so two live processes with one id
  repeat each other's jobs; with unique ids nobody takes over a dead one's. The lock of the data folder keeps it at one
  live worker, and then a constant id is all the recovery there has to be.
- A constant application version: by default it is a hash of the source, and other versions' work is left lying.
- JSON in the database. The default is pickle, with which whoever writes the database runs code.
- One queue per lane, each with a workflow of its own, so that the worker knows the lane before it reads the job.
- `reenqueue_lost` finds jobs that DBOS will not run, whatever the reason.
- From Python 3.12 on DBOS takes SQLite to be 3.42 or newer, which Python does not promise; see `add_subsec`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from service.db import job_repository
from service.db.engine import session_factory, session_scope
from service.jobs.states import LANES, PAYLOADS, JobKind, Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dbos import DBOSClient, EnqueueOptions
    from pydantic import BaseModel
    from sqlalchemy.orm import Session

    from service.db.models import Job
    from service.settings import Settings

APPLICATION_VERSION = "1"
"""Raised only when a job in the queue can no longer be run by newer code; `reenqueue_lost` then moves what is left."""
_APPLICATION = "tailor"
_EXECUTOR = "tailor-worker"
_QUEUES = {Lane.SHORT: "jobs", Lane.LONG: "long_jobs"}
_WORKFLOWS = {Lane.SHORT: "run_job", Lane.LONG: "run_long_job"}
_LIVE = ["ENQUEUED", "PENDING"]


def add_subsec(connection: Any, _record: object = None) -> None:
    """Give an old SQLite the modifier 'subsec' of `unixepoch`, by a function of the same name.

    Without it the default of DBOS's `created_at` is NULL, and no job can be queued. DBOS calls `unixepoch` for nothing
    but the time now.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("unixepoch", -1, lambda *_: time.time())


if sqlite3.sqlite_version_info < (3, 42):
    event.listen(Engine, "connect", add_subsec)  # DBOS has engines of its own


class JobQueue:
    """Where jobs wait. The API enqueues and cancels; the worker also calls `start`.

    Args:
        settings: For the worker's side.
        engine: The database, migrated; the queue shares its connections.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._factory = session_factory(engine)
        self._started = False

    @cached_property
    def _client(self) -> DBOSClient:
        # The library takes a quarter of the API's start, and most requests queue nothing.
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        return DBOSClient(
            system_database_engine=self._engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=_APPLICATION,
            lazy=True,  # the database may not be there yet
        )

    def enqueue(self, session: Session, kind: JobKind, payload: BaseModel) -> Job:
        """Queue a job in the caller's transaction: both are there after its commit, neither after a rollback.

        Args:
            session: A writing transaction on the engine of this queue.
            kind: What to do.
            payload: Of the class `PAYLOADS` names for the kind.

        Returns:
            The queued job, flushed, so that rows may refer to it.
        """
        if not isinstance(payload, PAYLOADS[kind]):
            raise TypeError(f"A job '{kind}' carries {PAYLOADS[kind].__name__}, got {type(payload).__name__}.")
        job = job_repository.add_job(session, kind, payload.model_dump(mode="json"))
        self._hand_over(session, job)
        return job

    def request_cancel(self, session: Session, job_id: str) -> Job:
        """Cancel a queued job at once, ask the worker to stop a running one.

        Raises:
            NotFoundError: There is no such job.
            InvalidTransitionError: It is finished.
        """
        # The hand-over of a cancelled job stays in the queue; the worker finds nothing to do and drops it.
        return job_repository.request_cancel(session, job_id)

    def start(self, execute: Mapping[Lane, Callable[[str], None]]) -> None:
        """Call `execute[lane](job_id)`, in a thread per lane, for one job after the other, interrupted ones first.

        Only for the process that holds the lock of the data folder. It may be called again for a job it has seen,
        even one that is finished.
        """
        from dbos import DBOS, DBOSPortableJSONSerializer

        # Known before the launch, so that the queues are looked at from the start; a registered one takes a second.
        for lane in execute:
            self._client.register_queue(
                _QUEUES[lane], worker_concurrency=1, polling_interval_sec=self._settings.job_poll_s
            )
        # A handler of ours, or the library adds its own to stderr.
        logging.getLogger("dbos").addHandler(logging.NullHandler())
        DBOS(
            config={
                "name": _APPLICATION,
                "system_database_url": self._settings.effective_database_url,
                "application_version": APPLICATION_VERSION,
                "executor_id": _EXECUTOR,
                "serializer": DBOSPortableJSONSerializer(),
                "run_migrations": False,
                "log_level": "WARNING",
            }
        )

        def register(lane: Lane, run: Callable[[str], None]) -> None:
            # No limit of its own: attempts are counted in the jobs table.
            @DBOS.workflow(name=_WORKFLOWS[lane], max_recovery_attempts=None)
            def run_job(job_id: str) -> None:
                run(job_id)

        for lane, run in execute.items():
            register(lane, run)
        DBOS.launch()
        self._started = True

    def reenqueue_lost(self) -> list[str]:
        """Queue every unfinished job again that the library will not run, and return their ids.

        Such are the jobs of another application version, of a worker that stopped in good order, and those whose
        `execute` raised because the database was away.
        """
        # In this order: whatever was handed over together with its job is seen, unless it has ended since.
        with session_scope(self._factory, write=False) as session:
            unfinished = [job.job_id for job in job_repository.list_unfinished(session)]
        if not unfinished:
            return []
        live = {
            workflow.workflow_id.split(":")[0]
            for workflow in self._client.list_workflows(
                status=_LIVE,
                name=list(_WORKFLOWS.values()),
                app_version=APPLICATION_VERSION,
                load_input=False,
                load_output=False,
            )
        }
        lost = [job_id for job_id in unfinished if job_id not in live]
        if not lost:
            return []
        with session_scope(self._factory) as session:
            still = [job for job in job_repository.list_unfinished(session) if job.job_id in lost]
            for job in still:
                self._hand_over(session, job)
        return [job.job_id for job in still]

    def close(self) -> None:
        """Stop taking jobs and let go of the connections. A job in progress stays in the queue."""
        if self._started:
            from dbos import DBOS

            DBOS.destroy(destroy_registry=True)
            self._started = False
        if "_client" in self.__dict__:
            self._client.destroy()

    def _hand_over(self, session: Session, job: Job) -> None:
        lane = LANES[JobKind(job.kind)]
        # The library runs an id once, so every hand-over has its own; the job id in front finds it again.
        options: EnqueueOptions = {
            "queue_name": _QUEUES[lane],
            "workflow_name": _WORKFLOWS[lane],
            "workflow_id": f"{job.job_id}:{uuid.uuid4().hex[:8]}",
            "app_version": APPLICATION_VERSION,
        }
        self._client.enqueue_in_transaction(session, options, job.job_id)


def migrate_queue(settings: Settings) -> None:
    """Bring the library's own tables to its newest schema; without them neither side can start."""
    from dbos import DBOS

    DBOS.migrate(settings.effective_database_url)
