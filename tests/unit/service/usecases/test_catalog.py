"""The cache behind the catalog: each value is built once, whoever asks, and only so many are kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.artifacts import ArtifactStore
from service.bundles import BundleStore
from service.db.models import Supernet
from service.errors import ConflictError
from service.usecases.catalog import Catalog, _Cache


def test_threads_that_ask_together_share_one_build():
    cache: _Cache[object] = _Cache(4)
    built, gate = [], threading.Barrier(8)

    def build() -> object:
        built.append(1)
        return object()

    def ask(_: int) -> object:
        gate.wait()
        return cache.get(("key",), build)

    with ThreadPoolExecutor(8) as pool:
        values = set(map(id, pool.map(ask, range(8))))
    assert (len(values), len(built)) == (1, 1)


def test_the_oldest_value_makes_room():
    cache: _Cache[str] = _Cache(2)
    for key in ("a", "b", "c"):
        cache.get((key,), lambda key=key: key)
    assert list(cache.values) == [("b",), ("c",)]


def test_a_build_that_fails_leaves_nothing_behind():
    cache: _Cache[str] = _Cache(2)
    with pytest.raises(KeyError):
        cache.get(("a",), lambda: {}["missing"])
    assert cache.get(("a",), lambda: "found") == "found"


@pytest.mark.parametrize("uri", ["shipped:nothing", "shipped:..", "artifact:x", "cifar_mbv3", "/etc"])
def test_a_bundle_that_is_nowhere_is_told(uri: str, tmp_path: Path):
    row = Supernet(supernet_id="s", space="x", bundle_uri=uri, bundle_sha256="0" * 64, manifest={})
    bundles = BundleStore(ArtifactStore(tmp_path.as_uri()), tmp_path)
    with pytest.raises(ConflictError, match=r"comes? with this version") as caught:
        Catalog(bundles).supernet(row)
    assert caught.value.code == "bundle_unavailable"
