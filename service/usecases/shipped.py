"""What comes with the package: supernet bundles and latency tables, registered when the service starts."""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import TYPE_CHECKING

from latency_tables.table import LatencyTable, parse_table
from service.db import repositories
from service.db.models import Supernet
from service.errors import ConflictError
from service.usecases.catalog import SHIPPED
from service.usecases.latency_tables import register_table
from service.usecases.pools import describe_pools
from supernet.bundle import DEFAULT_BUNDLE, Bundle, open_bundle, shipped_bundles
from supernet.predictors.loading import load_predictor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)


def register_shipped(session: Session) -> None:
    """Register every shipped bundle and table; what is registered already is left alone.

    A shipped bundle that changed with an update takes the place of the old one. A shipped table becomes a new version
    only if no stored version equals it and the newest one was shipped too: a user's own table stays the newest, and a
    user's own supernet what it is.

    Raises:
        InvalidBundleError: A shipped bundle is damaged.
        TableFormatError: A shipped table is damaged.
    """
    for name in shipped_bundles():
        _register_bundle(session, name, open_bundle(name))
    for table in shipped_tables():
        _register_table(session, table)


def shipped_tables() -> Iterator[LatencyTable]:
    """The tables under `latency_tables/data/<device_id>/<space>.json`, by name."""
    folder = files("latency_tables") / "data"
    if not folder.is_dir():
        return
    for device in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if device.is_dir():
            for file in sorted(device.iterdir(), key=lambda entry: entry.name):
                if file.name.endswith(".json"):
                    yield parse_table(file.read_text(encoding="utf-8"), space=file.name.removesuffix(".json"))


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """The manifest, whether subnets can be deployed, what its predictor knows, or None, and its `pools`."""
    described = bundle.manifest.to_dict() | {"deployable": bundle.is_deployable}
    described["predictor"] = None
    if "predictor" in bundle.manifest.parts:
        predictor = load_predictor(bundle.predictor_path, bundle.space)
        described["predictor"] = {
            "quality": predictor.quality.to_dict() if predictor.quality else None,
            "resolutions": list(predictor.resolutions),
        }
    described["pools"] = describe_pools(bundle)
    return described


def _register_bundle(session: Session, name: str, bundle: Bundle) -> None:
    known = repositories.find_supernet(session, name)
    if known is not None and known.bundle_sha256 == bundle.sha256:
        return
    if known is not None and not known.bundle_uri.startswith(SHIPPED):
        logger.warning("the shipped supernet %s is left out: a user registered another bundle under its name", name)
        return
    if known is None:
        default = name == DEFAULT_BUNDLE and repositories.find_default_supernet(session) is None
        known = Supernet(supernet_id=name, is_default=default)
    known.space = bundle.space.name
    known.bundle_uri = f"{SHIPPED}{name}"
    known.bundle_sha256 = bundle.sha256
    known.manifest = describe_bundle(bundle)
    repositories.insert(session, known)
    logger.info("registered supernet %s", name)


def _register_table(session: Session, table: LatencyTable) -> None:
    device_id, space = table.device.device_id, table.space
    if repositories.has_table_document(session, device_id, space=space, document_sha256=table.fingerprint):
        return
    newest = repositories.find_table(session, device_id, space=space)
    if newest is not None and not newest.shipped:
        logger.info("the shipped table %s/%s is left out: version %d is a user's", device_id, space, newest.version)
        return
    try:
        stored, _ = register_table(session, table, shipped=True)
    except ConflictError as error:
        # The user gave the id to other hardware; that must not keep the service from starting.
        logger.warning("the shipped table %s/%s is left out: %s", device_id, space, error)
        return
    logger.info("registered table %s/%s version %d", device_id, space, stored.version)
