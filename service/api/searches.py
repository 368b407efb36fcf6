"""Searches: a device and a budget in, the best subnet out."""

from __future__ import annotations

from contextlib import nullcontext
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.api.deployments import summarise_deployment
from service.api.deps import ReadSession, Services, ServicesDep
from service.api.jobs import ACCEPTED
from service.api.paging import PageDep, page_body
from service.api.problems import BODY_PROBLEMS, problem_body, problems
from service.api.schemas.jobs import JobSummary
from service.api.schemas.problems import Problem
from service.api.schemas.searches import (
    BatchItem,
    BatchModel,
    BatchRequest,
    SearchList,
    SearchModel,
    SearchOrder,
    SearchRequest,
)
from service.api.strict_json import StrictJsonRoute
from service.db import repositories
from service.db.engine import session_scope
from service.db.models import Deployment, Job, Search
from service.jobs.states import JobState
from service.questions import LATENCY_BUDGETS, Question
from service.settings import MAX_EVALUATIONS_AT_ONCE
from service.usecases.searches import (
    SearchPlan,
    SearchQuestion,
    answer_search,
    answer_searches,
    get_search,
    order_search,
    plan_search,
    plan_searches,
    record_search,
    record_searches,
)

router = APIRouter(prefix="/v1/searches", tags=["searches"], route_class=StrictJsonRoute)


def show_search(search: Search, deployment: tuple[Deployment, Job] | None) -> SearchModel:
    """A search as the API shows it: what was found then, and what became of it since."""
    shown = None if deployment is None else summarise_deployment(*deployment)
    return SearchModel(**search.result, deployment=shown)


@router.post(
    "",
    status_code=201,
    summary="Search for the best subnet within a budget",
    response_model=SearchModel,
    responses={
        202: {"description": "It takes a while; `Location` is where its answer will be.", "model": SearchOrder}
        | ACCEPTED[202],
        **problems(*BODY_PROBLEMS, 404, 409, 429),
    },
)
def post_search(services: ServicesDep, request: SearchRequest, response: Response) -> Any:
    """The most accurate subnet that keeps every constraint.

    A budget nobody can meet: 409 `infeasible_budget` with `binding` (which constraint) and `best_achievable` (the
    nearest possible values and their arch). With `confidence`, the upper quantile of the latency is held to the
    budget. The same request on the same versions gives the same arch; where the device's front is known by then
    (`GET /v1/devices/{id}/front`), it is looked up there and `source` says `front`. A search of very many evaluations
    is a job of the long lane.
    """
    asked = _asked(request, services)
    with session_scope(services.sessions, write=False) as session:
        plan = plan_search(session, services.catalog, asked)
    if asked.question.evaluations > MAX_EVALUATIONS_AT_ONCE:
        with session_scope(services.sessions) as session:
            job = order_search(session, services.queue, plan)
        order = SearchOrder(id=job.job_id, job=JobSummary(id=job.job_id, state=JobState(job.state)))
        headers = {"Location": f"/v1/searches/{job.job_id}"}
        return JSONResponse(order.model_dump(mode="json"), status_code=202, headers=headers)
    with nullcontext() if plan.is_known else services.turns.take():
        answer = answer_search(plan)
    with session_scope(services.sessions) as session:
        search, deployment = record_search(session, services.queue, plan, answer)
    response.headers["Location"] = f"/v1/searches/{search.search_id}"
    return show_search(search, deployment)


batch_router = APIRouter(prefix="/v1/searches:batch", tags=["searches"], route_class=StrictJsonRoute)


@batch_router.post("", summary="Search for a whole fleet", responses=problems(*BODY_PROBLEMS, 404, 409, 429))
def post_batch(services: ServicesDep, request: Request, batch: BatchRequest) -> BatchModel:
    """Many devices and budgets, one answer each, in the order they were asked.

    A search without an answer has its `problem` in place; the others are stored like single ones.
    """
    started = perf_counter()
    with session_scope(services.sessions, write=False) as session:
        plans = plan_searches(session, services.catalog, [_asked(one, services) for one in batch.searches])
    is_known = all(plan.is_known for plan in plans if isinstance(plan, SearchPlan))
    with nullcontext() if is_known else services.turns.take():
        outcomes = answer_searches(plans)
    with session_scope(services.sessions) as session:
        items = [
            BatchItem(search=None, problem=Problem(**problem_body(request, stored)))
            if isinstance(stored, Exception)
            else BatchItem(search=show_search(*stored), problem=None)
            for stored in record_searches(session, services.queue, plans, outcomes)
        ]
    return BatchModel(items=items, seconds=perf_counter() - started)


def _asked(request: SearchRequest, services: Services) -> SearchQuestion:
    constraints = request.constraints.model_dump(exclude_none=True)
    own = {name: constraints.pop(name) for name in LATENCY_BUDGETS if name in constraints}
    budgets = {str(request.device): own}
    if request.devices is not None:
        budgets = {
            budget.device: budget.model_dump(exclude={"device"}, exclude_none=True) for budget in request.devices
        }
    question = Question(
        constraints=constraints,
        objective=request.objective,
        confidence=request.confidence,
        precision=request.precision,
        evaluations=request.evaluations or services.settings.search_evaluations,
        seed=request.seed,
        candidates=request.candidates,
    )
    return SearchQuestion(
        budgets=budgets,
        question=question,
        supernet_id=request.supernet,
        deploy=request.deploy,
        may_look_up=request.evaluations is None,
    )


@router.get("", summary="List searches", response_model=SearchList, responses=problems(422))
def list_searches(session: ReadSession, page: PageDep) -> dict[str, Any]:
    """Newest first."""
    found = repositories.list_searches(session, page)
    made = repositories.newest_deployments(session, [search.search_id for search in found.items])
    return page_body(found, lambda search: show_search(search, made.get(search.search_id)))


@router.get("/{search_id}", summary="Get a search", responses=problems(404))
def read_search(session: ReadSession, search_id: str) -> SearchModel:
    """The search object, with the newest deployment made from it."""
    return show_search(*get_search(session, search_id))
