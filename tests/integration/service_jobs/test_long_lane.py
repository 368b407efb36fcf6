"""The long lane beside the short one: populations and predictors, with a real worker and real children."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from sqlalchemy import text

from service.bundles import BundleStore
from service.db.engine import session_scope
from service.db.models import Supernet
from service.errors import StorageError
from service.jobs.child import run_request
from service.jobs.handlers import registry
from service.jobs.handlers.registry import HANDLERS
from service.jobs.states import JobKind, JobState, Lane, PredictorPayload
from service.jobs.warm_child import ChildOutcome, OutcomeKind
from service.jobs.worker import LONG_NICENESS, Worker
from service.usecases.registration import register_bundle
from supernet.bundle import write_manifest
from supernet.spaces.arch_csv import arch_columns, write_arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

SPACE = load_space("cifar_mbv3").with_classes(2)
TRAINING = {"method": "ours", "predictor": {"archs": 250, "images": 500}}


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
    assert service.store.read_bytes(population.artifact_key) == f"niceness {niceness}, starts 1;".encode()
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
    # It went on where the first attempt was, and nothing of that stays.
    assert service.store.read_bytes(f"populations/{job_id}/2/population.csv").endswith(b"starts 1;2;")
    service.until(lambda: not list((service.settings.data_dir / "unfinished").iterdir()), what="an empty folder")


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


def register(service, stores, tmp_path, space, *, name) -> Supernet:
    """A supernet without predictor."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "weights.safetensors").write_text("weights")
    bundle = write_manifest(
        folder,
        name=name,
        space=space,
        classes=("cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training=TRAINING,
        versions={},
    )
    return register_bundle(service.factory, stores, bundle)[0]


@pytest.fixture
def mine(service, stores, tmp_path) -> Supernet:
    return register(service, stores, tmp_path, SPACE, name="mine")


def store_population(service, population_id, space, rows) -> None:
    """A CSV of made-up accuracies."""
    rng = np.random.default_rng(0)
    lines = [",".join([*arch_columns(space), "correct", "images", "top1_percent"])]
    for arch in space.from_rows(rows):
        lines.append(",".join([*write_arch(space, arch).values(), str(rng.integers(500, 900)), "1000", "0"]))
    service.store.put_bytes(f"populations/{population_id}/1/population.csv", "\n".join(lines).encode())


@pytest.fixture
def order(service, mine):
    """Enqueue a predictor of the supernet, fitted on made-up accuracies."""
    for population_id, seed in (("p", 0), ("q", 1)):
        store_population(service, population_id, SPACE, SPACE.sample_rows(np.random.default_rng(seed), 24))

    def enqueue(target_id: str = "mine", *, population: str = "p", bundle_sha256: str = mine.bundle_sha256) -> str:
        payload = PredictorPayload(
            supernet_id="mine",
            bundle_uri=mine.bundle_uri,
            bundle_sha256=bundle_sha256,
            populations={population: f"populations/{population}/1/population.csv"},
            target_id=target_id,
        )
        with session_scope(service.factory) as session:
            return service.queue.enqueue(session, JobKind.FIT_PREDICTOR, payload).job_id

    return enqueue


class InlineChild:
    """In place of a child process: works in this one, and lets something happen before the result is there."""

    def __init__(self, before):
        self.before = before
        self.rests = 0

    def run(self, request, **_):
        last = run_request(request, lambda _answer: None)
        self.before()
        if "error" in last:
            return ChildOutcome(OutcomeKind.FAILED, error=last["error"])
        return ChildOutcome(OutcomeKind.SUCCEEDED, result=last["result"])

    def prepare(self):
        self.rests += 1

    end = close = prepare


@pytest.fixture
def execute(service):
    """Do a job in this process."""

    def run(job_id: str, *, before=lambda: None):
        worker = Worker(service.settings, service.engine, lane=Lane.LONG, stop=threading.Event(), handlers=HANDLERS)
        worker._child = InlineChild(before)
        worker.execute(job_id)
        assert worker._child.rests == 1
        return service.job(job_id)

    return run


@pytest.fixture
def kept_bundles(service):
    """Hashes of the bundles whose files are in the artefact store."""
    return lambda: {key.split("/")[1] for key in service.store.list_keys("bundles")}


def supernet(service, supernet_id="mine") -> Supernet:
    with session_scope(service.factory, write=False) as session:
        return session.get_one(Supernet, supernet_id)


def test_a_predictor_takes_the_place_of_the_old_one_and_becomes_a_new_supernet(
    service, order, mine, stores, execute, kept_bundles
):
    jobs = [order("copy"), order(), order()]
    assert [execute(job_id).error for job_id in jobs] == [None] * 3
    found = supernet(service)
    assert found.bundle_sha256 != mine.bundle_sha256
    assert found.manifest["predictor"]["quality"]["n_archs"] == 24
    copy = supernet(service, "copy")
    assert (found.manifest["name"], copy.manifest["name"]) == ("mine", "copy")
    # Nobody needs the old files any more, and the new ones lie where they are opened.
    assert kept_bundles() == {found.bundle_sha256, copy.bundle_sha256}
    service.store.delete_prefix("bundles")
    bundle = stores.open(found.bundle_uri)
    assert bundle.weights_path.read_text() == "weights"


def test_a_supernet_replaced_meanwhile_keeps_its_bundle(service, order, mine, execute, kept_bundles):
    def replace():
        with session_scope(service.factory) as session:
            row = session.get_one(Supernet, "mine")
            row.manifest = {**row.manifest, "parts": {"weights": {"sha256": "other"}}}

    job = execute(order(), before=replace)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "conflict")
    assert supernet(service).bundle_uri == mine.bundle_uri
    assert kept_bundles() == {mine.bundle_sha256}


def test_a_cancelled_predictor_leaves_no_bundle(service, order, mine, execute, kept_bundles):
    job_id = order("copy")
    assert execute(job_id, before=lambda: service.cancel(job_id)).state == JobState.CANCELLED
    assert kept_bundles() == {mine.bundle_sha256}


def test_an_attempt_that_ends_between_files_and_row_is_repeated(
    service, order, mine, execute, kept_bundles, monkeypatch
):
    record, tries = registry.record_predictor, []

    def fail_first(*args, **kwargs):
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("as if killed here")
        return record(*args, **kwargs)

    monkeypatch.setattr(registry, "record_predictor", fail_first)
    job_id = order()
    monkeypatch.setattr(Worker, "_finish", lambda *_, **__: None)  # a killed worker writes no end
    assert execute(job_id).state == JobState.RUNNING
    assert supernet(service).bundle_uri == mine.bundle_uri
    monkeypatch.undo()
    monkeypatch.setattr(registry, "record_predictor", record)
    job = execute(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert kept_bundles() == {supernet(service).bundle_sha256}


def test_files_an_unfinished_export_needs_stay_until_it_ends(service, order, mine, execute, kept_bundles):
    with session_scope(service.factory) as session:
        export = service.insert(session, "d", bundle_uri=mine.bundle_uri)
    assert execute(order()).state == JobState.SUCCEEDED
    fitted = supernet(service).bundle_sha256
    assert kept_bundles() == {mine.bundle_sha256, fitted}
    assert execute(export).state == JobState.FAILED  # its arch is none
    assert kept_bundles() == {fitted}


def test_files_a_cancelled_export_needed_go_with_it(service, order, mine, execute, kept_bundles):
    with session_scope(service.factory) as session:
        export = service.insert(session, "d", bundle_uri=mine.bundle_uri)
    assert execute(order()).state == JobState.SUCCEEDED
    service.cancel(export)
    execute(export)  # the queue hands it over all the same
    assert kept_bundles() == {supernet(service).bundle_sha256}


def test_of_two_predictors_ordered_at_once_the_later_one_stays_alone(service, order, execute, kept_bundles):
    jobs = [order(), order(population="q")]
    assert [execute(job_id).state for job_id in jobs] == [JobState.SUCCEEDED] * 2
    assert kept_bundles() == {supernet(service).bundle_sha256}


def test_a_bundle_that_cannot_be_deleted_is_no_failure(service, order, mine, execute, kept_bundles, monkeypatch):
    def fail(*_):
        raise StorageError("away")

    monkeypatch.setattr(BundleStore, "delete", fail)
    job = execute(order())
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    assert len(kept_bundles()) == 2


def test_a_starting_worker_deletes_bundles_that_nobody_has_for_a_day(service, order, mine, kept_bundles):
    def put(sha256: str, *, age_s: float) -> None:
        service.store.put_bytes(f"bundles/{sha256}/manifest.json", b"{}")
        path = service.settings.data_dir / "artifacts" / "bundles" / sha256 / "manifest.json"
        os.utime(path, (time.time() - age_s,) * 2)

    day = 24 * 3600
    put("a" * 64, age_s=2 * day)
    put("b" * 64, age_s=day / 2)
    used = service.settings.data_dir / "artifacts" / "bundles" / mine.bundle_sha256
    for path in used.iterdir():
        os.utime(path, (time.time() - 2 * day,) * 2)
    service.start_worker()
    service.until(lambda: "worker ready" in service.log(), what="the worker")
    assert kept_bundles() == {mine.bundle_sha256, "b" * 64}


def test_a_fitted_bundle_says_where_its_predictor_comes_from(service, order, execute):
    with session_scope(service.factory) as session:
        row = session.get_one(Supernet, "mine")
        assert row.manifest["training"] == TRAINING
    assert execute(order()).state == JobState.SUCCEEDED
    assert supernet(service).manifest["training"] == {
        "method": "ours",
        "predictor": {"archs": 24, "images": 1000, "populations": ["p"]},
    }


def test_of_a_space_of_few_archs_nothing_is_predicted(service, order, stores, execute, tmp_path):
    tiny = SearchSpace(
        "tiny",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(BlockKind.INVERTED, widths=(8,), kernel_sizes=(3, 5), expand_ratios=(2,), stride=2),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(2,), norm=False, bias=True),
        ),
        resolutions=(12, 16),
    )
    row = register(service, stores, tmp_path, tiny, name="tiny")
    store_population(service, "t", tiny, np.unique(tiny.sample_rows(np.random.default_rng(0), 100), axis=0))
    payload = PredictorPayload(
        supernet_id="tiny",
        bundle_uri=row.bundle_uri,
        bundle_sha256=row.bundle_sha256,
        # One was evaluated twice.
        populations={"t": "populations/t/1/population.csv", "again": "populations/t/1/population.csv"},
        target_id="tiny",
    )
    with session_scope(service.factory) as session:
        job_id = service.queue.enqueue(session, JobKind.FIT_PREDICTOR, payload).job_id
    assert execute(job_id).error is None
    found = supernet(service, "tiny")
    assert found.manifest["predictor"] == {"quality": None, "resolutions": [12, 16]}
    assert found.manifest["training"]["predictor"]["archs"] == 4


def test_a_bundle_that_changed_since_the_order_is_named(execute, order):
    job = execute(order(bundle_sha256="0" * 64))
    assert (job.state, job.error["code"]) == (JobState.FAILED, "bundle_changed")


def test_a_failed_job_tells_no_path_of_the_server(service, order, execute, monkeypatch):
    data, images = service.settings.data_dir.resolve(), service.settings.images_dir.resolve()

    def fail(*_args, **_more):
        error = {"code": "invalid_dataset", "message": f"'{images}/mine/1.png' and '{data}/unfinished/x' are broken."}
        return ChildOutcome(OutcomeKind.FAILED, error=error)

    monkeypatch.setattr(InlineChild, "run", fail)
    message = execute(order()).error["message"]
    assert message == "'$TAILOR_IMAGES_DIR/mine/1.png' and '$TAILOR_DATA_DIR/unfinished/x' are broken."

    def crash(*_args, **_more):
        return ChildOutcome(OutcomeKind.CRASHED, detail=f"'{data}/work' is gone.")

    monkeypatch.setattr(InlineChild, "run", crash)
    assert "'$TAILOR_DATA_DIR/work' is gone." in execute(order()).error["message"]
