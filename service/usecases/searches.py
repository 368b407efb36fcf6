"""Searches: the best subnet of a supernet within the constraints.

A search takes a fraction of a second of computing, so it holds no transaction: plan (reads), answer, record (writes).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from service.answers import find_best, look_up
from service.db import repositories
from service.db.models import Search
from service.errors import ConflictError, InvalidRequestError, NotFoundError
from service.fleets import KNOWN_ERRORS, Asked, find_all
from service.jobs.states import JobKind, SearchPayload, SearchTarget
from service.questions import Question, Target, build_problem
from service.usecases.deployments import DeploymentPlan, create_deployment, validate_deployable, validate_precision
from service.usecases.fronts import find_front
from service.usecases.latency_tables import find_estimator
from service.usecases.supernets import get_supernet, validate_current
from supernet.search.feasibility import find_anchor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from service.db.models import Deployment, Job
    from service.db.repositories import TableRef
    from service.jobs.queue import JobQueue
    from service.usecases.catalog import Catalog, LoadedSupernet
    from supernet.search.front import Front
    from supernet.spaces.arch import Arch

DEFAULT_OPSET = 18
# Once: reading a package's metadata parses a file.
TAILOR_VERSION = version("tailor-nas")


@dataclass(frozen=True)
class SearchQuestion:
    """What is asked for, by ids.

    Attributes:
        budgets: By device, at least one: at most one of `service.questions.LATENCY_BUDGETS` with its value.
        question: Whatever does not depend on the device.
        supernet_id: None for the default one.
        deploy: Whether to make a deployment of the answer.
        may_look_up: Whether an answer that was traced before will do.
    """

    budgets: Mapping[str, Mapping[str, float]]
    question: Question
    supernet_id: str | None = None
    deploy: bool = False
    may_look_up: bool = True


@dataclass(frozen=True)
class SearchPlan:
    """A question with everything it needs; no database is looked at any more.

    Attributes:
        asked: The question by ids.
        tables: Of the targets, in their order.
        front_id: Of the front of the one device; None where none is known.
    """

    asked: SearchQuestion
    supernet: LoadedSupernet
    targets: tuple[Target, ...]
    tables: tuple[TableRef, ...]
    front_id: str | None = None
    front: Front | None = None

    @property
    def is_known(self) -> bool:
        """Whether the answer is a look-up, which takes no time to speak of."""
        if self.front is None or not self.asked.may_look_up:
            return False
        return look_up(self.front, self.targets[0], self.asked.question) is not None


@dataclass(frozen=True)
class SearchAnswer:
    """The arch found, and the search object without its id and deployment."""

    arch: Arch
    result: dict[str, Any]


def plan_search(session: Session, catalog: Catalog, asked: SearchQuestion) -> SearchPlan:
    """Look up what a search needs.

    Raises:
        NotFoundError: `unknown_supernet` or `unknown_device`.
        ConflictError: `no_table`.
        InvalidRequestError: `unsupported_precision`: deployments are not made in it.
        MissingPartError: The supernet has no predictor; or no weights, and a deployment is asked for.
        MissingEntryError: A table lacks blocks of the supernet.
    """
    supernet = catalog.supernet(get_supernet(session, asked.supernet_id))
    found = [find_estimator(session, catalog, device_id, supernet=supernet) for device_id in asked.budgets]
    _ = supernet.predictor
    if asked.deploy:
        validate_deployable(supernet)
        validate_precision(asked.question.precision)
    tables = tuple(table for table, _ in found)
    targets = tuple(
        Target(device_id, estimator, budget)
        for (device_id, budget), (_, estimator) in zip(asked.budgets.items(), found, strict=True)
    )
    front_id, front = find_front(session, catalog, supernet, found[0][1]) if len(targets) == 1 else (None, None)
    return SearchPlan(asked, supernet, targets, tables, front_id, front)


def answer_search(plan: SearchPlan) -> SearchAnswer:
    """Search. The same plan gives the same answer but for `seconds`.

    Raises:
        ConflictError: `no_common_resolution` or `no_energy`.
        InvalidRequestError: Budgets or objectives that cannot be asked for together.
        InfeasibleBudgetError: No subnet meets the constraints; latencies in it are at the confidence asked for.
    """
    asked = _ask(plan)
    arch, found = find_best(
        plan.supernet.predictor, asked.targets, asked.question, front=asked.front, start=asked.start
    )
    return _complete(plan, arch, found)


def plan_searches(session: Session, catalog: Catalog, asked: Sequence[SearchQuestion]) -> list[SearchPlan | Exception]:
    """`plan_search` for many; where one cannot be asked, the error that says why takes its place."""
    plans: list[SearchPlan | Exception] = []
    for one in asked:
        try:
            plans.append(plan_search(session, catalog, one))
        except KNOWN_ERRORS as error:
            plans.append(error)
    return plans


def answer_searches(plans: Sequence[SearchPlan | Exception]) -> list[SearchAnswer | Exception]:
    """Answer many searches, in their order; errors stay, and take the place of an answer where there is none."""
    by_supernet: dict[str, list[SearchPlan]] = {}
    for plan in plans:
        if isinstance(plan, SearchPlan):
            by_supernet.setdefault(plan.supernet.supernet_id, []).append(plan)
    found = {
        supernet_id: find_all(same[0].supernet.predictor, map(_ask, same)) for supernet_id, same in by_supernet.items()
    }
    answers: list[SearchAnswer | Exception] = []
    for plan in plans:
        if isinstance(plan, Exception):
            answers.append(plan)
            continue
        one = next(found[plan.supernet.supernet_id])
        answers.append(one if isinstance(one, Exception) else _complete(plan, *one))
    return answers


def record_search(
    session: Session, queue: JobQueue, plan: SearchPlan, answer: SearchAnswer
) -> tuple[Search, tuple[Deployment, Job] | None]:
    """Store a search, with its deployment where one was asked for: both or neither.

    A search for several devices belongs to the first one: it goes when that device is deleted.

    Raises:
        ConflictError: The device or the supernet was deleted meanwhile.
    """
    search_id = uuid4().hex
    asked, result = plan.asked, answer.result
    search = Search(
        search_id=search_id,
        supernet_id=plan.supernet.supernet_id,
        device_id=plan.targets[0].device_id,
        table_version=plan.tables[0].version,
        result={"id": search_id, **result},
    )
    repositories.insert(session, search)
    if not asked.deploy:
        return search, None
    deployment = DeploymentPlan(
        plan.supernet,
        answer.arch,
        asked.question.precision,
        DEFAULT_OPSET,
        search_id=search_id,
        device_id=plan.targets[0].device_id,
        accuracy=result["accuracy"],
        latency=result["latency_ms"] or result["latencies"][plan.targets[0].device_id],
        table_version=plan.tables[0].version,
    )
    return search, create_deployment(session, queue, deployment)


def record_searches(
    session: Session,
    queue: JobQueue,
    plans: Sequence[SearchPlan | Exception],
    outcomes: Sequence[SearchAnswer | Exception],
) -> list[tuple[Search, tuple[Deployment, Job] | None] | Exception]:
    """`record_search` for many; errors stay. What was deleted meanwhile costs its own answers, not all of them."""
    stored: list[tuple[Search, tuple[Deployment, Job] | None] | Exception] = []
    for plan, outcome in zip(plans, outcomes, strict=True):
        if isinstance(plan, Exception):
            stored.append(plan)
        elif isinstance(outcome, Exception):
            stored.append(outcome)
        else:
            try:
                with session.begin_nested():
                    stored.append(record_search(session, queue, plan, outcome))
            except ConflictError as error:
                stored.append(error)
    return stored


def _ask(plan: SearchPlan) -> Asked:
    """A known front holds the answer, or is what the search starts from."""
    front, question = plan.front, plan.asked.question
    if plan.asked.may_look_up:
        return Asked(plan.targets, question, front=front)
    return Asked(plan.targets, question, start=None if front is None else front.rows, is_alone=True)


def _complete(plan: SearchPlan, arch: Arch, found: dict[str, Any]) -> SearchAnswer:
    """The search object around what was found."""
    versions = {**_versions_of(plan), "front": plan.front_id if found["source"] == "front" else None}
    device_ids = [target.device_id for target in plan.targets]
    return SearchAnswer(arch, _search_object(plan.supernet.supernet_id, device_ids, found, versions=versions))


def _versions_of(plan: SearchPlan) -> dict[str, Any]:
    tables = plan.tables
    is_one = len(tables) == 1
    return {
        "table": tables[0].version if is_one else {table.device_id: table.version for table in tables},
        "table_sha256": (
            tables[0].document_sha256 if is_one else {table.device_id: table.document_sha256 for table in tables}
        ),
        "supernet": plan.supernet.bundle.sha256,
        "predictor": plan.supernet.predictor_sha256,
        "front": None,
        "tailor": TAILOR_VERSION,
    }


def _search_object(
    supernet_id: str, device_ids: Sequence[str], found: dict[str, Any], *, versions: dict[str, Any]
) -> dict[str, Any]:
    device_id = device_ids[0] if len(device_ids) == 1 else None
    return {"supernet": supernet_id, "device": device_id, **found, "versions": versions}


def order_search(session: Session, queue: JobQueue, plan: SearchPlan) -> Job:
    """Enqueue a search that takes too long to be answered at once; its answer will have the job's id.

    Raises:
        InvalidRequestError: `deploy` was asked for: there is nothing to deploy yet.
        InfeasibleBudgetError: Nothing meets the constraints.
        ConflictError: The supernet was deleted or replaced meanwhile, or as `answer_search`.
    """
    if plan.asked.deploy:
        raise InvalidRequestError(
            f"A search of {plan.asked.question.evaluations:,} evaluations is a job, and cannot be deployed at once. "
            "Leave 'deploy' out and POST its 'search_id' to /v1/deployments when it has succeeded."
        )
    validate_current(session, plan.supernet.supernet_id, bundle_uri=plan.supernet.bundle_uri)
    question = plan.asked.question
    # What nobody can meet is told now and not by a job that failed.
    find_anchor(build_problem(plan.supernet.predictor, plan.targets, question), np.random.default_rng(question.seed))
    payload = SearchPayload(
        supernet_id=plan.supernet.supernet_id,
        bundle_uri=plan.supernet.bundle_uri,
        bundle_sha256=plan.supernet.bundle.sha256,
        targets=[
            SearchTarget(
                device_id=target.device_id, space=table.space, table_version=table.version, budget=dict(target.budget)
            )
            for target, table in zip(plan.targets, plan.tables, strict=True)
        ],
        question=asdict(question),
        front_id=plan.front_id,
        versions=_versions_of(plan),
    )
    return queue.enqueue(session, JobKind.SEARCH, payload)


def insert_search(session: Session, search_id: str, payload: SearchPayload, *, found: dict[str, Any]) -> None:
    """Store what a job of `order_search` found.

    Raises:
        ConflictError: The device or the supernet was deleted meanwhile.
    """
    device_ids = [target.device_id for target in payload.targets]
    result = _search_object(payload.supernet_id, device_ids, found, versions=payload.versions)
    search = Search(
        search_id=search_id,
        supernet_id=payload.supernet_id,
        device_id=device_ids[0],
        table_version=payload.targets[0].table_version,
        result={"id": search_id, **result},
    )
    repositories.insert(session, search)


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
