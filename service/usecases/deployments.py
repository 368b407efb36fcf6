"""Deployments: from a search or an arch to a job that makes a verified ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from service.answers import estimate_latencies
from service.db import repositories
from service.db.models import Deployment
from service.errors import ConflictError, InvalidRequestError, NotFoundError
from service.jobs.states import ExportPayload, JobKind
from service.usecases.jobs import unfinished_error
from service.usecases.latency_tables import find_estimator
from service.usecases.supernets import get_supernet, validate_current
from supernet.predictors.predictor import describe_accuracy
from supernet.spaces.arch import Arch

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from service.db.models import Job
    from service.jobs.queue import JobQueue
    from service.usecases.catalog import Catalog, LoadedSupernet

DEPLOYED_PRECISION = "fp32"
MODEL, MANIFEST = "model.onnx", "manifest.json"


@dataclass(frozen=True)
class DeploymentPlan:
    """Everything a deployment is made from; checked, not yet stored.

    Attributes:
        arch: Canonical.
        accuracy: As in the search object; None where nothing predicts it.
        latency: As in the search object; None without a device.
        table_version: Behind `latency`.
    """

    supernet: LoadedSupernet
    arch: Arch
    precision: str
    opset: int
    search_id: str | None = None
    device_id: str | None = None
    accuracy: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    table_version: int | None = None


def validate_deployable(supernet: LoadedSupernet) -> None:
    """Refuse a supernet no network can be cut from.

    Raises:
        MissingPartError: It has no weights, or nothing to recalibrate a subnet with.
    """
    if not supernet.bundle.is_deployable:
        _ = supernet.bundle.weights_path, supernet.bundle.calibration_path


def validate_precision(precision: str) -> None:
    """Refuse a precision that searches may ask for and no deployment is made in.

    Raises:
        InvalidRequestError: `unsupported_precision`.
    """
    if precision != DEPLOYED_PRECISION:
        raise InvalidRequestError(
            f"Deployments are made in {DEPLOYED_PRECISION}, not in {precision}. Search without 'deploy', or in "
            f"{DEPLOYED_PRECISION}.",
            code="unsupported_precision",
        )


def plan_from_search(
    session: Session, catalog: Catalog, search_id: str, *, precision: str, opset: int
) -> DeploymentPlan:
    """Plan the deployment of a search's answer.

    Raises:
        NotFoundError: `unknown_search`.
        ConflictError: `stale_search`: the supernet was replaced since.
        MissingPartError: As `validate_deployable`.
    """
    search = repositories.find_search(session, search_id)
    if search is None:
        raise NotFoundError(
            f"No search {search_id[:80]!r}. GET /v1/searches lists those there are.", code="unknown_search"
        )
    supernet = catalog.supernet(get_supernet(session, search.supernet_id))
    validate_deployable(supernet)
    result = search.result
    if result["versions"]["supernet"] != supernet.bundle.sha256:
        raise ConflictError(
            f"Supernet '{search.supernet_id}' was replaced since this search: its predictions no longer hold. "
            "Search again.",
            code="stale_search",
        )
    return DeploymentPlan(
        supernet,
        Arch.from_dict(result["arch"]),
        precision,
        opset,
        search_id=search_id,
        device_id=search.device_id,
        accuracy=result["accuracy"],
        latency=result["latency_ms"] or result["latencies"][search.device_id],
        table_version=search.table_version,
    )


def plan_from_arch(
    session: Session,
    catalog: Catalog,
    arch: Arch,
    *,
    supernet_id: str | None,
    device_id: str | None,
    precision: str,
    opset: int,
) -> DeploymentPlan:
    """Plan the deployment of an arch; its accuracy and latency are looked up where possible.

    Raises:
        NotFoundError: `unknown_supernet` or `unknown_device`.
        ConflictError: `no_table`.
        InvalidArchError: The arch lies outside the supernet's space.
        MissingPartError: As `validate_deployable`.
        MissingEntryError: The device's table does not cover the arch.
    """
    supernet = catalog.supernet(get_supernet(session, supernet_id))
    arch = supernet.space.canonicalize(arch)
    table, latency = None, None
    if device_id is not None:
        table, estimator = find_estimator(session, catalog, device_id, supernet=supernet)
        (latency,) = estimate_latencies(estimator, [arch])
    validate_deployable(supernet)
    return DeploymentPlan(
        supernet,
        arch,
        precision,
        opset,
        device_id=device_id,
        accuracy=describe_accuracy(supernet.predictor, arch) if supernet.predictor_sha256 else None,
        latency=latency,
        table_version=None if table is None else table.version,
    )


def create_deployment(session: Session, queue: JobQueue, plan: DeploymentPlan) -> tuple[Deployment, Job]:
    """Store a deployment and enqueue its job, both or neither.

    Raises:
        ConflictError: The supernet was deleted or replaced meanwhile.
    """
    validate_current(session, plan.supernet.supernet_id, bundle_uri=plan.supernet.bundle_uri)
    deployment_id = uuid4().hex
    payload = ExportPayload(
        deployment_id=deployment_id,
        supernet_id=plan.supernet.supernet_id,
        bundle_uri=plan.supernet.bundle_uri,
        arch=plan.arch.to_dict(),
        device_id=plan.device_id,
        opset=plan.opset,
        precision=plan.precision,
        accuracy=plan.accuracy,
        latency=plan.latency,
        table_version=plan.table_version,
    )
    job = queue.enqueue(session, JobKind.EXPORT_SUBNET, payload)
    deployment = Deployment(
        deployment_id=deployment_id,
        job_id=job.job_id,
        supernet_id=plan.supernet.supernet_id,
        search_id=plan.search_id,
        device_id=plan.device_id,
        arch=plan.arch.to_dict(),
        arch_id=plan.arch.arch_id,
        precision=plan.precision,
        opset=plan.opset,
    )
    repositories.insert(session, deployment)
    return deployment, job


def get_deployment(session: Session, deployment_id: str) -> tuple[Deployment, Job]:
    """A deployment with its job.

    Raises:
        NotFoundError: `unknown_deployment`.
    """
    found = repositories.find_deployment(session, deployment_id)
    if found is None:
        raise NotFoundError(
            f"No deployment {deployment_id[:80]!r}. GET /v1/deployments lists those there are.",
            code="unknown_deployment",
        )
    return found


def get_files(session: Session, deployment_id: str) -> tuple[str, dict[str, Any]]:
    """Where a finished deployment's files lie, and its manifest.

    Returns:
        Prefix in the artefact store, without a slash at its end; the manifest.

    Raises:
        NotFoundError: `unknown_deployment`.
        ConflictError: `not_ready`, with the job; `failed`, with the job's error.
    """
    deployment, job = get_deployment(session, deployment_id)
    if deployment.artifact_prefix is not None and deployment.manifest is not None:
        return deployment.artifact_prefix.rstrip("/"), deployment.manifest
    raise unfinished_error(f"Deployment '{deployment_id}'", job)
