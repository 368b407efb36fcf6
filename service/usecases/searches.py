"""Searches: the best subnet of a supernet within the constraints.

A search takes a fraction of a second of computing, so it holds no transaction: plan (reads), answer, record (writes).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from supernet.search.evolution import evolve

from service.db import repositories
from service.db.models import Search
from service.errors import NotFoundError
from service.usecases.deployments import DeploymentPlan, create_deployment, validate_deployable
from service.usecases.estimates import (
    estimate_latency,
    find_estimator,
    known_resolutions,
    predict_accuracy,
    size_cost,
    sizes_of,
)
from service.usecases.supernets import get_supernet
from supernet.search.problem import Constraint, SearchProblem
from supernet.spaces.costs import macs_cost, params_cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from latency_tables.estimator import LatencyEstimator
    from service.db.models import Deployment, Job
    from service.db.repositories import TableRef
    from service.jobs.queue import JobQueue
    from service.usecases.catalog import Catalog, LoadedSupernet
    from supernet.spaces.arch import Arch
    from supernet.spaces.costs import AdditiveCost

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
    problem = SearchProblem(
        space=supernet.space,
        accuracy=supernet.predictor.predict,
        constraints=tuple(
            Constraint(name, _cost_of(name, plan), float(maximum)) for name, maximum in question.constraints.items()
        ),
        resolutions=known_resolutions(supernet, plan.estimator),
    )
    found = evolve(problem, evaluations=question.evaluations, seed=question.seed)
    result = {
        "supernet": supernet.supernet_id,
        "device": question.device_id,
        "constraints": dict(question.constraints),
        "arch": found.arch.to_dict(),
        "arch_id": found.arch.arch_id,
        "accuracy": predict_accuracy(supernet, found.arch),
        "latency_ms": estimate_latency(plan.estimator, found.arch),
        "latencies": None,
        **sizes_of(supernet.space, found.arch, precision=question.precision),
        "peak_memory_bytes": None,
        "evaluations": found.evaluations,
        "seconds": found.seconds,
        "source": "evolution",
        "versions": {
            "table": plan.table.version,
            "table_sha256": plan.table.document_sha256,
            "supernet": supernet.bundle.sha256,
            "predictor": supernet.predictor_sha256,
            "tailor": version("tailor-nas"),
        },
    }
    return SearchAnswer(found.arch, result)


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


def _cost_of(name: str, plan: SearchPlan) -> AdditiveCost:
    space = plan.supernet.space
    match name:
        case "latency_ms":
            return _at_confidence(plan.estimator, plan.question.confidence)
        case "macs":
            return macs_cost(space)
        case "params":
            return params_cost(space)
        case _:
            return size_cost(space, plan.question.precision)


def _at_confidence(estimator: LatencyEstimator, confidence: float | None) -> AdditiveCost:
    """The upper quantile of the latency; it is a multiple of the estimate, so it adds up over blocks as well.

    The cost is scaled rather than the budget, so that an infeasible budget is reported in what was asked for.
    """
    if confidence is None:
        return estimator.cost
    ratio = estimator.ratio_at(confidence)
    scaled = copy(estimator.cost)
    scaled.tables = [table * ratio for table in scaled.tables]
    scaled.fixed = scaled.fixed * ratio
    return scaled
