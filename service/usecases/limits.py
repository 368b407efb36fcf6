"""The limits of a device: the fastest and the slowest subnet of a supernet, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.answers import sizes_of
from service.questions import BYTES_PER_NUMBER, common_resolutions
from service.usecases.latency_tables import find_estimator
from service.usecases.supernets import get_supernet
from supernet.search.limits import cheapest_arch, dearest_arch
from supernet.spaces.costs import macs_cost, params_cost

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from service.usecases.catalog import Catalog

PRECISION = "fp32"


def get_limits(session: Session, catalog: Catalog, device_id: str, *, supernet_id: str | None) -> dict[str, Any]:
    """Smallest and largest latency, MACs, parameters and size over all subnets a search may return.

    Raises:
        NotFoundError: `unknown_device` or `unknown_supernet`.
        ConflictError: `no_table` or `no_common_resolution`.
        MissingEntryError: The table lacks blocks of the supernet.
    """
    supernet = catalog.supernet(get_supernet(session, supernet_id))
    table, estimator = find_estimator(session, catalog, device_id, supernet=supernet)
    space = supernet.space
    resolutions = common_resolutions(space, [estimator], supernet.predictor if supernet.predictor_sha256 else None)
    ranges: dict[str, dict[str, float]] = {}
    archs = {}
    for name, cost in (("latency_ms", estimator.cost), ("macs", macs_cost(space)), ("params", params_cost(space))):
        smallest, largest = cheapest_arch(cost, resolutions), dearest_arch(cost, resolutions)
        as_unit = float if name == "latency_ms" else int
        ranges[name] = {"min": as_unit(smallest[1]), "max": as_unit(largest[1])}
        if name == "latency_ms":
            for which, (arch, latency_ms) in (("fastest", smallest), ("slowest", largest)):
                sizes = sizes_of(space, arch, precision=PRECISION)
                archs[which] = {"arch": arch.to_dict(), "arch_id": arch.arch_id, "latency_ms": latency_ms, **sizes}
    ranges["size_bytes"] = {bound: value * BYTES_PER_NUMBER[PRECISION] for bound, value in ranges["params"].items()}
    return {
        "supernet": supernet.supernet_id,
        "device": device_id,
        "table_version": table.version,
        "resolutions": list(resolutions),
        **ranges,
        "archs": archs,
    }
