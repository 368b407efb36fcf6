"""Searches: a device and a budget in, the best subnet out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from service.api.deployments import summarise_deployment
from service.api.deps import ReadSession, ServicesDep
from service.api.paging import PageDep, page_body
from service.api.problems import BODY_PROBLEMS, problems
from service.api.schemas.searches import SearchList, SearchModel, SearchRequest
from service.api.strict_json import StrictJsonRoute
from service.db import repositories
from service.db.engine import session_scope
from service.db.models import Deployment, Job, Search
from service.usecases.searches import SearchQuestion, answer_search, get_search, plan_search, record_search

router = APIRouter(prefix="/v1/searches", tags=["searches"], route_class=StrictJsonRoute)


def show_search(search: Search, deployment: tuple[Deployment, Job] | None) -> SearchModel:
    """A search as the API shows it: what was found then, and what became of it since."""
    shown = None if deployment is None else summarise_deployment(*deployment)
    return SearchModel(**search.result, deployment=shown)


@router.post(
    "",
    status_code=201,
    summary="Search for the best subnet within a budget",
    responses=problems(*BODY_PROBLEMS, 404, 409),
)
def post_search(services: ServicesDep, request: SearchRequest, response: Response) -> SearchModel:
    """The most accurate subnet that keeps every constraint.

    A budget nobody can meet: 409 `infeasible_budget` with `binding` (which constraint) and `best_achievable` (the
    nearest possible values and their arch). With `confidence`, the upper quantile of the latency is held to the
    budget. The same request on the same versions gives the same arch.
    """
    question = SearchQuestion(
        device_id=request.device,
        constraints=request.constraints.model_dump(exclude_none=True),
        supernet_id=request.supernet,
        confidence=request.confidence,
        precision=request.precision,
        seed=request.seed,
        evaluations=request.evaluations or services.settings.search_evaluations,
        deploy=request.deploy,
    )
    with session_scope(services.sessions, write=False) as session:
        plan = plan_search(session, services.catalog, question)
    answer = answer_search(plan)
    with session_scope(services.sessions) as session:
        search, deployment = record_search(session, services.queue, plan, answer)
    response.headers["Location"] = f"/v1/searches/{search.search_id}"
    return show_search(search, deployment)


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
