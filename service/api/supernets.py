"""Supernets and search spaces."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from latency_tables.table import spec_to_dict
from service.api.deps import ReadSession
from service.api.paging import PageDep, page_body
from service.api.problems import problems
from service.api.schemas.supernets import (
    BlockList,
    BlockModel,
    NormalisationModel,
    PredictorModel,
    SupernetList,
    SupernetModel,
)
from service.db import repositories
from service.db.models import Supernet
from service.usecases.supernets import get_space, get_supernet

router = APIRouter(prefix="/v1", tags=["supernets"])


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
        deployable={"weights", "calibration"} <= set(manifest["parts"]),
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


@router.get("/supernets/{supernet_id}", summary="Get a supernet", responses=problems(404))
def read_supernet(session: ReadSession, supernet_id: str) -> SupernetModel:
    """Space, resolutions, classes, predictor quality and provenance."""
    return show_supernet(get_supernet(session, supernet_id))


@router.get("/spaces/{space}/blocks", summary="List the blocks of a space", tags=["devices"], responses=problems(404))
def list_blocks(space: str) -> BlockList:
    """What a latency table for the space has to hold, one row per block."""
    found = get_space(space)
    blocks = [BlockModel(**spec_to_dict(spec)) for spec in found.distinct_blocks()]
    return BlockList(space=found.name, resolutions=list(found.resolutions), items=blocks)
