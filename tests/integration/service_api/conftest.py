"""An application over a migrated database, a bundle with a fitted predictor and a table that covers its space."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from latency_tables.device import DeviceProfile
from latency_tables.table import LatencyStats, LatencyTable
from service.api.deps import Services
from service.app import create_app
from service.db import job_repository
from service.db.engine import build_engine, session_factory, session_scope
from service.db.migrate import upgrade
from service.db.models import Base
from service.jobs.handlers.registry import HANDLERS, Attempt, Stores
from service.jobs.states import JobKind, JobState
from service.settings import Settings
from service.usecases.latency_tables import register_table
from service.usecases.shipped import register_shipped
from supernet import bundle as bundle_module
from supernet.bundle import write_manifest
from supernet.predictors.accuracy import AccuracyPredictor
from supernet.spaces.costs import macs_cost
from supernet.spaces.presets import load_space

SPACE = "cifar_mbv3"
DEVICE = "bench-1t"
TableMaker = Callable[..., LatencyTable]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shipped bundles: complete, without weights, without predictor."""
    folder = tmp_path_factory.mktemp("bundles")
    space = load_space(SPACE)
    rng = np.random.default_rng(5)
    rows = space.sample_rows(rng, 60)
    top1 = 0.75 + 0.03 * np.log(macs_cost(space)(rows) / 1e6)
    predictor = AccuracyPredictor.fit(space, rows, top1=top1, n_images=5000, rng=rng)
    for name, parts in (
        ("cifar_mbv3", ("weights", "predictor", "calibration")),
        ("search_only", ("predictor",)),
        ("weights_only", ("weights", "calibration")),
    ):
        path = folder / name
        path.mkdir()
        for part in parts:
            if part == "predictor":
                predictor.save(path / "predictor.safetensors")
            else:
                # The API hashes these parts and never reads them.
                (path / f"{part}.safetensors").write_bytes(part.encode())
        write_manifest(
            path,
            name=name,
            space=space,
            classes=tuple(f"class {index}" for index in range(space.classes)),
            normalisation=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            training={"method": "progressive_shrinking"},
            versions={"tailor": "0.1.0"},
        )
    return folder


@pytest.fixture(scope="session")
def shipped(bundles: Path) -> Iterator[None]:
    """The bundles above and no table come with the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_module, "_SHIPPED", bundles)
        patch.setattr("service.usecases.shipped.shipped_tables", lambda: iter(()))
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, shipped: None) -> Path:
    """A data folder as a service that was just started has it: made once, copied by every test."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("prepared"))
    upgrade(settings)
    engine = build_engine(settings)
    with session_scope(session_factory(engine)) as session:
        register_shipped(session)
    engine.dispose()
    return settings.data_dir


@pytest.fixture(scope="session")
def prepared_with_table(tmp_path_factory: pytest.TempPathFactory, prepared: Path, make_table: TableMaker) -> Path:
    """The same, after a table was registered."""
    folder = tmp_path_factory.mktemp("with_table") / "data"
    shutil.copytree(prepared, folder)
    engine = build_engine(Settings(data_dir=folder))
    with session_scope(session_factory(engine)) as session:
        register_table(session, make_table())
    engine.dispose()
    return folder


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    data_dir = tmp_path / "data"
    # Checking and storing the table takes longer than most tests.
    source = "prepared_with_table" if "with_table" in request.fixturenames else "prepared"
    shutil.copytree(request.getfixturevalue(source), data_dir)
    return Settings(data_dir=data_dir, max_body_bytes=300_000, search_evaluations=500)


@pytest.fixture
def app(settings: Settings, shipped: None) -> Iterator[FastAPI]:
    app = create_app(settings)
    yield app
    app.state.services.engine.dispose()  # of tests that never start it


@pytest.fixture
def services(app: FastAPI) -> Services:
    return app.state.services


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def served(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address: what commands send there arrives at the test's own service."""
    server = "http://service.test:8000"

    def request(method: str, url: str, *, content: Any, params: dict[str, str], headers: dict[str, str], timeout: Any):
        body = content.read() if hasattr(content, "read") else content
        answer = client.request(method, url.removeprefix(server), content=body, params=params, headers=headers)
        return httpx.Response(answer.status_code, content=answer.content, request=httpx.Request(method, url))

    monkeypatch.setattr(httpx, "request", request)
    return server


@pytest.fixture(scope="session")
def make_table() -> TableMaker:
    """A table for all blocks of the space; every keyword changes one thing."""

    def make(device_id: str = DEVICE, *, factor: float = 1.0, drop: int = 0, **profile: Any) -> LatencyTable:
        device = DeviceProfile(
            device_id=device_id, **{"chip": "Bench", "runtime": "ort", "runtime_version": "1.0"} | profile
        )
        blocks = load_space(SPACE).distinct_blocks()
        rows = {spec: LatencyStats(factor * (0.01 + spec.macs / 1e7), 0.0001, 50) for spec in blocks[drop:]}
        return LatencyTable(device, SPACE, {"measured_by": "a test"}, rows)

    return make


@pytest.fixture
def table_url() -> str:
    return f"/v1/devices/{DEVICE}/tables/{SPACE}"


@pytest.fixture
def with_table(client: TestClient) -> TestClient:
    """The client of a service that has version 1 of the bench device's table."""
    return client


@pytest.fixture
def ask(with_table: TestClient) -> Callable[..., Any]:
    """POST a search for the bench device; keywords are fields of the body, `latency_ms` is a constraint."""

    def post(latency_ms: float | None = 2.0, **fields: Any) -> Any:
        constraints = fields.pop("constraints", {} if latency_ms is None else {"latency_ms": latency_ms})
        return with_table.post("/v1/searches", json={"device": DEVICE, "constraints": constraints} | fields)

    return post


@pytest.fixture
def finish(services: Services) -> Callable[..., dict[str, Any]]:
    """Do a deployment's job as a worker does, with these bytes as its model."""

    def run(deployment: dict[str, Any], model: bytes = b"0123456789", **error: str) -> dict[str, Any]:
        job_id, prefix = deployment["job"]["id"], f"deployments/{deployment['id']}/1"
        manifest = {"arch_id": deployment.get("arch_id"), "model": {"sha256": hashlib.sha256(model).hexdigest()}}
        with session_scope(services.sessions) as session:
            job_repository.begin_attempt(session, job_id, max_attempts=3)
        if not error:
            services.artifacts.put_bytes(f"{prefix}/model.onnx", model)
            services.artifacts.put_bytes(f"{prefix}/manifest.json", json.dumps(manifest).encode())
        with session_scope(services.sessions) as session:
            state = JobState.FAILED if error else JobState.SUCCEEDED
            job_repository.finish_attempt(session, job_id, 1, state=state, error=error or None)
            if not error:
                job_repository.publish_deployment(session, deployment["id"], prefix=prefix, manifest=manifest)
        return manifest

    return run


@pytest.fixture
def work(services: Services, tmp_path: Path) -> Callable[[str], None]:
    """Do a job that makes no files as a worker does."""

    def work(job_id: str) -> None:
        with session_scope(services.sessions) as session:
            job = job_repository.begin_attempt(session, job_id, max_attempts=3)
            session.flush()
            session.expunge(job)
        handler = HANDLERS[JobKind(job.kind)]
        stores = Stores(services.sessions, services.artifacts, services.bundles, services.settings)
        attempt = Attempt(job, stores, tmp_path / job_id)
        attempt.folder.mkdir()
        run = import_module(handler.module).run
        shares: list[float] = []
        result = run(json.loads(json.dumps(handler.fetch(attempt))), attempt.out, lambda share, _: shares.append(share))
        assert shares == sorted(shares)
        with session_scope(services.sessions) as session:
            job_repository.finish_attempt(session, job_id, 1, state=JobState.SUCCEEDED)
            handler.record(session, attempt, handler.store(attempt, json.loads(json.dumps(result))))

    return work


@pytest.fixture
def counts(services: Services) -> Callable[[], dict[str, int]]:
    """Rows of every table of ours."""

    def count() -> dict[str, int]:
        with session_scope(services.sessions, write=False) as session:
            return {
                table.name: session.execute(select(func.count()).select_from(table)).scalar_one()
                for table in Base.metadata.sorted_tables
            }

    return count


def problem_of(response: Any, status: int, code: str) -> dict[str, Any]:
    """Assert that a response is this problem, and return its body."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body: dict[str, Any] = response.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert {"type", "title", "detail", "instance"} <= set(body)
    assert "Traceback" not in response.text
    return body


@pytest.fixture(scope="session")
def problem() -> Callable[..., dict[str, Any]]:
    return problem_of
