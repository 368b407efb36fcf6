"""The application: wires settings, database, artefacts, queue and routers. The composition root of the API process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from pydantic.json_schema import models_json_schema

from service.api import (
    deployments,
    devices,
    health,
    jobs,
    measurements,
    pools,
    populations,
    searches,
    supernets,
    tables,
)
from service.api.body_limit import BodyLimit, Limit
from service.api.deps import Services
from service.api.problems import install_problem_handlers, problems
from service.api.schemas.problems import Problem
from service.api.strict_query import refuse_unknown_query
from service.artifacts import ArtifactStore
from service.bundles import BundleStore
from service.db.engine import build_engine, session_factory
from service.jobs.queue import JobQueue
from service.turns import Turns
from service.usecases.catalog import Catalog

if TYPE_CHECKING:
    from service.settings import Settings

_DESCRIPTION = """One supernet, cut to fit every device: register a device's latency table, POST a budget,
download a verified ONNX file. Errors are RFC 9457 problem bodies with a `code`. Lists are `{items, next_cursor}`,
newest first; pass `next_cursor` as `cursor` for the next page."""


def create_app(settings: Settings) -> FastAPI:
    """Build the application; the database has to be migrated before the first request.

    Raises:
        StorageError: The artefact store cannot be opened.
    """
    engine = build_engine(settings)
    artifacts = ArtifactStore(settings.effective_artifacts_url)
    bundles = BundleStore(artifacts, settings.data_dir)
    services = Services(
        settings=settings,
        engine=engine,
        sessions=session_factory(engine),
        artifacts=artifacts,
        bundles=bundles,
        queue=JobQueue(settings, engine),
        catalog=Catalog(bundles),
        turns=Turns(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        services.queue.close()
        engine.dispose()

    app = _DocumentedApp(
        title="Tailor",
        summary="Hardware-aware subnets as verified ONNX files.",
        description=_DESCRIPTION,
        version=version("tailor-nas"),
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; /openapi.json is read by every client generator.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.add_middleware(
        BodyLimit,
        limit=Limit(settings.max_body_bytes, "TAILOR_MAX_BODY_BYTES"),
        others={("POST", "/v1/supernets"): Limit(settings.max_bundle_bytes, "TAILOR_MAX_BUNDLE_BYTES")},
    )
    install_problem_handlers(app)
    app.include_router(health.router)  # probes add what they like
    modules = (supernets, pools, populations, devices, tables, measurements, searches, deployments, jobs)
    for router in (*(module.router for module in modules), searches.batch_router):
        app.include_router(router, dependencies=[Depends(refuse_unknown_query)], responses=problems(422))
    return app


class _DocumentedApp(FastAPI):
    """Adds the problem body, which no route returns itself, to the schema."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, built once."""
        if self.openapi_schema is None:
            document = super().openapi()
            _, schema = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            schemas = document["components"]["schemas"]
            schemas |= schema["$defs"]
            # FastAPI adds its own 422 body to every route with a parameter; ours are declared where they can occur.
            for operation in (operation for path in document["paths"].values() for operation in path.values()):
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
        return super().openapi()
