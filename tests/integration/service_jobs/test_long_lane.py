"""The long lane beside the short one: populations and predictors, with a real worker and real children."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from service.bundles import BundleStore
from service.db.engine import session_scope
from service.db.models import Supernet
from service.jobs.handlers import registry
from service.jobs.handlers.registry import HANDLERS
from service.jobs.states import JobKind, JobState, Lane, PredictorPayload
from service.jobs.warm_child import ChildOutcome, OutcomeKind
from service.jobs.worker import LONG_NICENESS, Worker
from service.usecases.registration import register_bundle
from supernet.bundle import write_manifest
from supernet.spaces.arch_csv import arch_columns, write_arch
from supernet.spaces.presets import load_space

SPACE = load_space("cifar_mbv3").with_classes(2)


def test_a_long_job_holds_up_no_export_and_long_jobs_wait_for_each_other(service):
    long, behind = service.enqueue_population("wait"), service.enqueue_population("succeed")
    service.start_worker()
    service.at_stage(long, "waiting")
    exports = [service.enqueue("a"), service.enqueue("b")]
    assert {service.finished(job_id).state for job_id in exports} == {JobState.SUCCEEDED}
    assert (service.job(long).state, service.job(behind).state) == (JobState.RUNNING, JobState.QUEUED)
    (service.folder / "go").touch()
    assert service.finished(behind).state == JobState.SUCCEEDED
    population = service.population(long)
    assert population.artifact_key == f"populations/{long}/1/population.csv"
    assert population.summary["best_top1"] == 0.75
    # It stands back, and leaves nothing in memory.
    niceness = min(19, os.nice(0) + LONG_NICENESS)
    assert service.store.read_bytes(population.artifact_key) == f"niceness {niceness}, start 1".encode()
    first, *_, last = service.lines("child_pids")
    service.until(lambda: not service.alive(int(first)) and not service.alive(int(last)), what="the end of the child")


def test_a_population_killed_with_its_worker_is_finished_once(service):
    job_id = service.enqueue_population("hang", "succeed")
    first = service.start_worker()
    service.at_stage(job_id, "hanging")
    (child,) = map(int, service.lines("child_pids"))
    first.send_signal(signal.SIGKILL)
    first.wait()
    service.until(lambda: not service.alive(child), timeout_s=10, what="the end of the orphaned child")
    assert service.store.list_keys("populations") == []
    assert service.population(job_id).artifact_key is None

    service.start_worker()
    job = service.finished(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert service.lines("starts") == ["hang.succeed"] * 2
    assert service.store.list_keys("populations") == [f"populations/{job_id}/2/population.csv"]


def test_long_jobs_are_cancelled_timed_out_and_found_again(service):
    running, slow, lost = (service.enqueue_population(*steps) for steps in (("hang", "x"), ("hang",), ("succeed",)))
    with session_scope(service.factory) as session:
        session.execute(
            text("UPDATE workflow_status SET status = 'ERROR' WHERE workflow_uuid LIKE :id"), {"id": f"{lost}%"}
        )
    service.start_worker(long_job_timeout_s=6, job_timeout_s=0.001)
    service.at_stage(running, "hanging")
    assert service.cancel(running).state == JobState.RUNNING
    assert service.finished(running).state == JobState.CANCELLED
    job = service.finished(slow)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "timed_out")
    assert "longer than 6 s. Raise TAILOR_LONG_JOB_TIMEOUT_S" in job.error["message"]
    assert service.finished(lost).state == JobState.SUCCEEDED
    assert [key.split("/")[1] for key in service.store.list_keys("populations")] == [lost]


def test_images_that_went_away_are_named(service):
    job_id = service.enqueue_population("gone")
    (service.folder / "images" / "gone").rmdir()
    service.start_worker()
    job = service.finished(job_id)
    assert (job.state, job.attempt, job.error["code"]) == (JobState.FAILED, 1, "unknown_images")


# ---------------------------------------------------------------------------- predictors


@pytest.fixture
def stores(service):
    return BundleStore(service.store, service.settings.data_dir)


@pytest.fixture
def mine(service, stores, tmp_path) -> Supernet:
    """A registered supernet without predictor."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "weights.safetensors").write_text("weights")
    bundle = write_manifest(
        folder,
        name="mine",
        space=SPACE,
        classes=("cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training={},
        versions={},
    )
    return register_bundle(service.factory, stores, bundle)[0]


@pytest.fixture
def order(service, mine):
    """Enqueue a predictor of the supernet, fitted on made-up accuracies."""
    rng = np.random.default_rng(0)
    lines = [",".join([*arch_columns(SPACE), "correct", "images", "top1_percent"])]
    for arch in SPACE.from_rows(SPACE.sample_rows(rng, 24)):
        lines.append(",".join([*write_arch(SPACE, arch).values(), str(rng.integers(500, 900)), "1000", "0"]))
    service.store.put_bytes("populations/p/1/population.csv", "\n".join(lines).encode())

    def enqueue(target_id: str = "mine") -> str:
        payload = PredictorPayload(
            supernet_id="mine",
            bundle_uri=mine.bundle_uri,
            populations=["populations/p/1/population.csv"],
            target_id=target_id,
        )
        with session_scope(service.factory) as session:
            return service.queue.enqueue(session, JobKind.FIT_PREDICTOR, payload).job_id

    return enqueue


class FittedChild:
    """In place of a child process: fits in this one, and lets something happen before the result is there."""

    def __init__(self, before):
        self.before = before

    def run(self, request, **_):
        from service.jobs.handlers.fit_predictor import run

        result = run(request["payload"], Path(request["out_dir"]), lambda _share, _stage: None)
        self.before()
        return ChildOutcome(OutcomeKind.SUCCEEDED, result=result)

    def end(self):
        pass

    close = end


@pytest.fixture
def execute(service):
    """Do a job in this process."""

    def run(job_id: str, *, before=lambda: None):
        worker = Worker(service.settings, service.engine, lane=Lane.LONG, stop=threading.Event(), handlers=HANDLERS)
        worker._child = FittedChild(before)
        worker.execute(job_id)
        return service.job(job_id)

    return run


def supernet(service, supernet_id="mine") -> Supernet:
    with session_scope(service.factory, write=False) as session:
        return session.get_one(Supernet, supernet_id)


def test_a_predictor_takes_the_place_of_the_old_one_and_becomes_a_new_supernet(service, order, mine, stores, execute):
    jobs = [order("copy"), order(), order()]
    assert [execute(job_id).error for job_id in jobs] == [None] * 3
    found = supernet(service)
    assert found.bundle_sha256 != mine.bundle_sha256
    assert found.manifest["predictor"]["quality"]["n_archs"] == 24
    assert supernet(service, "copy").bundle_uri == found.bundle_uri  # the same populations, the same bundle
    bundle = stores.open(found.bundle_uri)
    assert bundle.weights_path.read_text() == "weights"
    # Nobody needs the old files any more.
    assert {key.split("/")[1] for key in service.store.list_keys("bundles")} == {found.bundle_sha256}


def test_a_supernet_replaced_meanwhile_keeps_its_bundle(service, order, mine, execute):
    def replace():
        with session_scope(service.factory) as session:
            row = session.get_one(Supernet, "mine")
            row.manifest = {**row.manifest, "parts": {"weights": {"sha256": "other"}}}

    job = execute(order(), before=replace)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "conflict")
    assert supernet(service).bundle_uri == mine.bundle_uri
    assert {key.split("/")[1] for key in service.store.list_keys("bundles")} == {mine.bundle_sha256}


def test_a_cancelled_predictor_leaves_no_bundle(service, order, mine, execute):
    job_id = order("copy")
    assert execute(job_id, before=lambda: service.cancel(job_id)).state == JobState.CANCELLED
    assert {key.split("/")[1] for key in service.store.list_keys("bundles")} == {mine.bundle_sha256}


def test_an_attempt_that_ends_between_files_and_row_is_repeated(service, order, mine, execute, monkeypatch):
    record, tries = registry.record_predictor, []

    def fail_first(*args, **kwargs):
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("as if killed here")
        record(*args, **kwargs)

    monkeypatch.setattr(registry, "record_predictor", fail_first)
    job_id = order()
    monkeypatch.setattr(Worker, "_finish", lambda *_, **__: None)  # a killed worker writes no end
    assert execute(job_id).state == JobState.RUNNING
    assert supernet(service).bundle_uri == mine.bundle_uri
    monkeypatch.undo()
    monkeypatch.setattr(registry, "record_predictor", record)
    job = execute(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert {key.split("/")[1] for key in service.store.list_keys("bundles")} == {supernet(service).bundle_sha256}


def test_files_an_unfinished_export_needs_stay(service, order, mine, execute, stores):
    with session_scope(service.factory) as session:
        service.insert(session, "d", bundle_uri=mine.bundle_uri)
    assert execute(order()).state == JobState.SUCCEEDED
    assert stores.open(mine.bundle_uri).sha256 == mine.bundle_sha256
