"""An archive from anybody: one whole bundle comes out of it, or one line says why not, and nothing lies elsewhere."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from service import bundle_archive
from service.bundle_archive import extract_bundle, pack_bundle
from supernet.bundle import Bundle, open_bundle, write_manifest
from supernet.errors import InvalidBundleError
from supernet.spaces.presets import load_space

MAX_BYTES = 1_000_000
WEIGHTS = b"weights" * 100  # no multiple of a tar's block


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Weights and calibration that nothing reads, described by a true manifest."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "weights.safetensors").write_bytes(WEIGHTS)
    (folder / "calibration.safetensors").write_bytes(bytes(1024))
    return write_manifest(
        folder,
        name="own",
        space=load_space("cifar_mbv3").with_classes(2),
        classes=("cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training={},
        versions={},
    )


@pytest.fixture
def files(bundle: Bundle) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(bundle.path.iterdir())}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def tar_of(*members: tuple[str | tarfile.TarInfo, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tar_format) as tar:
        for given, content in members:
            member = tarfile.TarInfo(given) if isinstance(given, str) else given
            if member.isreg():
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def extract(content: bytes, target: Path, max_bytes: int = MAX_BYTES) -> Bundle:
    return extract_bundle(io.BytesIO(content), target, max_bytes=max_bytes)


def refusal(content: bytes, target: Path, max_bytes: int = MAX_BYTES) -> str:
    with pytest.raises(InvalidBundleError) as caught:
        extract(content, target, max_bytes)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()
    return str(caught.value)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("prefix", ["", "./", "my bundle/", "./nested/", "fünf/"])
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_bundle_is_found_at_the_top_or_in_one_folder(files, bundle, target, compress, prefix, tar_format):
    members = [(f"{prefix}{name}", content) for name, content in files.items()]
    if prefix:
        members.insert(0, (special(prefix, tarfile.DIRTYPE), b""))
    opened = extract(compress(tar_of(*members, tar_format=tar_format)), target)
    assert (opened.path, opened.sha256) == (target, bundle.sha256)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == files


def test_what_is_packed_here_unpacks_to_the_same_bundle(bundle, target):
    first, second = io.BytesIO(), io.BytesIO()
    pack_bundle(bundle, first)
    pack_bundle(bundle, second)
    assert first.getvalue() == second.getvalue()
    assert extract(first.getvalue(), target).sha256 == bundle.sha256


def test_notes_of_the_packing_tool_are_no_members(files, target):
    members = []
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.mtime = 1.5  # what no plain header holds
        members.append((member, content))
    assert extract(tar_of(*members), target).path == target


@pytest.mark.parametrize(
    ("member", "part"),
    [
        ("../weights.safetensors", "leads out of its folder"),
        ("folder/../../weights.safetensors", "leads out of its folder"),
        ("/tmp/weights.safetensors", "leads out of its folder"),
        (special("../folder", tarfile.DIRTYPE), "leads out of its folder"),
        (special("weights.safetensors", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
        (special("weights.safetensors", tarfile.LNKTYPE, "manifest.json"), "a hard link"),
        (special("weights.safetensors", tarfile.CHRTYPE), "a device"),
        (special("weights.safetensors", tarfile.BLKTYPE), "a device"),
        (special("weights.safetensors", tarfile.FIFOTYPE), "a pipe"),
        (special("weights.safetensors", tarfile.CONTTYPE), "no regular file"),
        (special("folder/inner", tarfile.DIRTYPE), "has none inside"),
        ("folder/inner/weights.safetensors", "no file of a bundle"),
        ("folder/weights.safetensors", "several folders"),
        ("README.md", "no file of a bundle"),
        ("weights.safetensors\\..\\x", "no file of a bundle"),
        ("._manifest.json", "no file of a bundle"),
        ("\udcff.json", "no file of a bundle"),
        ("manifest.json", "'manifest.json' twice"),
        ("n" * 150 + "/weights.safetensors", "no file of a bundle"),
        ("predictor.safetensors", "['predictor.safetensors'], which its manifest does not list"),
    ],
)
def test_a_member_no_bundle_has_is_refused(files, target, tmp_path, member, part):
    named = member if isinstance(member, str) else member.name
    members = [(name, content) for name, content in files.items() if name != Path(named).name or "twice" in part]
    content = tar_of(*members, (member, b"surplus"), tar_format=tarfile.GNU_FORMAT)
    assert part in refusal(content, target)
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
    assert all(path.is_file() and not path.is_symlink() for path in target.iterdir())


def test_an_archive_cut_anywhere_is_refused(files, target):
    whole = tar_of(*files.items())
    end = len(whole.rstrip(b"\0"))  # what follows is padding and the end mark
    for packed, cuts in ((whole, (0, 1, 512, 513, end // 2, end)), (gzip.compress(whole), (1, 5, 100, 400))):
        for cut in cuts:
            for path in target.iterdir():
                path.unlink()
            assert "no tar or tar.gz, or it is truncated" in refusal(packed[:cut], target)


@pytest.mark.parametrize("content", [b"PK\x03\x04" * 200, b"\x1f\x8b" + bytes(600), b"{}" * 600, b"\xff" * 1024])
def test_what_is_no_archive_is_refused(target, content):
    assert "no tar or tar.gz" in refusal(content, target)


def test_an_archive_without_manifest_is_refused(files, target):
    assert "no 'manifest.json'" in refusal(tar_of(), target)
    assert "no 'manifest.json'" in refusal(tar_of(("weights.safetensors", WEIGHTS)), target)


def test_a_part_that_is_not_what_the_manifest_says_is_refused(files, target):
    changed = files | {"weights.safetensors": WEIGHTS[:-1] + b"S"}
    assert "is truncated or changed" in refusal(tar_of(*changed.items()), target)


def test_a_listed_part_that_is_absent_is_refused(files, target):
    del files["weights.safetensors"]
    assert "lacks 'weights.safetensors'" in refusal(tar_of(*files.items()), target)


def test_an_edited_space_is_refused(files, target):
    manifest = json.loads(files["manifest.json"])
    manifest["space"]["resolutions"] = [8]
    files["manifest.json"] = json.dumps(manifest).encode()
    assert "does not match its fingerprint" in refusal(tar_of(*files.items()), target)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_a_bomb_is_refused_before_it_is_unpacked(target, compress):
    content = compress(tar_of(("weights.safetensors", bytes(4 * MAX_BYTES))))
    assert f"more than {MAX_BYTES} bytes" in refusal(content, target)
    assert list(target.iterdir()) == []


def test_many_files_that_are_too_large_together_are_refused(target):
    content = tar_of(("weights.safetensors", bytes(MAX_BYTES)), ("calibration.safetensors", b"1"))
    assert f"more than {MAX_BYTES} bytes" in refusal(content, target)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_extended_header_of_any_size_needs_no_memory(target, kind):
    header = special("x", kind)
    header.size = 20_000_000
    packed = gzip.compress(header.tobuf() + bytes(header.size), 1)
    tracemalloc.start()
    try:
        assert "more than" in refusal(packed, target)
        assert "no tar" in refusal(packed, target, max_bytes=header.size)  # skipped: then the archive ends
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_endless_headers_are_refused(target):
    content = tar_of(*[(special("folder", tarfile.DIRTYPE), b"")] * 100)
    assert "more than 16 members" in refusal(content, target)


def test_a_negative_size_is_refused(files, target):
    packed = bytearray(tar_of(*files.items(), tar_format=tarfile.GNU_FORMAT))
    packed[124:136] = b"\xff" * 12
    packed[148:156] = b" " * 8
    packed[148:156] = f"{sum(packed[:512]):06o}\0 ".encode()
    assert "a size is negative" in refusal(bytes(packed), target)


def test_a_manifest_too_large_to_be_read_is_refused(target, monkeypatch):
    monkeypatch.setitem(bundle_archive.MAX_FILE_BYTES, "manifest.json", 100)
    assert "at most 100 are accepted" in refusal(tar_of(("manifest.json", bytes(101))), target)


def test_a_shipped_bundle_survives_the_way(target):
    shipped = open_bundle("cifar_mbv3")
    packed = io.BytesIO()
    pack_bundle(shipped, packed)
    assert extract(packed.getvalue(), target, max_bytes=2**30).sha256 == shipped.sha256
