"""Supernets and search spaces."""

from __future__ import annotations

from tempfile import TemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from latency_tables.table import spec_to_dict
from service.api.deps import ReadSession, ServicesDep
from service.api.paging import PageDep, page_body
from service.api.problems import BODY_PROBLEMS, problems
from service.api.schemas.supernets import (
    BlockList,
    BlockModel,
    NormalisationModel,
    PredictorModel,
    SupernetList,
    SupernetModel,
)
from service.api.strict_json import media_type_of
from service.db import repositories
from service.db.models import Supernet
from service.errors import StorageError
from service.usecases.registration import delete_supernet, register_archive
from service.usecases.supernets import get_space, get_supernet

router = APIRouter(prefix="/v1", tags=["supernets"])

TAR_TYPES = ("application/x-tar", "application/gzip")
_BODY = {
    "required": True,
    "content": {
        media_type: {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": f"A bundle's folder as a {name}: manifest.json and the parts it lists.",
            }
        }
        for media_type, name in zip(TAR_TYPES, ("tar", "tar.gz"), strict=True)
    },
}


def show_supernet(row: Supernet) -> SupernetModel:
    """A supernet as the API shows it."""
    manifest = row.manifest
    predictor = manifest.get("predictor")
    return SupernetModel(
        id=row.supernet_id,
        space=row.space,
        space_fingerprint=manifest["space_fingerprint"],
        resolutions=manifest["space"]["resolutions"],
        classes=manifest["classes"],
        normalisation=NormalisationModel(**manifest["normalisation"]),
        predictor=None if predictor is None else PredictorModel(**predictor),
        # Rows of earlier versions do not say it; their bundles were all of many archs.
        deployable=manifest.get("deployable", {"weights", "calibration"} <= set(manifest["parts"])),
        parts={part: entry["bytes"] for part, entry in manifest["parts"].items()},
        training=manifest["training"],
        versions=manifest["versions"],
        bundle_sha256=row.bundle_sha256,
        is_default=row.is_default,
        created_at=row.created_at,
    )


@router.get("/supernets", summary="List supernets", response_model=SupernetList, responses=problems(422))
def list_supernets(session: ReadSession, page: PageDep) -> dict[str, Any]:
    """Newest first."""
    return page_body(repositories.list_supernets(session, page), show_supernet)


@router.post(
    "/supernets",
    summary="Register a supernet",
    status_code=201,
    responses={
        200: {"description": "The id has this very bundle already.", "model": SupernetModel},
        **problems(*BODY_PROBLEMS, 409),
    },
    openapi_extra={"requestBody": _BODY},
)
async def post_supernet(
    request: Request,
    services: ServicesDep,
    response: Response,
    supernet_id: Annotated[str | None, Query(alias="id", description="The manifest's name where absent.")] = None,
    default: Annotated[bool, Query(description="Whether requests that name no supernet shall mean this one.")] = False,
) -> SupernetModel:
    """Send the folder of a bundle as a tar or tar.gz: `tar -cz -C BUNDLE .`, or `tailor supernet add --server URL`.

    Every file is checked against its hash in the manifest, and the predictor against the space. 409 `supernet_exists`
    where the id has another bundle, `space_mismatch` where the name of its space has another space. Of what is refused
    nothing is stored.
    """
    if media_type_of(request) not in TAR_TYPES:
        given = request.headers.get("content-type", "no content type")
        raise HTTPException(415, f"A bundle is sent as one of {', '.join(TAR_TYPES)}, got {given!r}.")
    # Gone with the process, however it ends.
    with TemporaryFile(dir=services.settings.data_dir) as archive:
        await _receive(request, archive)
        row, is_new = await run_in_threadpool(
            register_archive,
            services.sessions,
            services.bundles,
            archive,
            max_bytes=services.settings.max_bundle_bytes,
            supernet_id=supernet_id,
            default=default,
        )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/supernets/{row.supernet_id}"
    return show_supernet(row)


async def _receive(request: Request, file: IO[bytes]) -> None:
    try:
        async for piece in request.stream():
            await run_in_threadpool(file.write, piece)
        file.seek(0)
    except ClientDisconnect as error:
        raise HTTPException(400, "The body ended before it was whole. Send it again.") from error
    except OSError as error:
        raise StorageError(
            f"The body cannot be kept: {error.strerror or error}. Free some space in the data folder, then send it "
            "again."
        ) from error


@router.get("/supernets/{supernet_id}", summary="Get a supernet", responses=problems(404))
def read_supernet(session: ReadSession, supernet_id: str) -> SupernetModel:
    """Space, resolutions, classes, predictor quality and provenance."""
    return show_supernet(get_supernet(session, supernet_id))


@router.delete("/supernets/{supernet_id}", status_code=204, summary="Delete a supernet", responses=problems(404, 409))
def remove_supernet(services: ServicesDep, supernet_id: str) -> None:
    """Its searches and populations go with it, and its files where no other supernet has the same bundle.

    409 `supernet_in_use` where it has deployments or a job works on it, `default_supernet` where it is the default and
    others could be, `shipped_supernet` where it comes with the package.
    """
    delete_supernet(services.sessions, services.bundles, supernet_id)


@router.get("/spaces/{space}/blocks", summary="List the blocks of a space", tags=["devices"], responses=problems(404))
def list_blocks(session: ReadSession, space: str) -> BlockList:
    """What a latency table for the space has to hold, one row per block: of a preset or of a supernet's own space."""
    found = get_space(session, space)
    blocks = [BlockModel(**spec_to_dict(spec)) for spec in found.distinct_blocks()]
    return BlockList(space=found.name, resolutions=list(found.resolutions), items=blocks)
