"""Bundles, predictors and estimators in memory: opened and compiled once per process, then shared by all requests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from latency_tables.estimator import LatencyEstimator
from latency_tables.table import LatencyTable
from service.errors import ConflictError
from supernet.bundle import Bundle, open_bundle, shipped_bundles
from supernet.predictors.loading import load_predictor
from supernet.predictors.predictor import Predictor, describe_accuracy
from supernet.search.front import Front

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.bundles import BundleStore
    from service.db.models import Supernet
    from service.db.repositories import TableRef
    from supernet.spaces.space import SearchSpace

SHIPPED = "shipped:"
_MAX_SUPERNETS = 16
_MAX_ESTIMATORS = 128
_MAX_FRONTS = 128

Value = TypeVar("Value")


@dataclass
class _Cache(Generic[Value]):
    """At most `size` values, the oldest dropped first. Reading takes no lock, so a slow build stops nobody else."""

    size: int
    values: dict[tuple[str, ...], Value] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def get(self, key: tuple[str, ...], build: Callable[[], Value]) -> Value:
        found = self.values.get(key)
        if found is not None:
            return found
        with self.lock:
            found = self.values.get(key)
            if found is None:
                found = build()
                while len(self.values) >= self.size:
                    del self.values[next(iter(self.values))]
                self.values[key] = found
        return found


@dataclass(frozen=True)
class LoadedSupernet:
    """A supernet whose bundle is open.

    Attributes:
        supernet_id: Its id in the database.
        bundle_uri: Where workers find the bundle.
        bundle: Checked against its hashes.
    """

    supernet_id: str
    bundle_uri: str
    bundle: Bundle

    @property
    def space(self) -> SearchSpace:
        """The search space, with the bundle's classes."""
        return self.bundle.space

    @cached_property
    def predictor(self) -> Predictor:
        """Raises `MissingPartError` where the bundle has none."""
        return load_predictor(self.bundle.predictor_path, self.space)

    @property
    def predictor_sha256(self) -> str | None:
        """Hash of the predictor's file; None where the bundle has none."""
        part = self.bundle.manifest.parts.get("predictor")
        return None if part is None else str(part["sha256"])


class Catalog:
    """What searches need, by what identifies its content; nothing in it ever goes stale.

    Args:
        bundles: Where those that users registered are opened.
    """

    def __init__(self, bundles: BundleStore) -> None:
        self._bundles = bundles
        self._supernets: _Cache[LoadedSupernet] = _Cache(_MAX_SUPERNETS)
        self._estimators: _Cache[LatencyEstimator] = _Cache(_MAX_ESTIMATORS)
        self._fronts: _Cache[Front] = _Cache(_MAX_FRONTS)

    def supernet(self, row: Supernet) -> LoadedSupernet:
        """The supernet of a database row.

        Raises:
            ConflictError: Its files are gone or were changed since it was registered.
            InvalidBundleError: Its files are damaged.
            StorageError: They cannot be fetched.
        """
        key = (row.supernet_id, row.bundle_uri, row.bundle_sha256)
        return self._supernets.get(key, lambda: _open(row, self._bundles))

    def estimator(
        self, table: TableRef, space: SearchSpace, *, load_document: Callable[[], dict[str, Any]]
    ) -> LatencyEstimator:
        """The estimator of a table version for a space.

        Args:
            table: Which version.
            space: The space to compile it for.
            load_document: Reads the version's document; called only where the estimator is not known yet.

        Raises:
            MissingEntryError: The table lacks blocks of the space.
        """
        key = (table.document_sha256, space.fingerprint)
        return self._estimators.get(key, lambda: LatencyEstimator(LatencyTable.from_dict(load_document()), space))

    def front(
        self, front_id: str, estimator: LatencyEstimator, *, load_document: Callable[[], dict[str, Any]]
    ) -> Front:
        """A front that was traced, with the latencies of a table.

        Args:
            front_id: Which one.
            estimator: Of a table that has the rows it was traced with.
            load_document: Reads its document; called only where the front is not known yet.
        """

        def build() -> Front:
            document = load_document()
            rows = np.array(document["rows"], np.int16)
            return Front.of(rows, estimator.cost(rows), np.array(document["accuracies"]))

        return self._fronts.get((front_id, estimator.table.fingerprint), build)


def _open(row: Supernet, bundles: BundleStore) -> LoadedSupernet:
    name = row.bundle_uri.removeprefix(SHIPPED)
    if not row.bundle_uri.startswith(SHIPPED):
        bundle = bundles.open(row.bundle_uri)
    elif name in shipped_bundles():
        bundle = open_bundle(name)
    else:
        raise ConflictError(
            f"The files of supernet '{row.supernet_id}' ('{row.bundle_uri}') do not come with this version.",
            code="bundle_unavailable",
        )
    if bundle.sha256 != row.bundle_sha256:
        raise ConflictError(
            f"The files of supernet '{row.supernet_id}' changed since it was registered. Restart the service.",
            code="bundle_changed",
        )
    loaded = LoadedSupernet(row.supernet_id, row.bundle_uri, bundle)
    if loaded.predictor_sha256 is not None:
        # What the predictor prepares on first use takes time and memory: here once, not in every request that waits.
        arch = replace(loaded.space.smallest(), resolution=loaded.predictor.resolutions[0])
        describe_accuracy(loaded.predictor, arch)
    return loaded
