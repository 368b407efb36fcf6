"""A real worker, real children, SQLite: what is killed, cancelled or broken ends as it should."""

from __future__ import annotations

import json
import resource
import signal
import time

import pytest
from sqlalchemy import text

from service.bundles import BundleStore
from service.db.engine import session_scope
from service.jobs.states import JobState
from supernet.bundle import write_manifest
from supernet.spaces.presets import load_space

KEYS = ["manifest.json", "model.onnx"]


def published(service, deployment_id):
    deployment = service.deployment(deployment_id)
    return deployment.artifact_prefix, deployment.manifest


def test_a_job_killed_with_its_worker_finishes_once_after_the_restart(service):
    job_id = service.enqueue("d", "hang", "succeed")
    first = service.start_worker()
    service.at_stage(job_id, "hanging")
    (child,) = map(int, service.lines("child_pids"))
    assert service.alive(child)

    first.send_signal(signal.SIGKILL)
    first.wait()
    service.until(lambda: not service.alive(child), timeout_s=10, what="the end of the orphaned child")
    assert service.job(job_id).state == JobState.RUNNING
    assert service.store.list_keys("deployments") == []
    assert published(service, "d") == (None, None)

    service.start_worker()
    job = service.finished(job_id)
    assert (job.state, job.attempt, job.error, job.progress) == (JobState.SUCCEEDED, 2, None, 1.0)
    assert service.lines("starts") == ["d", "d"]
    assert published(service, "d") == ("deployments/d/2", {"start": 2})
    assert service.store.list_keys("deployments") == [f"deployments/d/2/{name}" for name in KEYS]
    assert service.store.read_bytes("deployments/d/2/model.onnx") == b"model of start 2"
    service.until(lambda: not list((service.settings.data_dir / "work").iterdir()), what="an empty work folder")
    assert '"superseded"' not in service.log(1)


def test_jobs_end_as_their_work_does(service):
    jobs = {
        "good": service.enqueue("good"),
        "library": service.enqueue("library", "infeasible"),
        "unknown": service.enqueue("unknown", "unknown"),
        "full": service.enqueue("full", "disk_full"),
        "crash": service.enqueue("crash", "exit"),
        "recovers": service.enqueue("recovers", "exit", "succeed"),
        "flood": service.enqueue("flood", "flood"),
    }
    worker = service.start_worker()
    ends = {name: service.finished(job_id) for name, job_id in jobs.items()}

    assert (ends["good"].state, ends["good"].attempt) == (JobState.SUCCEEDED, 1)
    assert published(service, "good") == ("deployments/good/1", {"start": 1})

    assert ends["library"].error == {"code": "invalid_arch", "message": "Depth 9 is not on offer."}
    assert ends["library"].attempt == 1

    error = ends["unknown"].error
    assert error["code"] == "internal_error"
    assert jobs["unknown"] in error["message"]
    assert "secret detail" not in json.dumps(error)
    records = [json.loads(line) for line in service.log().splitlines() if line != "libraries print to stdout"]
    assert any(
        "secret detail" in record.get("traceback", "") and record["job_id"] == jobs["unknown"] for record in records
    )

    assert (ends["full"].state, ends["full"].attempt) == (JobState.FAILED, 1)
    assert ends["full"].error["code"] == "storage_unavailable"
    assert "No space left on device. Free some space" in ends["full"].error["message"]

    assert (ends["crash"].state, ends["crash"].attempt) == (JobState.FAILED, 3)
    assert ends["crash"].error["code"] == "attempts_exhausted"
    assert "exit code 7" in ends["crash"].error["message"]
    assert service.lines("starts").count("crash") == 3

    assert (ends["recovers"].state, ends["recovers"].attempt) == (JobState.SUCCEEDED, 2)
    assert published(service, "recovers") == ("deployments/recovers/2", {"start": 2})
    assert ends["flood"].state == JobState.SUCCEEDED

    for name in ("library", "unknown", "full", "crash"):
        assert published(service, name) == (None, None)
    whole = {"good/1", "recovers/2", "flood/1"}
    expected = sorted(f"deployments/{folder}/{name}" for folder in whole for name in KEYS)
    assert service.store.list_keys("deployments") == expected

    # One child did all but what followed a crash.
    assert len(set(service.lines("child_pids"))) == 5

    # The queue's own rows hold JSON, from both sides.
    with session_scope(service.factory, write=False) as session:
        rows = session.execute(text("SELECT serialization, executor_id, output FROM workflow_status")).all()
    assert {tuple(row[:2]) for row in rows} == {("portable_json", "tailor-worker")}
    assert {json.loads(row.output) for row in rows if row.output is not None} <= {None}

    # A signal ends the worker in good order, and its child too.
    worker.terminate()
    assert worker.wait(40) == 0
    assert not any(service.alive(int(pid)) for pid in service.lines("child_pids"))


def test_queued_and_running_jobs_can_be_cancelled(service):
    queued = service.enqueue("queued")
    assert service.cancel(queued).state == JobState.CANCELLED
    running = service.enqueue("running", "hang_with_helper")
    after = service.enqueue("after")
    service.start_worker()
    assert service.at_stage(running, "hanging").progress == 0.5
    processes = [int(pid) for pid in service.lines("child_pids")]
    assert service.cancel(running).state == JobState.RUNNING
    service.until(
        lambda: not any(map(service.alive, processes)), timeout_s=10, what="the end of the child and what it started"
    )
    job = service.finished(running)
    assert (job.state, job.error, job.attempt) == (JobState.CANCELLED, None, 1)
    assert service.finished(after).state == JobState.SUCCEEDED
    assert service.lines("starts") == ["running", "after"]
    assert published(service, "running") == (None, None)


def test_an_attempt_that_takes_too_long_is_killed_and_fails(service):
    job_id = service.enqueue("slow", "hang")
    service.start_worker(job_timeout_s=0.7)
    job = service.finished(job_id)
    assert (job.state, job.attempt, job.error["code"]) == (JobState.FAILED, 1, "timed_out")
    assert "TAILOR_JOB_TIMEOUT_S" in job.error["message"]
    assert not any(service.alive(int(pid)) for pid in service.lines("child_pids"))


def test_a_superseded_attempt_is_stopped_and_leaves_nothing(service):
    job_id = service.enqueue("d", "hang", "succeed")
    service.start_worker()
    service.at_stage(job_id, "hanging")
    with session_scope(service.factory) as session:
        session.execute(text("UPDATE jobs SET attempt = 2"))  # as another worker would
    service.until(lambda: '"superseded"' in service.log(), what="the worker's notice")
    job = service.job(job_id)
    assert (job.state, job.attempt, job.finished_at) == (JobState.RUNNING, 2, None)
    assert published(service, "d") == (None, None)


def test_a_second_worker_is_refused_until_the_first_stops_and_gives_its_job_back(service):
    job_id = service.enqueue("d", "hang", "succeed")
    first = service.start_worker()
    service.at_stage(job_id, "hanging")
    second = service.start_worker()
    assert second.wait(40) != 0
    assert "Another worker is running on the data folder" in service.log(1)
    assert str(service.settings.data_dir) in service.log(1)
    assert service.job(job_id).attempt == 1

    first.terminate()
    assert first.wait(40) == 0
    assert (service.job(job_id).state, service.job(job_id).given_back) == (JobState.QUEUED, 1)
    assert not any(service.alive(int(pid)) for pid in service.lines("child_pids"))
    service.start_worker()
    assert (service.finished(job_id).state, service.job(job_id).attempt) == (JobState.SUCCEEDED, 2)


def test_jobs_the_queue_forgot_are_found_again(service):
    changes = {
        "version": "UPDATE workflow_status SET application_version = 'old' WHERE workflow_uuid LIKE :id",
        "error": "UPDATE workflow_status SET status = 'ERROR' WHERE workflow_uuid LIKE :id",
        "deleted": "DELETE FROM workflow_status WHERE workflow_uuid LIKE :id",
    }
    jobs = {name: service.enqueue(name) for name in changes}
    with session_scope(service.factory) as session:
        for name, change in changes.items():
            session.execute(text(change), {"id": f"{jobs[name]}%"})
    service.start_worker()
    assert {service.finished(job_id).state for job_id in jobs.values()} == {JobState.SUCCEEDED}
    assert sorted(service.lines("starts")) == sorted(changes)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux to make every write of a process fail")
def test_a_job_outlives_a_disk_that_takes_no_writes(service):
    job_id = service.enqueue("d", "wait", "succeed")
    after = service.enqueue("after")
    worker = service.start_worker()
    service.at_stage(job_id, "waiting")
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    (service.folder / "go").touch()
    time.sleep(1.5)  # the attempt ends, and its end cannot be written
    assert service.job(job_id).state == JobState.RUNNING
    assert published(service, "d") == (None, None)
    assert worker.poll() is None

    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (soft, hard))
    assert service.finished(job_id).state == JobState.SUCCEEDED
    assert service.job(job_id).attempt <= 3
    assert service.finished(after).state == JobState.SUCCEEDED
    attempt = service.job(job_id).attempt
    assert service.store.list_keys("deployments/d") == [f"deployments/d/{attempt}/{name}" for name in KEYS]


def test_a_work_folder_that_cannot_be_emptied_is_named(service):
    (service.settings.data_dir / "work").write_text("in the way")
    worker = service.start_worker()
    assert worker.wait(40) != 0
    assert "cannot be emptied" in service.log()


def test_the_worker_fetches_a_registered_bundle_for_its_child(service, tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "weights.safetensors").write_text("weights")
    bundle = write_manifest(
        folder,
        name="s",
        space=load_space("cifar_mbv3").with_classes(2),
        classes=("cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training={},
        versions={},
    )
    uri = BundleStore(service.store, tmp_path / "elsewhere").save(bundle)
    found = service.enqueue("found", "read_bundle", bundle_uri=uri)
    lost = service.enqueue("lost", "read_bundle", bundle_uri=f"artifact:bundles/{'0' * 64}")
    service.start_worker()
    assert service.finished(found).state == JobState.SUCCEEDED
    assert published(service, "found") == ("deployments/found/1", {"place": "folder", "weights": "weights"})
    job = service.finished(lost)
    assert (job.state, job.attempt, job.error["code"]) == (JobState.FAILED, 1, "bundle_unavailable")
    assert service.lines("starts") == ["found"]
