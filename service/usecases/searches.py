"""Searches: the best subnet of a supernet within the constraints.

A search takes a fraction of a second of computing, so it holds no transaction: plan (reads), answer, record (writes).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from service.answers import find_best
from service.db import repositories
from service.db.models import Search
from service.errors import NotFoundError
from service.usecases.deployments import DeploymentPlan, create_deployment, validate_deployable
from service.usecases.latency_tables import find_estimator
from service.usecases.supernets import get_supernet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from latency_tables.estimator import LatencyEstimator
    from service.db.models import Deployment, Job
    from service.db.repositories import TableRef
    from service.jobs.queue import JobQueue
    from service.usecases.catalog import Catalog, LoadedSupernet
    from supernet.spaces.arch import Arch

DEFAULT_OPSET = 18


@dataclass(frozen=True)
class SearchQuestion:
    """What is asked for.

    Attributes:
        supernet_id: None for the default one.
        constraints: Upper limit by name: `latency_ms`, `macs`, `params`, `size_bytes`.
        confidence: Quantile of the latency that is held to the budget; None for the estimate itself.
        evaluations: Upper limit of the archs to look at.
        deploy: Whether to make a deployment of the answer.
    """

    device_id: str
    constraints: Mapping[str, float]
    supernet_id: str | None = None
    confidence: float | None = None
    precision: str = "fp32"
    seed: int = 0
    evaluations: int = 10_000
    deploy: bool = False


@dataclass(frozen=True)
class SearchPlan:
    """A question with everything it needs; no database is looked at any more."""

    question: SearchQuestion
    supernet: LoadedSupernet
    table: TableRef
    estimator: LatencyEstimator


@dataclass(frozen=True)
class SearchAnswer:
    """The arch found, and the search object without its id and deployment."""

    arch: Arch
    result: dict[str, Any]


def plan_search(session: Session, catalog: Catalog, question: SearchQuestion) -> SearchPlan:
    """Look up what a search needs.

    Raises:
        NotFoundError: `unknown_supernet` or `unknown_device`.
        ConflictError: `no_table`.
        MissingPartError: The supernet has no predictor; or no weights, and a deployment is asked for.
        MissingEntryError: The table lacks blocks of the supernet.
    """
    supernet = catalog.supernet(get_supernet(session, question.supernet_id))
    table, estimator = find_estimator(session, catalog, question.device_id, supernet=supernet)
    _ = supernet.predictor
    if question.deploy:
        validate_deployable(supernet)
    return SearchPlan(question, supernet, table, estimator)


def answer_search(plan: SearchPlan) -> SearchAnswer:
    """Search. The same plan gives the same answer but for `seconds`.

    Raises:
        ConflictError: `no_common_resolution`: space, table and predictor know no resolution in common.
        InfeasibleBudgetError: No subnet meets the constraints; latencies in it are at the confidence asked for.
    """
    question, supernet = plan.question, plan.supernet
    arch, found = find_best(
        supernet.predictor,
        plan.estimator,
        constraints=question.constraints,
        confidence=question.confidence,
        precision=question.precision,
        evaluations=question.evaluations,
        seed=question.seed,
    )
    result = {
        "supernet": supernet.supernet_id,
        "device": question.device_id,
        "constraints": dict(question.constraints),
        **found,
        "versions": {
            "table": plan.table.version,
            "table_sha256": plan.table.document_sha256,
            "supernet": supernet.bundle.sha256,
            "predictor": supernet.predictor_sha256,
            "tailor": version("tailor-nas"),
        },
    }
    return SearchAnswer(arch, result)


def record_search(
    session: Session, queue: JobQueue, plan: SearchPlan, answer: SearchAnswer
) -> tuple[Search, tuple[Deployment, Job] | None]:
    """Store a search, with its deployment where one was asked for: both or neither.

    Raises:
        ConflictError: The device or the supernet was deleted meanwhile.
    """
    search_id = uuid4().hex
    search = Search(
        search_id=search_id,
        supernet_id=plan.supernet.supernet_id,
        device_id=plan.question.device_id,
        table_version=plan.table.version,
        result={"id": search_id, **answer.result},
    )
    repositories.insert(session, search)
    if not plan.question.deploy:
        return search, None
    deployment = DeploymentPlan(
        plan.supernet,
        answer.arch,
        plan.question.precision,
        DEFAULT_OPSET,
        search_id=search_id,
        device_id=plan.question.device_id,
        accuracy=answer.result["accuracy"],
        latency=answer.result["latency_ms"],
        table_version=plan.table.version,
    )
    return search, create_deployment(session, queue, deployment)


def get_search(session: Session, search_id: str) -> tuple[Search, tuple[Deployment, Job] | None]:
    """A search and the newest deployment made from it.

    Raises:
        NotFoundError: `unknown_search`.
    """
    search = repositories.find_search(session, search_id)
    if search is None:
        raise NotFoundError(
            f"No search {search_id[:80]!r}. GET /v1/searches lists those there are.", code="unknown_search"
        )
    return search, repositories.newest_deployments(session, [search_id]).get(search_id)
