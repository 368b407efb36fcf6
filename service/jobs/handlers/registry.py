"""Per kind of job: the function the child calls, by name, and what the worker stores. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.bundles import ARTIFACT, uri_of
from service.db.job_repository import publish_deployment, publish_population
from service.images import find_images
from service.jobs.states import POPULATION_FILE, ExportPayload, JobKind, PopulationPayload, PredictorPayload
from service.usecases.populations import record_predictor
from service.usecases.registration import POPULATIONS, delete_unused_bundle
from service.usecases.shipped import describe_bundle
from supernet.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy.orm import Session, sessionmaker

    from service.artifacts import ArtifactStore
    from service.bundles import BundleStore
    from service.db.models import Job


@dataclass(frozen=True)
class Stores:
    """What a worker's handlers take from and put into.

    Attributes:
        images_dir: As in the settings.
    """

    sessions: sessionmaker[Session]
    artifacts: ArtifactStore
    bundles: BundleStore
    images_dir: Path | None


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

    @abstractmethod
    def prefix(self, job: Job) -> str:
        """Where the files of all attempts lie in the artefact store; each has a folder of its own below."""

    def attempt_prefix(self, attempt: Attempt) -> str:
        """Where the files of one attempt lie."""
        return f"{self.prefix(attempt.job)}/{attempt.job.attempt}"

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

    def store(self, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:
        """Store the files the child wrote; returns what there is to record of them and of its result."""
        for path in sorted(path for path in attempt.out.rglob("*") if path.is_file()):
            key = f"{self.attempt_prefix(attempt)}/{path.relative_to(attempt.out).as_posix()}"
            attempt.stores.artifacts.put_file(key, path)
        return result

    @abstractmethod
    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """Write what `store` returned, in the transaction in which the job succeeds.

        Raises:
            ConflictError: Things changed so that there is nothing to write it to; the job fails.
        """

    def tidy(self, attempt: Attempt, stored: dict[str, Any], *, recorded: bool) -> None:  # noqa: ARG002 - for others
        """Delete stored files that nobody refers to: after the record, or in place of one."""
        if not recorded:
            attempt.stores.artifacts.delete_prefix(self.attempt_prefix(attempt))


class ExportHandler(Handler):
    """Makes a deployment's files available."""

    def prefix(self, job: Job) -> str:
        """By the id of the deployment."""
        return f"deployments/{ExportPayload.model_validate(job.payload).deployment_id}"

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """The result is the manifest."""
        deployment_id = ExportPayload.model_validate(attempt.job.payload).deployment_id
        publish_deployment(session, deployment_id, prefix=self.attempt_prefix(attempt), manifest=stored)


class PopulationHandler(Handler):
    """Makes a population's CSV available."""

    def prefix(self, job: Job) -> str:
        """By the id of the population, which is the job's."""
        return f"{POPULATIONS}/{job.job_id}"

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """Images by their path."""
        name = PopulationPayload.model_validate(attempt.job.payload).images
        return {**super().fetch(attempt), "images": str(find_images(attempt.stores.images_dir, name))}

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """The result is the summary."""
        key = f"{self.attempt_prefix(attempt)}/{POPULATION_FILE}"
        publish_population(session, attempt.job.job_id, key=key, summary=stored)


class PredictorHandler(Handler):
    """Gives a supernet the bundle that has the predictor; it lies among the other bundles, under its hash."""

    def prefix(self, job: Job) -> str:
        """Nothing lies there."""
        return f"predictors/{job.job_id}"

    def fetch(self, attempt: Attempt) -> dict[str, Any]:
        """CSVs by their path."""
        paths = []
        for number, key in enumerate(PredictorPayload.model_validate(attempt.job.payload).populations):
            paths.append(attempt.folder / f"{number}.csv")
            paths[-1].write_bytes(attempt.stores.artifacts.read_bytes(key))
        return {**super().fetch(attempt), "populations": [str(path) for path in paths]}

    def store(self, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the bundle holds it
        """The bundle and what its row says of it."""
        bundle = open_bundle(attempt.out)
        attempt.stores.bundles.save(bundle)
        return {"bundle": bundle, "manifest": describe_bundle(bundle)}

    def record(self, session: Session, attempt: Attempt, stored: dict[str, Any]) -> None:
        """In place of the bundle before, or as a new supernet."""
        payload = PredictorPayload.model_validate(attempt.job.payload)
        record_predictor(
            session, attempt.stores.bundles, stored["bundle"], manifest=stored["manifest"], payload=payload
        )

    def tidy(self, attempt: Attempt, stored: dict[str, Any], *, recorded: bool) -> None:  # noqa: ARG002 - either way
        """Of the old bundle and the new one, what no supernet has."""
        for uri in (attempt.job.payload["bundle_uri"], uri_of(stored["bundle"])):
            delete_unused_bundle(attempt.stores.sessions, attempt.stores.bundles, uri)


HANDLERS: Mapping[JobKind, Handler] = {
    JobKind.EXPORT_SUBNET: ExportHandler("service.jobs.handlers.export_subnet:run"),
    JobKind.EVALUATE_POPULATION: PopulationHandler("service.jobs.handlers.evaluate_population:run"),
    JobKind.FIT_PREDICTOR: PredictorHandler("service.jobs.handlers.fit_predictor:run"),
}
