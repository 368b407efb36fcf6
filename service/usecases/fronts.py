"""Fronts: the best subnet for every latency of a device, traced once by a job; a search it answers is a look-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.answers import estimate_latencies
from service.db import repositories
from service.db.models import Front as FrontRow
from service.jobs.states import FINISHED, FrontPayload, JobKind, JobState
from service.questions import common_resolutions
from service.usecases.jobs import unfinished_error
from service.usecases.latency_tables import find_estimator
from service.usecases.supernets import get_supernet
from supernet.predictors.predictor import describe_accuracies

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from latency_tables.estimator import LatencyEstimator
    from service.db.models import Job
    from service.db.repositories import TableRef
    from service.jobs.queue import JobQueue
    from service.usecases.catalog import Catalog, LoadedSupernet
    from supernet.search.front import Front


def find_front(
    session: Session, catalog: Catalog, supernet: LoadedSupernet, estimator: LatencyEstimator
) -> tuple[str, Front] | tuple[None, None]:
    """The front of a table and the supernet's predictor, with its id, where it was traced.

    It is that of the table's rows: a table that was recalibrated since keeps it, with latencies of its own.
    """
    front_id = repositories.find_known_front(
        session,
        rows_sha256=estimator.table.rows_fingerprint,
        predictor_sha256=str(supernet.predictor_sha256),
    )
    if front_id is None:
        return None, None
    return front_id, _load(session, catalog, front_id, estimator)


def _load(session: Session, catalog: Catalog, front_id: str, estimator: LatencyEstimator) -> Front:
    return catalog.front(front_id, estimator, load_document=lambda: repositories.load_front_document(session, front_id))


def order_front(
    session: Session,
    queue: JobQueue,
    catalog: Catalog,
    device_id: str,
    *,
    supernet_id: str | None,
    evaluations: int,
    again: bool = False,
) -> tuple[dict[str, Any] | None, Job]:
    """The front of a device, or the job that traces it: the one under way, else a new one.

    Args:
        session: A writing transaction.
        queue: Gets the job.
        catalog: Holds what was loaded before.
        device_id: With a table for the supernet's space.
        supernet_id: None for the default one.
        evaluations: Of a new job.
        again: Order a new job after one that failed.

    Returns:
        The front as the API shows it, None where it is not known yet; and its job.

    Raises:
        NotFoundError: `unknown_device` or `unknown_supernet`.
        ConflictError: `no_table`, `no_common_resolution`; `failed` where the last job did.
        MissingPartError: The supernet has no predictor.
        MissingEntryError: The table lacks blocks of the supernet.
    """
    supernet = catalog.supernet(get_supernet(session, supernet_id))
    repositories.find_device(session, device_id, lock=True)  # two first requests order one job
    table, estimator = find_estimator(session, catalog, device_id, supernet=supernet)
    common_resolutions(supernet.space, [estimator], supernet.predictor)
    predictor_sha256 = str(supernet.predictor_sha256)
    newest = repositories.find_newest_front(
        session, rows_sha256=estimator.table.rows_fingerprint, predictor_sha256=predictor_sha256
    )
    if newest is not None:
        front_id, job = newest
        if job.state == JobState.SUCCEEDED:
            return _show(front_id, _load(session, catalog, front_id, estimator), supernet, table, estimator), job
        if job.state not in FINISHED:
            return None, job
        if job.state == JobState.FAILED and not again:
            raise unfinished_error(f"The front of '{device_id}'", job)
    payload = FrontPayload(
        supernet_id=supernet.supernet_id,
        bundle_uri=supernet.bundle_uri,
        bundle_sha256=supernet.bundle.sha256,
        device_id=device_id,
        space=table.space,
        table_version=table.version,
        evaluations=evaluations,
    )
    job = queue.enqueue(session, JobKind.TRACE_FRONT, payload)
    row = FrontRow(
        front_id=job.job_id,
        supernet_id=supernet.supernet_id,
        device_id=device_id,
        table_version=table.version,
        rows_sha256=estimator.table.rows_fingerprint,
        predictor_sha256=predictor_sha256,
    )
    repositories.insert(session, row)
    return None, job


def _show(
    front_id: str, front: Front, supernet: LoadedSupernet, table: TableRef, estimator: LatencyEstimator
) -> dict[str, Any]:
    archs = supernet.space.from_rows(front.rows)
    latencies = estimate_latencies(estimator, archs)
    accuracies = describe_accuracies(supernet.predictor, front.rows)
    points = [
        {"arch": arch.to_dict(), "arch_id": arch.arch_id, "latency_ms": latency, "accuracy": accuracy}
        for arch, latency, accuracy in zip(archs, latencies, accuracies, strict=True)
    ]
    return {
        "id": front_id,
        "supernet": supernet.supernet_id,
        "device": table.device_id,
        "versions": {
            "table": table.version,
            "table_sha256": table.document_sha256,
            "supernet": supernet.bundle.sha256,
            "predictor": supernet.predictor_sha256,
        },
        "points": points,
    }
