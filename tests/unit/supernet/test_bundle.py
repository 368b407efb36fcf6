"""Bundles: round trips, every kind of damage, and what must not be imported or reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from supernet import bundle as bundle_module
from supernet.bundle import (
    MANIFEST,
    PARTS,
    Bundle,
    BundleManifest,
    hash_file,
    open_bundle,
    shipped_bundles,
    write_manifest,
)
from supernet.errors import InvalidBundleError, MissingPartError
from supernet.network.checkpoint import load_supernet, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.spaces.blocks import BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

Edit = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace(
        "tiny_bundle",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2),
            Stage(BlockKind.INVERTED, widths=(8,), depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(1, 1.5)),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(3,), norm=False, bias=True),
        ),
        resolutions=(8, 12),
    )


def describe(folder: Path, space: SearchSpace, **changes: Any) -> Bundle:
    facts: dict[str, Any] = {
        "name": "tiny",
        "classes": ("ant", "bee", "cat"),
        "normalisation": ((0.5, 0.4, 0.3), (0.2, 0.2, 0.25)),
        "training": {"method": "rss", "seed": 1},
        "versions": {"tailor": "1"},
    }
    return write_manifest(folder, space=space, **(facts | changes))


@pytest.fixture
def folder(tmp_path: Path, space: SearchSpace) -> Path:
    """A bundle with real weights; its other parts are files nobody reads here."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    supernet = Supernet(space, torch.Generator().manual_seed(1))
    save_tensors(folder / PARTS["weights"], supernet.state_dict(), space)
    (folder / PARTS["predictor"]).write_bytes(b"predictor")
    (folder / PARTS["calibration"]).write_bytes(b"calibration")
    (folder / PARTS["pools"]).write_bytes(b"pools")
    describe(folder, space)
    return folder


@pytest.fixture
def edit(folder: Path) -> Edit:
    """Change the manifest's JSON in place."""

    def edit(change: Callable[[dict[str, Any]], object]) -> None:
        data = json.loads((folder / MANIFEST).read_text())
        change(data)
        (folder / MANIFEST).write_text(json.dumps(data))

    return edit


# ---------------------------------------------------------------------------- round trips


def test_a_bundle_comes_back(folder: Path, space: SearchSpace) -> None:
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    assert bundle.path == folder
    assert bundle.space == space
    assert (manifest.name, manifest.classes) == ("tiny", ("ant", "bee", "cat"))
    assert (manifest.mean, manifest.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.25))
    assert (manifest.training, manifest.versions) == ({"method": "rss", "seed": 1}, {"tailor": "1"})
    for part, path in (
        ("weights", bundle.weights_path),
        ("predictor", bundle.predictor_path),
        ("calibration", bundle.calibration_path),
        ("pools", bundle.pools_path),
    ):
        assert path == folder / PARTS[part]
        assert manifest.parts[part] == {
            "file": PARTS[part],
            "sha256": hash_file(path),
            "bytes": path.stat().st_size,
        }
    assert BundleManifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


def test_the_hash_of_a_bundle_follows_its_parts(folder: Path, space: SearchSpace) -> None:
    first = open_bundle(folder)
    assert first.sha256 == open_bundle(str(folder)).sha256 == hash_file(folder / MANIFEST)
    (folder / PARTS["predictor"]).write_bytes(b"a better one")
    assert describe(folder, space).sha256 != first.sha256


def test_writing_a_manifest_leaves_no_other_file(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *PARTS.values()}


def test_the_supernet_of_a_bundle_is_in_eval_mode_with_its_weights(folder: Path, space: SearchSpace) -> None:
    supernet = load_supernet(folder)
    expected = Supernet(space, torch.Generator().manual_seed(1)).state_dict()
    assert not supernet.training
    assert supernet.space == space
    assert all(torch.equal(tensor, expected[name]) for name, tensor in supernet.state_dict().items())


@pytest.mark.parametrize("part", list(PARTS))
def test_a_missing_part_is_named_with_a_way_out(folder: Path, space: SearchSpace, part: str) -> None:
    (folder / PARTS[part]).unlink()
    bundle = describe(folder, space)
    assert part not in bundle.manifest.parts
    with pytest.raises(MissingPartError, match=f"'tiny' has no {part}. ") as caught:
        getattr(bundle, f"{part}_path")
    assert caught.value.part == part
    hint = {
        "weights": "only be searched",
        "predictor": "predictor fit",
        "calibration": "--calibration FOLDER",
        "pools": "`pss_net`",
    }
    assert hint[part] in str(caught.value)


def test_a_bundle_without_weights_has_no_supernet(folder: Path, space: SearchSpace) -> None:
    (folder / PARTS["weights"]).unlink()
    describe(folder, space)
    with pytest.raises(MissingPartError) as caught:
        load_supernet(folder)
    assert caught.value.part == "weights"


def test_shipped_bundles_open_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle_module, "_SHIPPED", tmp_path)
    (tmp_path / "no_bundle").mkdir()
    assert shipped_bundles() == {"bundle": folder}
    assert open_bundle("bundle").path == folder
    with pytest.raises(InvalidBundleError, match=r"'other' is no bundle folder and no shipped supernet \(bundle\)"):
        open_bundle("other")


def test_opening_a_bundle_imports_no_torch(folder: Path) -> None:
    program = (
        "import sys; from supernet.bundle import open_bundle; bundle = open_bundle(sys.argv[1]);"
        "bundle.weights_path; bundle.sha256;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------- damage


def test_no_folder_no_manifest_or_a_file_is_no_bundle(folder: Path) -> None:
    (folder / MANIFEST).rename(folder / "elsewhere.json")
    for path in (folder, folder / "absent", folder / "elsewhere.json"):
        with pytest.raises(InvalidBundleError, match="is no bundle folder and no shipped supernet"):
            open_bundle(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"not json", b"\xff\xfe\x00\x01", b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}"],
    ids=["empty", "open brace", "words", "no UTF-8", "deep", "long number"],
)
def test_a_manifest_that_is_no_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(InvalidBundleError, match=r"manifest\.json' is no JSON"):
        open_bundle(folder)


@pytest.mark.parametrize(("content", "found"), [("[]", "list"), ("7", "int"), ("{}", "None")])
def test_json_that_is_no_manifest_is_refused(folder: Path, content: str, found: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(InvalidBundleError, match=f"no supernet bundle: format '?{found}'?, expected"):
        open_bundle(folder)


def test_another_format_is_refused_by_name(folder: Path, edit: Edit) -> None:
    edit(lambda data: data.update(format="tailor-supernet/99"))
    with pytest.raises(InvalidBundleError, match=r"'tailor-supernet/99', expected 'tailor-supernet/1'"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "key", ["name", "space", "space_fingerprint", "classes", "normalisation", "training", "parts", "versions"]
)
def test_every_key_is_needed(folder: Path, edit: Edit, key: str) -> None:
    edit(lambda data: data.pop(key))
    with pytest.raises(InvalidBundleError, match=f"incomplete or malformed.*{key}"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in (None, 7, True, [], {"a": 1}, "", "a\nb")),
        *(("classes", value) for value in (3, "abc", {"a": 1, "b": 2, "c": 3}, [1, 2, 3], ["a", "b", None], [""] * 3)),
        ("normalisation", [0.5, 0.2]),
        ("training", 7),
        ("training", [["method", "rss"]]),
        ("parts", ["weights"]),
        *(("parts", {"weights": value}) for value in (7, "", [], [["sha256", "0" * 64]], {})),
        *(("versions", value) for value in (None, [], {"tailor": 1}, {"tailor": None}, {"tailor": ""})),
        *(("space_fingerprint", value) for value in (None, 7, [], {})),
        ("space", [1]),
        ("space", "cifar_mbv3"),
    ],
)
def test_values_of_the_wrong_type_are_refused_by_name(folder: Path, edit: Edit, key: str, value: object) -> None:
    edit(lambda data: data.update({key: value}))
    with pytest.raises(InvalidBundleError, match=f"incomplete or malformed: .*'{key}"):
        open_bundle(folder)


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff\\ud800"])
@pytest.mark.parametrize("key", ["name", "classes", "training", "versions"])
def test_texts_no_answer_can_hold_are_refused(folder: Path, edit: Edit, key: str, text: str) -> None:
    edit(lambda data: data.update({key: ["x"] * 3 if key == "classes" else {"x": "y"}} if key != "name" else {}))
    before = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(before.replace('"x"', f'"{text}"').replace('"tiny"', f'"{text}"'))
    with pytest.raises(InvalidBundleError, match=r"holds what JSON cannot: .*surrogates"):
        open_bundle(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_no_answer_can_hold_are_refused(folder: Path, edit: Edit, number: str) -> None:
    edit(lambda data: data["training"].update(rate=123456))
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace("123456", number))
    with pytest.raises(InvalidBundleError, match="holds what JSON cannot"):
        open_bundle(folder)


def test_an_unknown_key_is_refused_by_name(folder: Path, edit: Edit) -> None:
    edit(lambda data: data.update(licence="MIT"))
    with pytest.raises(InvalidBundleError, match=r"unknown \['licence'\], missing \[\]"):
        open_bundle(folder)


def test_a_key_that_occurs_twice_is_refused(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"name":', '"name": "other", "name":', 1))
    with pytest.raises(InvalidBundleError, match="a key occurs twice"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("sha256", value) for value in (None, 7, "", "x", "0" * 63, "G" * 64, ["0" * 64])),
        *(("bytes", value) for value in (None, "9", True, 9.0, [])),
        *(("file", value) for value in (None, 7, {})),
    ],
)
def test_what_is_said_of_a_part_is_checked(folder: Path, edit: Edit, key: str, value: object) -> None:
    edit(lambda data: data["parts"]["predictor"].update({key: value}))
    with pytest.raises(InvalidBundleError, match=rf"'parts\.predictor\.{key}' must be "):
        open_bundle(folder)


def test_a_wrong_size_of_a_part_is_refused(folder: Path, edit: Edit) -> None:
    edit(lambda data: data["parts"]["predictor"].update(bytes=1))
    with pytest.raises(InvalidBundleError, match=r"predictor\.safetensors' is truncated or changed"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "normalisation",
    [
        {"mean": [0.5], "std": [0.2]},
        {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2]},
        {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0]},
        {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, -1]},
        {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 1e-320]},
    ],
)
def test_a_normalisation_nobody_can_apply_is_refused(folder: Path, edit: Edit, normalisation: object) -> None:
    edit(lambda data: data.update(normalisation=normalisation))
    with pytest.raises(InvalidBundleError, match="3 finite means and 3 positive standard deviations"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize(
    "values", ["dark", "123", 3, None, {"a": 1}, ["0.5"] * 3, [True] * 3, [10**400] * 3, [[1]] * 3]
)
def test_a_normalisation_of_no_numbers_is_refused(folder: Path, edit: Edit, name: str, values: object) -> None:
    edit(lambda data: data["normalisation"].update({name: values}))
    with pytest.raises(InvalidBundleError, match=f"'{name}' must be a list of numbers"):
        open_bundle(folder)


def test_an_edited_space_is_refused(folder: Path, edit: Edit) -> None:
    edit(lambda data: data["space"].update(resolutions=[8, 16]))
    with pytest.raises(InvalidBundleError, match="does not match its fingerprint"):
        open_bundle(folder)


@pytest.mark.parametrize("change", [{"colour": "red"}, {"stages": []}, {"resolutions": []}, {"divisor": 10**400}])
def test_a_space_nobody_can_build_is_refused(folder: Path, edit: Edit, change: dict[str, object]) -> None:
    edit(lambda data: data["space"].update(change))
    with pytest.raises(InvalidBundleError):
        open_bundle(folder)


def test_a_broken_space_says_why(folder: Path, edit: Edit) -> None:
    edit(lambda data: data["space"].update(stages=[]))
    with pytest.raises(InvalidBundleError, match="search space is broken: Space 'tiny_bundle' has no stages"):
        open_bundle(folder)


def test_the_number_of_classes_must_be_the_spaces(folder: Path, edit: Edit, space: SearchSpace) -> None:
    edit(lambda data: data["classes"].append("dog"))
    with pytest.raises(InvalidBundleError, match="names 4 classes, its space has 3"):
        open_bundle(folder)
    with pytest.raises(InvalidBundleError, match="names 2 classes, its space has 3"):
        describe(folder, space, classes=("ant", "bee"))


def test_an_unknown_part_is_refused(folder: Path, edit: Edit) -> None:
    edit(lambda data: data["parts"].update(program={"file": "program.pkl", "sha256": "0" * 64, "bytes": 1}))
    with pytest.raises(InvalidBundleError, match=r"unknown parts \['program'\]; allowed are \['calibration'"):
        open_bundle(folder)


@pytest.mark.parametrize("part", list(PARTS))
def test_a_part_that_is_absent_truncated_or_changed_is_refused(folder: Path, part: str) -> None:
    file = folder / PARTS[part]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InvalidBundleError, match=f"{file.name}' is truncated or changed"):
        open_bundle(folder)
    file.write_bytes(content)
    os.truncate(file, len(content) - 1)
    with pytest.raises(InvalidBundleError, match=f"{file.name}' is truncated or changed"):
        open_bundle(folder)
    file.unlink()
    with pytest.raises(InvalidBundleError, match=f"lacks '{file.name}'"):
        open_bundle(folder)


def test_a_part_without_a_hash_is_refused(folder: Path, edit: Edit) -> None:
    edit(lambda data: data["parts"]["weights"].pop("sha256"))
    with pytest.raises(InvalidBundleError, match=r"'parts\.weights' has the keys .* missing \['sha256'\]"):
        open_bundle(folder)


def test_a_part_cannot_lie_outside_the_folder(folder: Path, edit: Edit, tmp_path: Path) -> None:
    """The file names in a manifest are for readers; the code opens its own."""
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"secret")
    edit(lambda data: data["parts"]["predictor"].update(file="../secret.safetensors"))
    assert open_bundle(folder).predictor_path == folder / PARTS["predictor"]
    edit(lambda data: data["parts"]["predictor"].update(file=str(secret), sha256=hash_file(secret)))
    with pytest.raises(InvalidBundleError, match=r"predictor\.safetensors' is truncated or changed"):
        open_bundle(folder)


def test_weights_of_another_space_are_refused(folder: Path, space: SearchSpace) -> None:
    other = space.with_classes(5)
    save_tensors(folder / PARTS["weights"], Supernet(other, torch.Generator()).state_dict(), other)
    describe(folder, space)
    with pytest.raises(InvalidBundleError, match="was made for the space"):
        load_supernet(folder)


def test_a_space_too_large_for_the_weights_is_refused_before_memory_is_taken(folder: Path) -> None:
    """131,072 × 131,072 weights would be 64 GiB."""
    wide = Stage(BlockKind.CONV, widths=(131_072,))
    space = SearchSpace("wide", (wide, wide, Stage(BlockKind.POOL), Stage(BlockKind.LINEAR, widths=(3,))), (8,))
    describe(folder, space)
    with pytest.raises(
        InvalidBundleError, match=r"weights\.safetensors' does not fit 'wide': its \d+ bytes cannot hold"
    ):
        load_supernet(folder)
