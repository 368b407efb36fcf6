"""Per kind of job: the function the child calls, by name, and what the worker stores. Imports no torch."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.bundles import ARTIFACT, uri_of
from service.db.engine import session_scope
from service.db.job_repository import publish_deployment, publish_front, publish_population
from service.db.repositories import load_front_document
from service.images import find_images
from service.jobs.states import (
    POPULATION_FILE,
    ExportPayload,
    FrontOrder,
    FrontPayload,
    JobKind,
    PopulationOrder,
    PopulationPayload,
    PredictorPayload,
    SearchOrder,
    SearchPayload,
)
from service.usecases.latency_tables import load_version
from service.usecases.populations import record_predictor
from service.usecases.registration import POPULATIONS, delete_unused_bundle
from service.usecases.searches import insert_search
from service.usecases.shipped import describe_bundle
from supernet.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy.orm import Session, sessionmaker

    from service.artifacts import ArtifactStore
    from service.bundles import BundleStore
    from service.db.models import Job
    from service.settings import Settings


@dataclass(frozen=True)
class Stores:
    """What a worker's handlers take from and put into.

    Attributes:
        settings: Where images and files of jobs lie.
    """

    sessions: sessionmaker[Session]
    artifacts: ArtifactStore
    bundles: BundleStore
    settings: Settings


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job.

    Attributes:
        folder: Of this attempt alone, gone afterwards.
    """

    job: Job
    stores: Stores
    folder: Path

    @property
    def out(self) -> Path:
        """The folder the child makes and writes into."""
        return self.folder / "out"

    @property
    def kept(self) -> Path:
        """A folder that all attempts of the job share; gone with its end."""
        return unfinished_folder(self.stores.settings, self.job.job_id)


@dataclass(frozen=True)
class Handler(ABC):
    """What is done for one kind of job. The worker calls the methods in the order they have here.

    Attributes:
        target: `module:function` of `run(payload, out_dir, report) -> result`; only the child imports it.
    """

    target: str

    @property
    def module(self) -> str:
        """The module of the target."""
        return self.target.partition(":")[0]

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """Bring what the payload refers to onto this machine: the child knows no artefact store.

        Returns:
            The payload for the child.
        """
        payload = attempt.job.payload
        uri = str(payload["bundle_uri"])
        if not uri.startswith(ARTIFACT):
            return payload
        return {**payload, "bundle_uri": f"folder:{attempt.stores.bundles.open(uri).path}"}

    @abstractmethod
    def store(self, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:
        """Store the files the child wrote; returns what there is to record of them and of its result."""

    @abstractmethod
    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> str | None:
        """Write what `store` returned, in the transaction in which the job succeeds.

        Returns:
            The URI of a bundle that lost a supernet by it.

        Raises:
            ConflictError: Things changed so that there is nothing to write it to; the job fails.
        """

    @abstractmethod
    def discard(self, attempt: Attempt, stored: dict[str, Any]) -> None:
        """Delete what `store` stored, where it was not recorded."""


class FilesHandler(Handler):
    """Stores the files as they are, those of each attempt in a folder of its own."""

    @abstractmethod
    def prefix(self, job: Job) -> str:
        """Where the files of all attempts lie in the artefact store."""

    def attempt_prefix(self, attempt: Attempt) -> str:
        """Where the files of one attempt lie."""
        return f"{self.prefix(attempt.job)}/{attempt.job.attempt}"

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """Earlier attempts recorded nothing, so what they stored goes first."""
        for earlier in range(1, attempt.job.attempt):
            attempt.stores.artifacts.delete_prefix(f"{self.prefix(attempt.job)}/{earlier}")
        return super().fetch(attempt)

    def store(self, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:
        """The result is recorded as it is."""
        for path in sorted(path for path in attempt.out.rglob("*") if path.is_file()):
            key = f"{self.attempt_prefix(attempt)}/{path.relative_to(attempt.out).as_posix()}"
            attempt.stores.artifacts.put_file(key, path)
        return result

    def discard(self, attempt: Attempt, stored: dict[str, Any]) -> None:  # noqa: ARG002 - all lies in one folder
        """The folder of the attempt."""
        attempt.stores.artifacts.delete_prefix(self.attempt_prefix(attempt))


class ExportHandler(FilesHandler):
    """Makes a deployment's files available."""

    def prefix(self, job: Job) -> str:
        """By the id of the deployment."""
        return f"deployments/{ExportPayload.model_validate(job.payload).deployment_id}"

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """The result is the manifest."""
        deployment_id = ExportPayload.model_validate(attempt.job.payload).deployment_id
        publish_deployment(session, deployment_id, prefix=self.attempt_prefix(attempt), manifest=stored)


class PopulationHandler(FilesHandler):
    """Makes a population's CSV available."""

    def prefix(self, job: Job) -> str:
        """By the id of the population, which is the job's."""
        return f"{POPULATIONS}/{job.job_id}"

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """Images by their path, and where earlier attempts left the CSV."""
        settings = attempt.stores.settings
        payload = PopulationPayload.model_validate(super().fetch(attempt))
        attempt.kept.mkdir(parents=True, exist_ok=True)
        order = PopulationOrder(
            **payload.model_dump(exclude={"images"}),
            images=str(find_images(settings.images_dir, payload.images)),
            max_image_bytes=settings.max_image_bytes,
            file=str(attempt.kept / POPULATION_FILE),
        )
        return order.model_dump()

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """The result is the summary."""
        key = f"{self.attempt_prefix(attempt)}/{POPULATION_FILE}"
        publish_population(session, attempt.job.job_id, key=key, summary=stored)


class PredictorHandler(Handler):
    """Gives a supernet the bundle that has the predictor; it lies among the other bundles, under its hash."""

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """CSVs by their path."""
        paths = {}
        for population_id, key in PredictorPayload.model_validate(attempt.job.payload).populations.items():
            path = attempt.folder / f"{population_id}.csv"
            path.write_bytes(attempt.stores.artifacts.read_bytes(key))
            paths[population_id] = str(path)
        return {**super().fetch(attempt), "populations": paths}

    def store(self, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the bundle holds it
        """The bundle and what its row says of it."""
        bundle = open_bundle(attempt.out)
        manifest = describe_bundle(bundle)
        attempt.stores.bundles.save(bundle)
        return {"bundle": attempt.stores.bundles.adopt(bundle), "manifest": manifest}

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> str | None:
        """In place of the bundle before, or as a new supernet."""
        payload = PredictorPayload.model_validate(attempt.job.payload)
        return record_predictor(
            session, attempt.stores.bundles, stored["bundle"], manifest=stored["manifest"], payload=payload
        )

    def discard(self, attempt: Attempt, stored: dict[str, Any]) -> None:
        """The bundle, unless another supernet has the same."""
        delete_unused_bundle(attempt.stores.sessions, attempt.stores.bundles, uri_of(stored["bundle"]))


class FrontHandler(Handler):
    """Makes the front of a device and a supernet known; it is small and lies in the database."""

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """The table as a file."""
        payload = FrontPayload.model_validate(super().fetch(attempt))
        file = _fetch_table(attempt, payload.device_id, space=payload.space, version=payload.table_version)
        return FrontOrder(**payload.model_dump(), table_file=file).model_dump()

    def store(self, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - there are no files
        """The result is the front."""
        return result

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """By the job's id."""
        publish_front(session, attempt.job.job_id, document=stored)

    def discard(self, attempt: Attempt, stored: dict[str, Any]) -> None:
        """There are no files."""


class SearchHandler(Handler):
    """Stores a search under the id of its job."""

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """The tables as files."""
        payload = SearchPayload.model_validate(super().fetch(attempt))
        files = [
            _fetch_table(attempt, target.device_id, space=target.space, version=target.table_version)
            for target in payload.targets
        ]
        start = None
        if payload.front_id is not None:
            with session_scope(attempt.stores.sessions, write=False) as session:
                start = load_front_document(session, payload.front_id)["rows"]
        return SearchOrder(**payload.model_dump(), table_files=files, start=start).model_dump()

    def store(self, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - there are no files
        """The result is what was found."""
        return result

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """As a search that was answered at once."""
        payload = SearchPayload.model_validate(attempt.job.payload)
        insert_search(session, attempt.job.job_id, payload, found=stored)

    def discard(self, attempt: Attempt, stored: dict[str, Any]) -> None:
        """There are no files."""


def _fetch_table(attempt: Attempt, device_id: str, *, space: str, version: int) -> str:
    """Path of a file with one version of a device's table."""
    path = attempt.folder / f"table_{device_id}.json"
    with session_scope(attempt.stores.sessions, write=False) as session:
        _, document = load_version(session, device_id, space=space, version=version)
    path.write_text(json.dumps(document))
    return str(path)


def unfinished_folder(settings: Settings, job_id: str) -> Path:
    """Where attempts of a job leave what the next one goes on with."""
    return settings.data_dir / "unfinished" / job_id


HANDLERS: Mapping[JobKind, Handler] = {
    JobKind.EXPORT_SUBNET: ExportHandler("service.jobs.handlers.export_subnet:run"),
    JobKind.EVALUATE_POPULATION: PopulationHandler("service.jobs.handlers.evaluate_population:run"),
    JobKind.TRACE_FRONT: FrontHandler("service.jobs.handlers.trace_front:run"),
    JobKind.SEARCH: SearchHandler("service.jobs.handlers.search:run"),
    JobKind.FIT_PREDICTOR: PredictorHandler("service.jobs.handlers.fit_predictor:run"),
}
