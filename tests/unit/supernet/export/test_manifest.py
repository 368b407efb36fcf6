from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supernet.errors import InvalidDeploymentError
from supernet.export.manifest import DeploymentManifest, build_manifest
from supernet.spaces.space import SearchSpace


@pytest.fixture
def data(exported: Path) -> dict[str, Any]:
    return json.loads((exported / "manifest.json").read_text())


def test_manifest_survives_its_json(data: dict[str, Any], exported: Path) -> None:
    manifest = DeploymentManifest.from_dict(data)
    assert manifest.to_dict() == data
    assert manifest.to_json() == (exported / "manifest.json").read_text()
    assert DeploymentManifest.from_json(manifest.to_json()) == manifest


def test_equal_parts_give_equal_bytes(data: dict[str, Any], space: SearchSpace) -> None:
    given = DeploymentManifest.from_dict(data)
    parts = {name: getattr(given, name) for name in DeploymentManifest.__dataclass_fields__}
    parts["space"] = space
    del parts["arch_id"], parts["versions"]
    assert build_manifest(**parts).to_json() == given.to_json()


def test_space_with_another_number_of_classes_is_refused(data: dict[str, Any], space: SearchSpace) -> None:
    given = DeploymentManifest.from_dict(data)
    parts = {name: getattr(given, name) for name in DeploymentManifest.__dataclass_fields__}
    parts["space"] = space.with_classes(6)
    del parts["arch_id"], parts["versions"]
    with pytest.raises(InvalidDeploymentError, match="6 classes, 5 are named"):
        build_manifest(**parts)


def test_manifest_tells_what_a_user_needs(data: dict[str, Any], space: SearchSpace) -> None:
    assert data["format"] == "tailor-deployment/1"
    assert data["arch_id"] == space.largest().arch_id
    assert data["space"] == {"name": "tiny_export", "fingerprint": space.fingerprint}
    assert data["model"]["input"] == {
        "name": "images",
        "dtype": "float32",
        "shape": ["batch", 3, 16, 16],
        "layout": "NCHW",
    }
    assert data["preprocessing"]["channel_order"] == "RGB"
    assert data["preprocessing"]["scale"] == 1 / 255
    assert set(data["versions"]) == {"tailor", "torch", "onnx", "onnxruntime"}
    assert not any("+" in version for version in data["versions"].values())


def test_what_nobody_predicted_is_null(data: dict[str, Any]) -> None:
    unknown = DeploymentManifest.from_dict(data | {"accuracy": None, "latency_ms": None})
    assert unknown.to_dict()["accuracy"] is None
    assert DeploymentManifest.from_json(unknown.to_json()) == unknown


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda data: data.update(note="x"), r"unknown \['note'\]"),
        (lambda data: data.pop("classes"), r"missing \['classes'\]"),
        (lambda data: data["model"].pop("sha256"), r"missing \['model.sha256'\]"),
        (lambda data: data["model"]["input"].update(extra=1), r"unknown \['model.input.extra'\]"),
        (lambda data: data.update(format="tailor-supernet/1"), "tailor-supernet/1.*tailor-deployment/1"),
        (lambda data: data["model"].update(size_bytes="12"), "'model.size_bytes'.*must be int, got '12'"),
        (lambda data: data["model"].update(opset=True), "'model.opset'"),
        (lambda data: data["model"].update(file="../model.onnx"), "'model.file'"),
        (lambda data: data["model"].update(sha256="0x12"), "'model.sha256'"),
        (lambda data: data["model"]["input"].update(shape=["batch", 3, 8, 8]), "'model.input.shape'"),
        (lambda data: data["parity"].update(max_abs_diff=float("nan")), "'parity.max_abs_diff'"),
        (lambda data: data["accuracy"].update(predicted=None), "'accuracy.predicted'"),
        (lambda data: data["accuracy"].update(evaluated="0.7"), "'accuracy.evaluated'"),
        (lambda data: data["preprocessing"].update(mean=[0.5, "x", 0.3]), r"'preprocessing.mean\[1\]'"),
        (lambda data: data["preprocessing"].update(std=[0.2, 0.2]), "'preprocessing.std'"),
        (lambda data: data["preprocessing"].update(std=[0.2, 0, 0.2]), "'preprocessing.std'.*positive"),
        (lambda data: data["preprocessing"].update(resolution=8), "'preprocessing.resolution'"),
        (lambda data: data["classes"].append("fox"), "'model.output.shape'"),
        (lambda data: data.update(classes=["ant"] * 5), "'classes'.*without repeats"),
        (lambda data: data["arch"].update(depths=[1]), "'arch_id'"),
        (lambda data: data["arch"].update(depths="2"), "'arch'.*no arch"),
        (lambda data: data.update(versions=[]), "'versions'"),
        (lambda data: data["verification"].update(images=10**9), "'verification.images'"),
        (lambda data: data["verification"].update(seed=-1), "'verification.seed'"),
    ],
)
def test_edited_manifest_is_refused_by_the_name_of_its_key(
    data: dict[str, Any], edit: Callable[[dict[str, Any]], object], named: str
) -> None:
    edit(data)
    with pytest.raises(InvalidDeploymentError, match=named):
        DeploymentManifest.from_dict(data)


@pytest.mark.parametrize("text", ["", "[1", "[]", "null", "[" * 100_000])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidDeploymentError, match="manifest"):
        DeploymentManifest.from_json(text)
