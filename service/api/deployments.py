"""Deployments: from a subnet to a verified ONNX file to download."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.deps import ReadSession, ServicesDep
from service.api.downloads import FILE_HEADERS, Artifact, send_artifact
from service.api.jobs import ACCEPTED
from service.api.paging import PageDep, page_body
from service.api.problems import BODY_PROBLEMS, problems
from service.api.schemas.base import ArchModel
from service.api.schemas.deployments import (
    DeploymentList,
    DeploymentModel,
    DeploymentRequest,
    DeploymentSummary,
)
from service.api.schemas.jobs import JobError, JobSummary
from service.api.strict_json import JSON_TYPE, StrictJsonRoute
from service.db import repositories
from service.db.engine import session_scope
from service.db.models import Deployment, Job
from service.jobs.states import JobState
from service.usecases.deployments import (
    MANIFEST,
    MODEL,
    create_deployment,
    get_deployment,
    get_files,
    plan_from_arch,
    plan_from_search,
)
from supernet.spaces.arch import Arch

router = APIRouter(prefix="/v1/deployments", tags=["deployments"], route_class=StrictJsonRoute)

ONNX_TYPE = "application/octet-stream"


def summarise_deployment(deployment: Deployment, job: Job) -> DeploymentSummary:
    """A deployment in brief; its state is its job's."""
    state = JobState(job.state)
    return DeploymentSummary(id=deployment.deployment_id, state=state, job=JobSummary(id=job.job_id, state=state))


def show_deployment(deployment: Deployment, job: Job) -> DeploymentModel:
    """A deployment as the API shows it."""
    here = f"/v1/deployments/{deployment.deployment_id}"
    ready = deployment.artifact_prefix is not None
    return DeploymentModel(
        **dict(summarise_deployment(deployment, job)),
        supernet=deployment.supernet_id,
        search_id=deployment.search_id,
        device=deployment.device_id,
        arch=ArchModel(**deployment.arch),
        arch_id=deployment.arch_id,
        precision=deployment.precision,
        opset=deployment.opset,
        error=None if job.error is None else JobError(**job.error),
        files={name: f"{here}/{name}" for name in (MODEL, MANIFEST)} if ready else None,
        created_at=deployment.created_at,
    )


@router.post(
    "",
    status_code=202,
    summary="Deploy a subnet as ONNX",
    responses={**ACCEPTED, **problems(*BODY_PROBLEMS, 404, 409)},
)
def post_deployment(services: ServicesDep, request: DeploymentRequest, response: Response) -> DeploymentModel:
    """Cut the subnet out, recalibrate it, export and verify it: a job. `Location` is where its result will be.

    409 `no_weights` or `no_calibration` where the supernet can only be searched.
    """
    with session_scope(services.sessions, write=False) as session:
        if request.arch is None:
            plan = plan_from_search(
                session,
                services.catalog,
                str(request.search_id),
                precision=request.precision,
                opset=request.opset,
            )
        else:
            plan = plan_from_arch(
                session,
                services.catalog,
                Arch.from_dict(request.arch.model_dump()),
                supernet_id=request.supernet,
                device_id=request.device,
                precision=request.precision,
                opset=request.opset,
            )
    with session_scope(services.sessions) as session:
        deployment, job = create_deployment(session, services.queue, plan)
    response.headers["Location"] = f"/v1/deployments/{deployment.deployment_id}"
    return show_deployment(deployment, job)


@router.get("", summary="List deployments", response_model=DeploymentList, responses=problems(422))
def list_deployments(session: ReadSession, page: PageDep) -> dict[str, Any]:
    """Newest first."""
    return page_body(repositories.list_deployments(session, page), lambda found: show_deployment(*found))


@router.get("/{deployment_id}", summary="Get a deployment", responses=problems(404))
def read_deployment(session: ReadSession, deployment_id: str) -> DeploymentModel:
    """Its state is its job's; `files` says where to download from once it has succeeded."""
    return show_deployment(*get_deployment(session, deployment_id))


@router.get(
    f"/{{deployment_id}}/{MODEL}",
    summary="Download the ONNX file",
    response_class=Response,
    responses={
        200: {"description": "The model.", "content": {ONNX_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The range asked for.", "content": {ONNX_TYPE: {"schema": {"type": "string"}}}},
        304: {"description": "The client has it (`If-None-Match`)."},
        **problems(404, 409, 416),
    },
    openapi_extra=FILE_HEADERS,
)
def download_model(request: Request, services: ServicesDep, deployment_id: str) -> Response:
    """With `ETag` (the file's SHA-256) and byte ranges. 409 `not_ready` before the job's success, `failed` after."""
    with session_scope(services.sessions, write=False) as session:
        prefix, manifest = get_files(session, deployment_id)
    artifact = Artifact(f"{prefix}/{MODEL}", str(manifest["model"]["sha256"]), ONNX_TYPE, f"{deployment_id}.onnx")
    return send_artifact(request, services.artifacts, artifact)


@router.get(
    f"/{{deployment_id}}/{MANIFEST}",
    summary="Download the manifest",
    response_class=Response,
    responses={
        200: {"description": "The manifest.", "content": {JSON_TYPE: {"schema": {"type": "object"}}}},
        206: {"description": "The range asked for.", "content": {JSON_TYPE: {"schema": {"type": "string"}}}},
        304: {"description": "The client has it (`If-None-Match`)."},
        **problems(404, 409, 416),
    },
    openapi_extra=FILE_HEADERS,
)
def download_manifest(request: Request, services: ServicesDep, deployment_id: str) -> Response:
    """Arch, hashes, normalisation, classes, parity, accuracy, latency and versions."""
    with session_scope(services.sessions, write=False) as session:
        prefix, _ = get_files(session, deployment_id)
    key = f"{prefix}/{MANIFEST}"
    sha256 = hashlib.sha256(services.artifacts.read_bytes(key)).hexdigest()
    return send_artifact(request, services.artifacts, Artifact(key, sha256, JSON_TYPE, f"{deployment_id}.json"))
