"""Pools of a supernet: per amount of a resource the subnet that training chose, and what was deployed of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.db import repositories
from service.usecases.supernets import get_supernet
from supernet.pools.storage import load_pools
from supernet.spaces.costs import macs, params

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from supernet.bundle import Bundle


MOST_DEPLOYMENTS = 20
"""Shown per pool."""


def describe_pools(bundle: Bundle) -> list[dict[str, Any]]:
    """What a supernet's row keeps of each pool of its bundle; empty where it has none.

    Raises:
        InvalidBundleError: The part is damaged.
        FingerprintMismatchError: It belongs to another space.
    """
    if "pools" not in bundle.manifest.parts:
        return []
    return [
        {
            "resource": choice.resource,
            "low": choice.low,
            "high": choice.high,
            "arch": choice.arch.to_dict(),
            "arch_id": choice.arch.arch_id,
            "accuracy": {"evaluated": choice.top1, "images": choice.images},
            "macs": macs(bundle.space, choice.arch),
            "params": params(bundle.space, choice.arch),
        }
        for choice in load_pools(bundle.pools_path, bundle.space)
    ]


def list_pools(session: Session, supernet_id: str) -> list[dict[str, Any]]:
    """The pools of a supernet by resource and from the smallest, each with the newest deployments of its arch.

    Raises:
        NotFoundError: `unknown_supernet`.
    """
    # Rows of earlier versions do not say it; their bundles had none.
    pools = get_supernet(session, supernet_id).manifest.get("pools", [])
    if not pools:
        return []
    deployments = repositories.list_deployment_states(
        session, supernet_id, arch_ids=[pool["arch_id"] for pool in pools], limit=MOST_DEPLOYMENTS
    )
    return [
        pool
        | {
            "deployments": [
                {"id": deployment_id, "state": state} for deployment_id, state in deployments.get(pool["arch_id"], [])
            ]
        }
        for pool in sorted(pools, key=lambda pool: (pool["resource"], pool["low"]))
    ]
