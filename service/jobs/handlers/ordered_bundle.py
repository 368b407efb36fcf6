"""The bundle that a job of the long lane was ordered for, opened by the child."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import ConflictError
from supernet.bundle import open_bundle

if TYPE_CHECKING:
    from service.jobs.states import FrontPayload, PopulationPayload, PredictorPayload, SearchPayload
    from supernet.bundle import Bundle


def open_ordered(order: PopulationPayload | PredictorPayload | FrontPayload | SearchPayload) -> Bundle:
    """Open the bundle of an order whose URI names a folder or what comes with the package.

    Raises:
        ConflictError: `bundle_changed`: another bundle has taken its place.
        InvalidBundleError: It is damaged.
    """
    bundle = open_bundle(order.bundle_uri.partition(":")[2])
    if bundle.sha256 != order.bundle_sha256:
        raise ConflictError(
            f"The files of supernet '{order.supernet_id}' changed since this job was ordered. Order it again.",
            code="bundle_changed",
        )
    return bundle
