"""Pools of a supernet."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.deps import ReadSession
from service.api.problems import problems
from service.api.schemas.pools import PoolList, PoolModel
from service.usecases.pools import list_pools

router = APIRouter(prefix="/v1", tags=["supernets"])


@router.get("/supernets/{supernet_id}/pools", summary="List a supernet's pools", responses=problems(404))
def read_pools(session: ReadSession, supernet_id: str) -> PoolList:
    """Per amount of a resource the subnet that PSS-Net chose, with its deployments; empty for any other supernet."""
    return PoolList(items=[PoolModel(**pool) for pool in list_pools(session, supernet_id)])
