"""Whether the service is alive and whether it can work."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from service.api.deps import ServicesDep
from service.api.problems import problems

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="Alive", responses=problems())
def get_health() -> Health:
    """The process answers; nothing else is looked at."""
    return Health()


@router.get("/readyz", summary="Ready: database and artefact store reachable", responses=problems())
def get_readiness(services: ServicesDep) -> Health:
    """503 `storage_unavailable` names what is missing."""
    # Alembic is a tenth of the API's start and memory, and nothing else of the API needs it.
    from service.db.migrate import check_current

    check_current(services.engine)
    services.artifacts.check()
    return Health()
