"""The worker: takes jobs from the queue, has a child per lane do them, and records what came of them.

Exactly one result per job, whatever is killed when: each attempt has a number, files go under a key with that number,
and everything that is written is written only while the row still holds it.
"""

from __future__ import annotations

import logging
import os.path
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.artifacts import ArtifactStore
from service.bundles import BundleStore
from service.db import job_repository, repositories
from service.db.engine import DatabaseError, build_engine, is_outage, reason_of, session_factory, session_scope
from service.db.job_repository import Signal
from service.db.migrate import upgrade
from service.errors import ConflictError, ServiceError, StorageError, full_disk_error, status_and_code
from service.jobs.folder_lock import folder_lock
from service.jobs.handlers.registry import HANDLERS, Attempt, Stores, unfinished_folder
from service.jobs.queue import JobQueue
from service.jobs.states import FINISHED, LANES, JobKind, JobState, Lane
from service.jobs.warm_child import OutcomeKind, WarmChild
from service.logs import configure_logging, log_fields
from service.settings import Settings
from service.usecases.registration import delete_abandoned_bundles, delete_unused_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Engine

    from service.db.models import Job
    from service.jobs.handlers.registry import Handler
    from service.jobs.warm_child import ChildOutcome

LOST_JOBS_S = 10.0
"""Seconds between two looks for jobs the queue will not run."""
PROGRESS_S = 0.5
"""Seconds between two writes of the progress within one stage."""
STORE_PAUSE_S = 2.0
"""Seconds before the next attempt after the database or a store failed."""
LONG_NICENESS = 10
"""How far the child of the long lane stands back behind exports, searches and the API."""
_STOP_S = 10.0
_WORK = "work"
_TIMEOUTS = {Lane.SHORT: "job_timeout_s", Lane.LONG: "long_job_timeout_s"}

_log = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    handlers: Mapping[JobKind, Handler] = HANDLERS,
) -> None:
    """Execute jobs, one per lane at a time, until told to stop. Those in progress then go back to the queue.

    Args:
        settings: Where the data lies, and the limits of a job.
        stop: Ends the worker; by default SIGTERM and SIGINT do, which needs the main thread.
        handlers: What to do per kind of job.

    Raises:
        ConflictError: Another worker runs on this data folder.
        StorageError: The folder, the database or the artefact store cannot be used.
    """
    stop = stop or stop_on_signals()
    with folder_lock(settings.data_dir, "worker"):
        upgrade(settings)
        _empty_folder(settings.data_dir / _WORK)  # a worker that was killed left something
        engine = build_engine(settings)
        queue = JobQueue(settings, engine)
        workers = {lane: Worker(settings, engine, lane=lane, stop=stop, handlers=handlers) for lane in Lane}
        try:
            for worker in workers.values():
                worker.rest()
            workers[Lane.LONG].sweep()
            queue.reenqueue_lost()
            queue.start({lane: worker.execute for lane, worker in workers.items()})
            _log.info("worker ready")
            while not stop.wait(LOST_JOBS_S):
                _reenqueue_lost(queue)
            deadline = time.monotonic() + _STOP_S
            for worker in workers.values():
                worker.wait(deadline - time.monotonic())
        finally:
            queue.close()
            for worker in workers.values():
                worker.close()
            engine.dispose()
    _log.info("worker stopped")


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. Only in the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


class Worker:
    """Executes the jobs of one lane, one at a time.

    Args:
        settings: The limits of a job.
        engine: The database, migrated.
        lane: Which jobs.
        stop: When set, the job in progress goes back to the queue.
        handlers: What to do per kind of job.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        lane: Lane,
        stop: threading.Event,
        handlers: Mapping[JobKind, Handler],
    ) -> None:
        # Whole paths, so that `_hide_folders` knows them in messages.
        settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
        self._settings = settings
        self._factory = session_factory(engine)
        artifacts = ArtifactStore(settings.effective_artifacts_url)
        self._stores = Stores(self._factory, artifacts, BundleStore(artifacts, settings.data_dir), settings)
        self._lane = lane
        self._stop = stop
        self._handlers = handlers
        preload = [handler.module for kind, handler in handlers.items() if LANES[kind] is lane]
        self._child = WarmChild(preload) if lane is Lane.SHORT else WarmChild([], niceness=LONG_NICENESS)
        self._busy = threading.Lock()

    def rest(self) -> None:
        """Between jobs: the short lane keeps a child warm, the long one's would hold much memory for a rare job."""
        if self._lane is Lane.SHORT:
            self._child.prepare()
        else:
            self._child.end()

    def sweep(self) -> None:
        """Delete the bundles that killed workers left in the artefact store."""
        with _only_logged():
            delete_abandoned_bundles(self._factory, self._stores.bundles)

    def execute(self, job_id: str) -> None:
        """Bring a job to its end: attempt after attempt while the child crashes, up to the limit of the settings.

        Does nothing for a job that is finished. Waits while the database cannot be used: the queue could not note
        that this call failed, and would take the job for one that is running for ever.
        """
        interruption = ""
        with self._busy, log_fields(job_id=job_id):
            while not self._stop.is_set():
                try:
                    with session_scope(self._factory) as session:
                        job = job_repository.begin_attempt(
                            session,
                            job_id,
                            max_attempts=self._settings.max_attempts,
                            interruption=self._hide_folders(interruption),
                        )
                    if job is None:
                        break
                    with log_fields(attempt=job.attempt):
                        interruption = self._attempt(job)
                except DatabaseError as error:
                    if not is_outage(error):
                        raise
                    interruption = f"the database cannot be used: {reason_of(error)}."
                    _log.error("%s Trying again in %g s", interruption, STORE_PAUSE_S)
                    self._stop.wait(STORE_PAUSE_S)
                if not interruption:
                    break
            self._release(job_id)
            # Warm again before the next job, not with it.
            if not self._stop.is_set():
                self.rest()

    def wait(self, seconds: float) -> None:
        """Wait until the job in progress has gone back to the queue, but not for ever."""
        if self._busy.acquire(timeout=max(0.0, seconds)):
            self._busy.release()

    def close(self) -> None:
        """Kill the child."""
        self._child.close()

    def _attempt(self, job: Job) -> str:
        """Run one attempt and record it; returns what interrupted it, empty when nothing did."""
        attempt = Attempt(job, self._stores, self._settings.data_dir / _WORK / f"{job.job_id}-{job.attempt}")
        try:
            handler = self._handlers[JobKind(job.kind)]
            attempt.folder.mkdir(parents=True)
            return self._record(attempt, handler, self._ask_child(attempt, handler))
        except DatabaseError:
            raise
        except StorageError as error:
            # Away for a moment, perhaps: the next attempt also deletes what this one left.
            _log.exception("files cannot be read or written")
            self._stop.wait(STORE_PAUSE_S)
            return str(error)
        except Exception as raised:  # noqa: BLE001 - the boundary of the job: every error becomes its outcome
            _log.exception("the worker failed to do the job")
            known = (full_disk_error(raised) if isinstance(raised, OSError) else None) or raised
            is_known = isinstance(known, ServiceError)
            message = (
                str(known) if is_known else f"Unexpected {type(raised).__name__}; the worker's log has the details."
            )
            self._finish(job, JobState.FAILED, error={"code": status_and_code(known)[1], "message": message})
            return ""
        finally:
            shutil.rmtree(attempt.folder, ignore_errors=True)

    def _ask_child(self, attempt: Attempt, handler: Handler) -> ChildOutcome:
        job = attempt.job
        request = {
            "job_id": job.job_id,
            "attempt": job.attempt,
            "target": handler.target,
            "payload": handler.fetch(attempt),
            "out_dir": str(attempt.out),
        }
        _log.info("attempt started", extra={"kind": job.kind})
        return self._child.run(
            request,
            on_progress=_ProgressWriter(self, job),
            should_stop=lambda: self._stop.is_set() or self._signal(job) is not Signal.CONTINUE,
            poll_s=self._settings.job_poll_s,
            timeout_s=self._timeout_s,
        )

    def _record(self, attempt: Attempt, handler: Handler, outcome: ChildOutcome) -> str:
        job = attempt.job
        match outcome.kind:
            case OutcomeKind.SUCCEEDED:
                self._publish(attempt, handler, outcome.result)
            case OutcomeKind.FAILED:
                self._finish(job, JobState.FAILED, error=outcome.error)
            case OutcomeKind.TIMED_OUT:
                setting = f"TAILOR_{_TIMEOUTS[self._lane].upper()}"
                message = f"The job took longer than {self._timeout_s:g} s. Raise {setting} or ask for less work."
                self._finish(job, JobState.FAILED, error={"code": "timed_out", "message": message})
            case OutcomeKind.STOPPED:
                # Becomes cancelled where that was asked for, and nothing where another attempt took over.
                self._finish(job, JobState.QUEUED)
            case OutcomeKind.CRASHED:
                _log.warning("the attempt was interrupted: %s", outcome.detail)
                return outcome.detail
        return ""

    def _publish(self, attempt: Attempt, handler: Handler, result: dict[str, Any]) -> None:
        job, stored, replaced = attempt.job, handler.store(attempt, result), None
        try:
            with session_scope(self._factory) as session:
                state = job_repository.finish_attempt(session, job.job_id, job.attempt, state=JobState.SUCCEEDED)
                if state is JobState.SUCCEEDED:
                    replaced = handler.record(session, attempt, stored)
        except ConflictError:
            with _only_logged():
                handler.discard(attempt, stored)
            raise
        _log.info("attempt ended", extra={"state": state or "superseded"})
        with _only_logged():
            if state is not JobState.SUCCEEDED:
                handler.discard(attempt, stored)
            elif replaced is not None:
                delete_unused_bundle(self._factory, self._stores.bundles, replaced)

    def _release(self, job_id: str) -> None:
        """Delete what a finished job alone needed: the folder its attempts share, and maybe its bundle."""
        with _only_logged():
            with session_scope(self._factory, write=False) as session:
                job = repositories.find_job(session, job_id)
            if job is not None and job.state in FINISHED:
                shutil.rmtree(unfinished_folder(self._settings, job_id), ignore_errors=True)
                delete_unused_bundle(self._factory, self._stores.bundles, str(job.payload["bundle_uri"]))

    def _hide_folders(self, message: str) -> str:
        """Where the server keeps its files is nobody's business."""
        if self._settings.images_dir is not None:
            # `Path.resolve` raises for a loop of links, which may be what the message is about.
            message = message.replace(os.path.realpath(self._settings.images_dir), "$TAILOR_IMAGES_DIR")
        return message.replace(str(self._settings.data_dir), "$TAILOR_DATA_DIR")

    def _finish(self, job: Job, state: JobState, *, error: dict[str, Any] | None = None) -> None:
        if error is not None:
            error = {**error, "message": self._hide_folders(error["message"])}
        with session_scope(self._factory) as session:
            found = job_repository.finish_attempt(session, job.job_id, job.attempt, state=state, error=error)
        _log.info("attempt ended", extra={"state": found or "superseded", "error": error})

    @property
    def _timeout_s(self) -> float:
        return float(getattr(self._settings, _TIMEOUTS[self._lane]))

    def _signal(self, job: Job) -> Signal:
        try:
            with session_scope(self._factory, write=False) as session:
                return job_repository.read_signal(session, job.job_id, job.attempt)
        except DatabaseError as error:
            _carry_on(error)
            return Signal.CONTINUE

    def report_progress(self, job: Job, share: float, stage: str) -> None:
        """Write how far an attempt is."""
        try:
            with session_scope(self._factory) as session:
                job_repository.report_progress(session, job.job_id, job.attempt, share=share, stage=stage)
        except DatabaseError as error:
            _carry_on(error)


class _ProgressWriter:
    """Passes on the first report of a stage, and then one every `PROGRESS_S`."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self._worker = worker
        self._job = job
        self._stage: str | None = None
        self._next = 0.0

    def __call__(self, share: float, stage: str) -> None:
        now = time.monotonic()
        if stage != self._stage or now >= self._next:
            self._stage, self._next = stage, now + PROGRESS_S
            self._worker.report_progress(self._job, share, stage)


@contextmanager
def _only_logged() -> Iterator[None]:
    """What cannot be deleted now changes nothing of how the job ended; the sweep of a later start finds it."""
    try:
        yield
    except (ServiceError, DatabaseError):
        _log.exception("what nobody needs any more could not be deleted")


def _carry_on(error: Exception) -> None:
    """Let an attempt outlive a database that is away for a moment: only its end has to be written."""
    if not is_outage(error):
        raise error
    _log.warning("the database cannot be used, the attempt goes on: %s", reason_of(error))


def _empty_folder(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
    except OSError as error:
        raise StorageError(
            f"The folder {folder} cannot be emptied: {error.strerror or error}. Remove it, or choose another data "
            "folder with TAILOR_DATA_DIR or --data-dir."
        ) from error


def _reenqueue_lost(queue: JobQueue) -> None:
    try:
        if lost := queue.reenqueue_lost():
            _log.warning("queued %d lost jobs again", len(lost), extra={"job_ids": lost})
    except DatabaseError:
        _log.exception("the database cannot be used; trying again in %g s", LOST_JOBS_S)


def main() -> int:
    """A worker that lives as long as its supervisor: settings come as JSON on stdin, which then stays open."""
    settings = Settings.model_validate_json(sys.stdin.readline())
    configure_logging()
    stop = stop_on_signals()

    def watch_supervisor() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=watch_supervisor, daemon=True).start()
    try:
        run_worker(settings, stop=stop)
    except ServiceError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
