"""Bundles between the artefact store and the data folder: whole, checked, and fetched again where they are not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from service.artifacts import ArtifactStore
from service.bundles import BundleStore, uri_of
from service.errors import ConflictError, StorageError
from supernet.bundle import Bundle, write_manifest
from supernet.errors import InvalidBundleError
from supernet.spaces.presets import load_space


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    return write_manifest(
        folder,
        name="own",
        space=load_space("cifar_mbv3").with_classes(2),
        classes=("cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training={},
        versions={},
    )


@pytest.fixture(params=["folder", "memory"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """A folder, and a store that is none."""
    return ArtifactStore((tmp_path / "artifacts").as_uri() if request.param == "folder" else "memory:///")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(artifacts: ArtifactStore, data_dir: Path) -> BundleStore:
    return BundleStore(artifacts, data_dir)


def leftovers(data_dir: Path) -> list[str]:
    return [path.name for path in (data_dir / "bundles").iterdir() if path.name.startswith(".")]


def test_a_saved_bundle_is_opened_from_a_copy(store, bundle, artifacts, data_dir):
    assert not store.holds(bundle)
    uri = store.save(bundle)
    assert uri == uri_of(bundle) == f"artifact:bundles/{bundle.sha256}"
    assert store.holds(bundle)
    assert store.save(bundle) == uri
    opened = store.open(uri)
    assert opened.path == data_dir / "bundles" / bundle.sha256
    assert (opened.sha256, opened.weights_path.read_bytes()) == (bundle.sha256, b"weights")
    artifacts.delete_prefix("bundles")
    assert store.open(uri).path == opened.path
    assert leftovers(data_dir) == []


@pytest.mark.parametrize("damage", [b"", b"WEIGHTS", None])
def test_a_damaged_copy_is_fetched_again(store, bundle, damage):
    uri = store.save(bundle)
    weights = store.open(uri).weights_path
    weights.unlink() if damage is None else weights.write_bytes(damage)
    assert store.open(uri).weights_path.read_bytes() == b"weights"


def test_a_damaged_artefact_is_told_and_leaves_no_copy(store, bundle, artifacts, data_dir):
    for name in ("manifest.json", "weights.safetensors"):
        artifacts.put_bytes(f"bundles/{bundle.sha256}/{name}", (bundle.path / name).read_bytes()[:-1])
    with pytest.raises(ConflictError, match="damaged") as caught:
        store.open(uri_of(bundle))
    assert caught.value.code == "bundle_changed"
    assert list((data_dir / "bundles").iterdir()) == []


def test_another_bundle_under_the_hash_is_told(store, bundle, artifacts):
    for name in ("manifest.json", "weights.safetensors"):
        artifacts.put_bytes(f"bundles/{'0' * 64}/{name}", (bundle.path / name).read_bytes())
    with pytest.raises(ConflictError, match="damaged"):
        store.open(f"artifact:bundles/{'0' * 64}")


@pytest.mark.parametrize(
    "uri", ["artifact:x", "artifact:bundles/../../etc", "cifar_mbv3", "/etc", "", f"artifact:bundles/{'0' * 64}"]
)
def test_an_unknown_bundle_is_told(store, uri):
    with pytest.raises(ConflictError, match="neither comes with this version nor lies in") as caught:
        store.open(uri)
    assert caught.value.code == "bundle_unavailable"


def test_a_deleted_bundle_is_gone_here_and_there(store, bundle, artifacts, data_dir):
    uri = store.save(bundle)
    store.open(uri)
    store.delete(uri)
    store.delete(uri)
    assert artifacts.list_keys("bundles") == []
    assert list((data_dir / "bundles").iterdir()) == []


def test_a_bundle_that_somebody_else_fetched_first_is_used(store, bundle):
    uri = store.save(bundle)
    first = store.open(uri)
    with store.workspace() as folder:
        for path in first.path.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        assert store.adopt(Bundle(folder, bundle.manifest)).path == first.path


def test_what_a_killed_process_left_is_removed_a_day_later(store, data_dir):
    with store.workspace() as folder:
        pass
    old, fresh = data_dir / "bundles" / ".partial-old", data_dir / "bundles" / ".partial-fresh"
    for path in (old, fresh):
        path.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    with store.workspace() as folder:
        assert folder.is_dir()
    assert leftovers(data_dir) == [".partial-fresh"]


def test_errors_do_not_show_where_a_bundle_was_unpacked(store):
    with pytest.raises(InvalidBundleError) as caught, store.workspace() as folder:
        raise InvalidBundleError(f"'{folder}' lacks '{folder}/manifest.json'.")
    assert str(caught.value) == "The bundle lacks 'manifest.json'."


def test_a_full_disk_is_told(store):
    with (
        pytest.raises(StorageError, match="No space left on device"),
        store.workspace(),
        Path("/dev/full").open("w") as f,
    ):
        f.write("x")
