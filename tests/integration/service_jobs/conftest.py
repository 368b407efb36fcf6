"""A data folder with a queue, and real worker processes on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.artifacts import ArtifactStore
from service.db.engine import build_engine, session_factory, session_scope
from service.db.migrate import upgrade
from service.db.models import Deployment, Job, Population, Supernet
from service.jobs.queue import JobQueue
from service.jobs.states import FINISHED, ExportPayload, JobKind, PopulationPayload
from service.settings import Settings

PROGRAM = Path(__file__).with_name("fake_work.py")


def until(condition, *, timeout_s: float = 40.0, what: str = "the condition"):
    """Wait for a condition to hold and return its value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true within {timeout_s} s")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Service:
    """The API's side of a data folder."""

    until = staticmethod(until)
    alive = staticmethod(alive)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(
            data_dir=folder / "data", images_dir=folder / "images", job_poll_s=0.05, job_timeout_s=30
        )
        upgrade(self.settings)
        self.engine = build_engine(self.settings)
        self.factory = session_factory(self.engine)
        self.queue = JobQueue(self.settings, self.engine)
        self.store = ArtifactStore(self.settings.effective_artifacts_url)
        self.workers: list[subprocess.Popen[str]] = []
        with session_scope(self.factory) as session:
            session.add(
                Supernet(supernet_id="s", space="x", bundle_uri="shipped:s", bundle_sha256="0" * 64, manifest={})
            )

    def insert(self, session, deployment_id: str, *steps: str, bundle_uri: str = "shipped:s") -> str:
        arch = {"steps": steps or ["succeed"]}
        payload = ExportPayload(deployment_id=deployment_id, supernet_id="s", bundle_uri=bundle_uri, arch=arch)
        job = self.queue.enqueue(session, JobKind.EXPORT_SUBNET, payload)
        session.add(
            Deployment(
                deployment_id=deployment_id,
                job_id=job.job_id,
                supernet_id="s",
                arch=arch,
                arch_id="a",
                precision="fp32",
                opset=18,
            )
        )
        session.flush()
        return job.job_id

    def enqueue(self, deployment_id: str, *steps: str, **payload: str) -> str:
        with session_scope(self.factory) as session:
            return self.insert(session, deployment_id, *steps, **payload)

    def enqueue_population(self, *steps: str) -> str:
        images = ".".join(steps)
        (self.folder / "images" / images).mkdir(parents=True)
        payload = PopulationPayload(
            supernet_id="s", bundle_uri="shipped:s", bundle_sha256="0" * 64, images=images, archs=20, seed=0
        )
        with session_scope(self.factory) as session:
            job_id = self.queue.enqueue(session, JobKind.EVALUATE_POPULATION, payload).job_id
            session.add(
                Population(
                    population_id=job_id, supernet_id="s", weights_sha256="0" * 64, images=images, archs=20, seed=0
                )
            )
        return job_id

    def population(self, population_id: str) -> Population:
        with session_scope(self.factory, write=False) as session:
            return session.get_one(Population, population_id)

    def cancel(self, job_id: str) -> Job:
        with session_scope(self.factory) as session:
            return self.queue.request_cancel(session, job_id)

    def job(self, job_id: str) -> Job:
        with session_scope(self.factory, write=False) as session:
            return session.get_one(Job, job_id)

    def deployment(self, deployment_id: str) -> Deployment:
        with session_scope(self.factory, write=False) as session:
            return session.get_one(Deployment, deployment_id)

    def finished(self, job_id: str) -> Job:
        return until(lambda: job if (job := self.job(job_id)).state in FINISHED else None, what=f"the end of {job_id}")

    def at_stage(self, job_id: str, stage: str) -> Job:
        return until(lambda: job if (job := self.job(job_id)).stage == stage else None, what=f"stage {stage}")

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def start_worker(self, **settings) -> subprocess.Popen[str]:
        settings = self.settings.model_copy(update=settings)
        log = (self.folder / f"worker{len(self.workers)}.log").open("w")
        with log:
            worker = subprocess.Popen(
                [sys.executable, str(PROGRAM), settings.model_dump_json()],
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(PROGRAM.parent)},
            )
        self.workers.append(worker)
        return worker

    def log(self, number: int = 0) -> str:
        return (self.folder / f"worker{number}.log").read_text()

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
            worker.wait()
        self.queue.close()
        self.engine.dispose()


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()
