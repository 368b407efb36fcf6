"""What endpoints are given. One request is one transaction, committed before the response leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session, sessionmaker

from service.artifacts import ArtifactStore
from service.bundles import BundleStore
from service.db.engine import session_scope
from service.jobs.queue import JobQueue
from service.settings import Settings
from service.turns import Turns
from service.usecases.catalog import Catalog

if TYPE_CHECKING:
    from sqlalchemy import Engine


@dataclass(frozen=True)
class Services:
    """What one application shares between its requests; held by the application, not by a module."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    artifacts: ArtifactStore
    bundles: BundleStore
    queue: JobQueue
    catalog: Catalog
    turns: Turns


def services_of(request: Request) -> Services:
    """The services of the application that serves the request."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


def read_session(services: ServicesDep) -> Iterator[Session]:
    """A transaction that only reads."""
    with session_scope(services.sessions, write=False) as session:
        yield session


def write_session(services: ServicesDep) -> Iterator[Session]:
    """A transaction that writes."""
    with session_scope(services.sessions) as session:
        yield session


# Scope "function": a commit that fails has to become the response, not follow it.
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
WriteSession = Annotated[Session, Depends(write_session, scope="function")]
