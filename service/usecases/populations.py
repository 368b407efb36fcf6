"""Populations: archs of a supernet evaluated on images of the server, and predictors fitted on them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from service.bundles import uri_of
from service.db import repositories
from service.db.models import Population, Supernet
from service.errors import ConflictError, InvalidRequestError, NotFoundError
from service.images import find_images
from service.jobs.states import JobKind, PopulationPayload, PredictorPayload
from service.usecases.jobs import unfinished_error
from service.usecases.registration import is_shipped, validate_supernet_id
from service.usecases.supernets import get_space, get_supernet, validate_current
from supernet.predictors.accuracy import LEAST_ARCHS
from supernet.spaces.arch_csv import arch_columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from sqlalchemy.orm import Session

    from service.artifacts import ArtifactStore
    from service.bundles import BundleStore
    from service.db.models import Job
    from service.jobs.queue import JobQueue
    from service.usecases.catalog import LoadedSupernet
    from supernet.bundle import Bundle
    from supernet.spaces.space import SearchSpace


def create_population(
    session: Session,
    queue: JobQueue,
    supernet: LoadedSupernet,
    *,
    images: str,
    images_dir: Path | None,
    archs: int,
    seed: int,
) -> tuple[Population, Job]:
    """Store a population and enqueue its job, both or neither.

    Args:
        session: A writing transaction.
        queue: Gets the job.
        supernet: With weights and calibration.
        images: Name of a folder below `images_dir`.
        images_dir: As in the settings.
        archs: How many to evaluate.
        seed: Of the draw of the archs.

    Raises:
        MissingPartError: `no_weights` or `no_calibration`.
        InvalidRequestError: The space has fewer archs, or the name of the images cannot be one.
        NotFoundError: `unknown_images`.
        ConflictError: `no_images_dir`, or the supernet was deleted or replaced meanwhile.
    """
    _ = supernet.bundle.weights_path, supernet.bundle.calibration_path
    find_images(images_dir, images)
    if archs > supernet.space.size():
        raise InvalidRequestError(
            f"Space '{supernet.space.name}' has only {supernet.space.size()} archs, {archs} were asked for. "
            "Give a smaller 'archs'."
        )
    validate_current(session, supernet.supernet_id, bundle_uri=supernet.bundle_uri)
    payload = PopulationPayload(
        supernet_id=supernet.supernet_id,
        bundle_uri=supernet.bundle_uri,
        bundle_sha256=supernet.bundle.sha256,
        images=images,
        archs=archs,
        seed=seed,
    )
    job = queue.enqueue(session, JobKind.EVALUATE_POPULATION, payload)
    population = Population(
        population_id=job.job_id,
        supernet_id=supernet.supernet_id,
        weights_sha256=supernet.bundle.manifest.parts["weights"]["sha256"],
        images=images,
        archs=archs,
        seed=seed,
    )
    repositories.insert(session, population)
    return population, job


def get_population(session: Session, supernet_id: str, population_id: str) -> tuple[Population, Job]:
    """A population of a supernet, with its job.

    Raises:
        NotFoundError: `unknown_supernet` or `unknown_population`.
    """
    get_supernet(session, supernet_id)
    found = repositories.find_population(session, population_id)
    if found is None or found[0].supernet_id != supernet_id:
        raise NotFoundError(
            f"Supernet '{supernet_id}' has no population {population_id[:80]!r}. "
            f"GET /v1/supernets/{supernet_id}/population lists those there are.",
            code="unknown_population",
        )
    return found


def get_csv(session: Session, supernet_id: str, population_id: str) -> tuple[str, str]:
    """Where a population's CSV lies.

    Returns:
        Key in the artefact store; SHA-256.

    Raises:
        NotFoundError: As `get_population`.
        ConflictError: `not_ready`, with the job; `failed`, with the job's error.
    """
    population, job = get_population(session, supernet_id, population_id)
    if population.artifact_key is None or population.summary is None:
        raise unfinished_error(f"Population '{population_id}'", job)
    return population.artifact_key, population.summary["sha256"]


def create_predictor(
    session: Session,
    queue: JobQueue,
    artifacts: ArtifactStore,
    *,
    supernet_id: str,
    populations: Sequence[str],
    target_id: str | None,
) -> Job:
    """Enqueue a job that fits a predictor on populations of a supernet.

    Args:
        session: A writing transaction.
        queue: Gets the job.
        artifacts: Has the populations.
        supernet_id: Whose predictor it is.
        populations: Their ids; the newest one of the supernet's weights where empty.
        target_id: Of a new supernet that gets the bundle with the predictor; None replaces that of this supernet.

    Raises:
        NotFoundError: `unknown_supernet` or `unknown_population`.
        ConflictError: `no_population`, `not_ready`, `failed`, `stale_population`: of other weights.
            `mixed_populations`: evaluated on different images. `shipped_supernet`: it cannot be replaced.
            `supernet_exists`: the new id is taken.
        InvalidRequestError: The new id cannot be one, or the populations hold too few archs.
    """
    row = get_supernet(session, supernet_id, lock=True)
    if target_id is not None:
        validate_supernet_id(target_id)
        if repositories.find_supernet(session, target_id) is not None:
            raise _exists(target_id)
    elif is_shipped(row):
        raise ConflictError(
            f"Supernet '{supernet_id}' comes with Tailor, whose next start would bring its own predictor back. Give "
            "the one with the new predictor an 'id' of its own.",
            code="shipped_supernet",
        )
    chosen = _find_populations(session, row, populations)
    _validate_archs(artifacts, get_space(session, row.space), chosen)
    payload = PredictorPayload(
        supernet_id=supernet_id,
        bundle_uri=row.bundle_uri,
        bundle_sha256=row.bundle_sha256,
        populations={population.population_id: str(population.artifact_key) for population in chosen},
        target_id=target_id or supernet_id,
    )
    return queue.enqueue(session, JobKind.FIT_PREDICTOR, payload)


def record_predictor(
    session: Session, bundles: BundleStore, bundle: Bundle, *, manifest: dict[str, Any], payload: PredictorPayload
) -> str | None:
    """Give a supernet the bundle with its new predictor, in the transaction in which the job succeeds.

    Args:
        session: The transaction.
        bundles: Has the bundle's files.
        bundle: With the predictor.
        manifest: What `describe_bundle` says of it.
        payload: Of the job.

    Returns:
        The URI of the bundle it took the place of; None for a new supernet.

    Raises:
        ConflictError: `supernet_exists`: the new id was taken meanwhile. Otherwise the supernet to replace or the files
            are gone, or it has other weights now.
    """
    repositories.lock_supernets(session)
    replaced = None
    if not bundles.holds(bundle):
        raise ConflictError("Another request deleted this very bundle at the same time. Ask again.")
    row = repositories.find_supernet(session, payload.target_id)
    if payload.target_id != payload.supernet_id:
        if row is not None:
            raise _exists(payload.target_id)
        row = Supernet(supernet_id=payload.target_id, space=bundle.space.name)
    elif row is None or _without_predictor(row.manifest) != _without_predictor(manifest):
        raise ConflictError(f"Supernet '{payload.target_id}' was deleted or replaced at the same time. Ask again.")
    else:
        replaced = row.bundle_uri
    row.bundle_uri = uri_of(bundle)
    row.bundle_sha256 = bundle.sha256
    row.manifest = manifest
    repositories.insert(session, row)
    return replaced


def _find_populations(session: Session, row: Supernet, ids: Sequence[str]) -> list[Population]:
    weights = row.manifest["parts"].get("weights", {}).get("sha256", "")
    if ids:
        found = [get_population(session, row.supernet_id, population_id) for population_id in dict.fromkeys(ids)]
    else:
        newest = repositories.find_newest_population(session, row.supernet_id, weights_sha256=weights)
        if newest is None:
            raise ConflictError(
                f"Supernet '{row.supernet_id}' has no population to fit on. Evaluate one first: "
                f"POST /v1/supernets/{row.supernet_id}/population.",
                code="no_population",
            )
        found = [get_population(session, row.supernet_id, newest.population_id)]
    judged_by = set()
    for population, job in found:
        if population.summary is None:
            raise unfinished_error(f"Population '{population.population_id}'", job)
        judged_by.add((population.images, population.summary["images"]))
        if population.weights_sha256 != weights:
            raise ConflictError(
                f"Population '{population.population_id}' was evaluated with other weights than supernet "
                f"'{row.supernet_id}' has now. Evaluate a new one.",
                code="stale_population",
            )
    if len(judged_by) > 1:
        shown = ", ".join(f"{count} of '{name}'" for name, count in sorted(judged_by))
        raise ConflictError(
            f"The populations were evaluated on different images ({shown}), so their accuracies do not compare. "
            "Name those of one set of images.",
            code="mixed_populations",
        )
    return [population for population, _ in found]


def _validate_archs(artifacts: ArtifactStore, space: SearchSpace, populations: Sequence[Population]) -> None:
    needed = min(LEAST_ARCHS, space.size())
    # The archs of one population are distinct; those of several, few each, have to be looked at.
    if any(population.summary and population.summary["archs"] >= needed for population in populations):
        return
    archs = set()
    for population in populations:
        text = artifacts.read_bytes(str(population.artifact_key)).decode()
        archs |= {tuple(row[column] for column in arch_columns(space)) for row in csv.DictReader(io.StringIO(text))}
    if len(archs) < needed:
        raise InvalidRequestError(
            f"A predictor needs at least {needed} evaluated archs; the populations hold {len(archs)}. Evaluate more."
        )


def _without_predictor(manifest: dict[str, Any]) -> dict[str, str]:
    return {part: entry["sha256"] for part, entry in manifest["parts"].items() if part != "predictor"}


def _exists(supernet_id: str) -> ConflictError:
    return ConflictError(
        f"Supernet '{supernet_id}' exists already. Choose another 'id', or none to replace the predictor in place.",
        code="supernet_exists",
    )
