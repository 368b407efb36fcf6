"""What is known of one subnet before it is built: predicted accuracy, estimated latency, size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.db import repositories
from service.errors import ConflictError
from service.usecases.devices import get_device
from supernet.spaces.costs import AdditiveCost, macs, params

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from latency_tables.estimator import LatencyEstimator
    from service.db.repositories import TableRef
    from service.usecases.catalog import Catalog, LoadedSupernet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

ACCURACY_LEVEL = 0.9
# An accuracy interval holds for the accuracy somebody evaluates on a test set of this size (that of CIFAR-10).
TEST_IMAGES = 10_000
BYTES_PER_PARAM = {"fp32": 4}


def find_estimator(
    session: Session, catalog: Catalog, device_id: str, *, supernet: LoadedSupernet
) -> tuple[TableRef, LatencyEstimator]:
    """The newest table of a device for a supernet's space, compiled.

    Raises:
        NotFoundError: `unknown_device`.
        ConflictError: `no_table`.
        MissingEntryError: The table lacks blocks of the supernet.
    """
    get_device(session, device_id)
    space = supernet.space.name
    table = repositories.find_table(session, device_id, space=space)
    if table is None:
        raise ConflictError(
            f"Device '{device_id}' has no latency table for space '{space}'. Measure one with `tailor profile` and "
            f"register it: PUT /v1/devices/{device_id}/tables/{space}.",
            code="no_table",
        )
    estimator = catalog.estimator(
        table, supernet.space, load_document=lambda: repositories.load_table_document(session, table)
    )
    return table, estimator


def known_resolutions(supernet: LoadedSupernet, estimator: LatencyEstimator) -> tuple[int, ...]:
    """The resolutions that space, table and, where there is one, predictor know.

    Raises:
        ConflictError: `no_common_resolution`.
    """
    predicted = supernet.predictor.resolutions if supernet.predictor_sha256 else supernet.space.resolutions
    common = tuple(
        resolution
        for resolution in supernet.space.resolutions
        if resolution in estimator.resolutions and resolution in predicted
    )
    if not common:
        raise ConflictError(
            f"Space {list(supernet.space.resolutions)}, table {list(estimator.resolutions)} and predictor "
            f"{list(predicted)} know no resolution in common. Measure a table with the predictor's resolutions.",
            code="no_common_resolution",
        )
    return common


def estimate_latency(estimator: LatencyEstimator, arch: Arch) -> dict[str, Any]:
    """`{estimated, low, high, level}` in milliseconds."""
    (estimate,) = estimator.estimate([arch])
    return {
        "estimated": estimate.estimated_ms,
        "low": estimate.low_ms,
        "high": estimate.high_ms,
        "level": estimate.level,
    }


def predict_accuracy(supernet: LoadedSupernet, arch: Arch) -> dict[str, Any] | None:
    """`{predicted, low, high, level}` as fractions; None where no predictor knows the arch's resolution."""
    if supernet.predictor_sha256 is None or arch.resolution not in supernet.predictor.resolutions:
        return None
    rows = supernet.space.to_rows([arch])
    low, high = supernet.predictor.interval(rows, ACCURACY_LEVEL, extra_images=TEST_IMAGES)
    return {
        "predicted": float(supernet.predictor.predict(rows)[0]),
        "low": float(low[0]),
        "high": float(high[0]),
        "level": ACCURACY_LEVEL,
    }


def size_cost(space: SearchSpace, precision: str) -> AdditiveCost:
    """Bytes of the parameters of whole populations."""
    return AdditiveCost(space, lambda spec: spec.params * BYTES_PER_PARAM[precision])


def sizes_of(space: SearchSpace, arch: Arch, *, precision: str) -> dict[str, int]:
    """`{macs, params, size_bytes}` of one arch."""
    count = params(space, arch)
    return {"macs": macs(space, arch), "params": count, "size_bytes": count * BYTES_PER_PARAM[precision]}
