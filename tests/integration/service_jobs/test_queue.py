"""The hand-over: in the caller's transaction, as JSON, found again when lost."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from sqlalchemy import func, select, text
from sqlalchemy import table as sa_table

from service.db.engine import session_scope
from service.jobs.queue import APPLICATION_VERSION, add_subsec
from service.jobs.states import JobKind, JobState


def count(service, table):
    with session_scope(service.factory, write=False) as session:
        return session.execute(select(func.count()).select_from(sa_table(table))).scalar_one()


def workflows(service):
    with session_scope(service.factory, write=False) as session:
        return session.execute(text("SELECT * FROM workflow_status")).mappings().all()


def test_a_rolled_back_enqueue_leaves_neither_row_nor_hand_over(service):
    def insert_and_raise():
        with session_scope(service.factory) as session:
            service.insert(session, "d")
            assert session.execute(text("SELECT count(*) FROM workflow_status")).scalar_one() == 1
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        insert_and_raise()
    assert [count(service, table) for table in ("jobs", "deployments", "workflow_status")] == [0, 0, 0]


def test_a_committed_enqueue_leaves_both(service):
    job_id = service.enqueue("d")
    job, (workflow,) = service.job(job_id), workflows(service)
    assert (job.state, job.attempt, job.payload["deployment_id"]) == (JobState.QUEUED, 0, "d")
    assert workflow["status"] == "ENQUEUED"
    assert workflow["application_version"] == APPLICATION_VERSION


def test_what_is_stored_is_json_and_no_pickle(service):
    job_id = service.enqueue("d")
    with session_scope(service.factory, write=False) as session:
        (stored,) = session.execute(text("SELECT inputs FROM workflow_input")).scalars()
    assert json.loads(stored) == {"namedArgs": {}, "positionalArgs": [job_id]}
    assert workflows(service)[0]["serialization"] == "portable_json"


def test_a_payload_of_another_kind_is_refused(service):
    from pydantic import BaseModel

    class Other(BaseModel):
        pass

    with session_scope(service.factory) as session, pytest.raises(TypeError, match="carries ExportPayload, got Other"):
        service.queue.enqueue(session, JobKind.EXPORT_SUBNET, Other())


def test_only_lost_jobs_are_queued_again(service):
    lost, _waiting, cancelled = (service.enqueue(name) for name in ("lost", "waiting", "cancelled"))
    service.cancel(cancelled)
    assert service.queue.reenqueue_lost() == []
    with session_scope(service.factory) as session:
        session.execute(
            text("UPDATE workflow_status SET status = 'ERROR' WHERE workflow_uuid LIKE :id"), {"id": f"{lost}%"}
        )
    assert service.queue.reenqueue_lost() == [lost]
    assert service.queue.reenqueue_lost() == []


def test_importing_the_queue_imports_no_torch():
    code = (
        "import sys, service.jobs.queue, service.jobs.worker, service.db.migrate; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_old_sqlite_is_taught_the_time_the_queue_asks_for():
    with closing(sqlite3.connect(":memory:")) as connection:
        add_subsec(connection)
        # As the queue library declares it from Python 3.12 on; SQLite before 3.42 takes NULL for it.
        connection.execute("CREATE TABLE t (n, at INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))")
        connection.execute("INSERT INTO t (n) VALUES (1)")
        (at,) = connection.execute("SELECT at FROM t").fetchone()
    assert abs(at / 1000 - time.time()) < 60
