"""Artefacts are written once, whole, and only inside the store."""

from __future__ import annotations

import pytest

from service.artifacts import ArtifactStore
from service.errors import ConflictError, InvalidRequestError, NotFoundError, StorageError

DATA = bytes(range(256)) * 16


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "an artefact #1 %20 store"


@pytest.fixture
def store(folder):
    return ArtifactStore(folder.as_uri())


def test_what_was_put_comes_back(store, tmp_path):
    (tmp_path / "m").write_bytes(DATA)
    store.put_file("deployments/d/1/model.onnx", tmp_path / "m")
    assert store.exists("deployments/d/1/model.onnx")
    assert store.size("deployments/d/1/model.onnx") == len(DATA)
    assert store.read_bytes("deployments/d/1/model.onnx") == DATA


def test_the_same_content_again_is_fine_and_other_content_is_not(store):
    store.put_bytes("a/b", DATA)
    store.put_bytes("a/b", DATA)
    for other in (b"", DATA[:-1], DATA + b"x", bytes(len(DATA))):
        with pytest.raises(ConflictError, match="never changed"):
            store.put_bytes("a/b", other)
    assert store.read_bytes("a/b") == DATA


def test_an_empty_artefact_is_one(store):
    store.put_bytes("empty", b"")
    assert (store.exists("empty"), store.size("empty"), store.read_bytes("empty")) == (True, 0, b"")


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (0, None), (10, 20), (4095, None), (4095, 4096), (100, 99_999), (0, 4096)]
)
def test_ranges_are_like_slices(store, start, end):
    store.put_bytes("k", DATA)
    assert b"".join(store.stream("k", start=start, end=end)) == DATA[start:end]


@pytest.mark.parametrize(("start", "end"), [(4096, None), (5000, 5001), (10, 10), (10, 9), (-1, None), (0, 0)])
def test_impossible_ranges_are_refused_before_the_first_piece(store, start, end):
    store.put_bytes("k", DATA)
    with pytest.raises(InvalidRequestError, match="no range"):
        store.stream("k", start=start, end=end)


def test_large_artefacts_come_in_pieces(store):
    store.put_bytes("large", bytes(5 << 20))
    pieces = [len(piece) for piece in store.stream("large")]
    assert sum(pieces) == 5 << 20
    assert max(pieces) <= 2 << 20


def test_a_missing_artefact_is_missing_at_the_call(store):
    assert not store.exists("nothing")
    for read in (store.size, store.read_bytes, store.stream):
        with pytest.raises(NotFoundError, match="no artefact 'nothing'"):
            read("nothing")


def test_a_folder_is_no_artefact(store):
    store.put_bytes("a/b", b"x")
    assert not store.exists("a")


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a//b", "a/", "./a", "a\\..\\b", "a/.hidden", "a#1",
     "a b", "ä", "a\n", "%2e%2e/x", "file:///etc/passwd"],
)  # fmt: skip
def test_no_key_leads_out_of_the_store(store, folder, key):
    calls = [
        lambda: store.put_bytes(key, b"x"),
        lambda: store.read_bytes(key),
        lambda: store.exists(key),
        lambda: store.delete_prefix(key),
        lambda: store.list_keys(key),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError, match="no artefact key"):
            call()
    assert list(folder.rglob("*")) == []


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(store):
    for key in ("d/1/a", "d/1/b/c", "d/10/a", "d/2/a"):
        store.put_bytes(key, b"x")
    assert store.list_keys("d/1") == ["d/1/a", "d/1/b/c"]
    store.delete_prefix("d/1")
    store.delete_prefix("d/1")
    assert store.list_keys("d") == ["d/10/a", "d/2/a"]


def test_a_file_still_being_written_is_not_visible(store, folder):
    store.put_bytes("d/whole", b"x")
    (folder / "d" / "half#1").write_bytes(b"hal")  # how the store names what it has not finished
    assert store.list_keys("d") == ["d/whole"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for url in ((tmp_path / "file").as_uri(), (tmp_path / "file" / "sub").as_uri()):
        with pytest.raises(StorageError, match="TAILOR_ARTIFACTS_URL"):
            ArtifactStore(url)


@pytest.mark.parametrize("url", ["nonsense", "weird://x/y", ""])
def test_an_unknown_url_is_named(url):
    with pytest.raises(StorageError, match="TAILOR_ARTIFACTS_URL"):
        ArtifactStore(url)


def test_a_store_that_became_unwritable_says_so(store, folder):
    store.check()
    store.put_bytes("a", b"x")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    for call in (store.check, lambda: store.put_bytes("b", b"y"), lambda: store.read_bytes("a")):
        with pytest.raises(StorageError, match="TAILOR_ARTIFACTS_URL") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "file:relative", "file://host/folder", "gopher://x/y"])
def test_a_store_that_cannot_be_is_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(StorageError, match=r"TAILOR_ARTIFACTS_URL to one such as file:///folder or s3://"):
        ArtifactStore(url)
