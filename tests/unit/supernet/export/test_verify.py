from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from supernet.errors import InvalidDeploymentError
from supernet.export.verify import verify_deployment
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

VERIFY_WITHOUT_TORCH = """
import sys
from pathlib import Path
from supernet.export.verify import verify_deployment
verify_deployment(Path(sys.argv[1]))
print("torch" in sys.modules)
"""


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    edit(data)
    (folder / "manifest.json").write_text(json.dumps(data))


def replace_model(folder: Path, content: bytes) -> None:
    """Put another model in the folder and write its hash and size in the manifest, as a forger would."""
    (folder / "model.onnx").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    edit_manifest(folder, lambda data: data["model"].update(size_bytes=len(content), sha256=sha256))


def test_intact_deployment_verifies(deployment: Path, space: SearchSpace) -> None:
    report = verify_deployment(deployment)
    assert report.arch_id == space.largest().arch_id
    assert report.images == 16
    assert report.max_abs_diff < 1e-5
    assert not report.space_known


def test_verification_needs_no_torch(exported: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", VERIFY_WITHOUT_TORCH, str(exported)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_missing_file_is_named(deployment: Path, name: str) -> None:
    (deployment / name).unlink()
    with pytest.raises(InvalidDeploymentError, match=f"{name}' cannot be read: No such file"):
        verify_deployment(deployment)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDeploymentError, match="nowhere"):
        verify_deployment(tmp_path / "nowhere")


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "tailor-supernet/1"}))
    with pytest.raises(InvalidDeploymentError, match="'tailor-supernet/1', expected 'tailor-deployment/1'"):
        verify_deployment(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidDeploymentError, match="UTF-8"):
        verify_deployment(tmp_path)


def test_truncated_model_is_refused_with_both_sizes(deployment: Path) -> None:
    content = (deployment / "model.onnx").read_bytes()
    (deployment / "model.onnx").write_bytes(content[:-100])
    with pytest.raises(InvalidDeploymentError, match=rf"'model.onnx'.* {len(content) - 100}, expected {len(content)}"):
        verify_deployment(deployment)


def test_flipped_bit_is_refused_with_both_hashes(deployment: Path) -> None:
    content = bytearray((deployment / "model.onnx").read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    (deployment / "model.onnx").write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(InvalidDeploymentError, match=f"'model.onnx' is {found}, expected {expected}"):
        verify_deployment(deployment)


@pytest.mark.parametrize("content", [b"", b"no model at all \xff\xff"])
def test_file_that_is_no_model_is_refused_though_its_hash_fits(deployment: Path, content: bytes) -> None:
    replace_model(deployment, content)
    with pytest.raises(InvalidDeploymentError, match=r"'model\.onnx' is no valid ONNX model"):
        verify_deployment(deployment)


def test_other_weights_are_refused_though_their_hash_fits(deployment: Path) -> None:
    model = onnx.load(deployment / "model.onnx")
    weights = model.graph.initializer[0]
    weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) * 1.5).tobytes()
    replace_model(deployment, model.SerializeToString())
    with pytest.raises(InvalidDeploymentError, match="logits that differ by"):
        verify_deployment(deployment)


def change_input_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "pixels"
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def raise_ir_version(model: onnx.ModelProto) -> None:
    model.ir_version += 1


def remove_node(model: onnx.ModelProto) -> None:
    del model.graph.node[3]


def store_weights_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_input_name, "input of 'model.onnx'.*pixels.*images"),
        (fix_batch, "input of 'model.onnx'"),
        (raise_ir_version, "IR version"),
        (remove_node, "no valid ONNX model"),
        (store_weights_elsewhere, "other files|no valid ONNX model"),
    ],
)
def test_other_graph_is_refused_though_its_hash_fits(
    deployment: Path, change: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    model = onnx.load(deployment / "model.onnx")
    change(model)
    replace_model(deployment, model.SerializeToString())
    with pytest.raises(InvalidDeploymentError, match=reason):
        verify_deployment(deployment)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda data: data["model"].update(opset=19), "opset of 'model.onnx' is 18, expected 19"),
        (lambda data: data["model"]["output"].update(name="scores"), "output of 'model.onnx'"),
        (lambda data: data["preprocessing"].update(mean=[0.4, 0.4, 0.3]), "logits that differ by"),
        (lambda data: data["verification"].update(seed=1), "logits that differ by"),
        (lambda data: data["verification"].update(logits="AAAA"), "'verification.logits'.*3 bytes"),
        (lambda data: data.pop("supernet"), r"missing \['supernet'\]"),
    ],
)
def test_edited_manifest_is_refused(deployment: Path, edit: Callable[[dict[str, Any]], object], reason: str) -> None:
    edit_manifest(deployment, edit)
    with pytest.raises(InvalidDeploymentError, match=reason):
        verify_deployment(deployment)


def test_known_space_is_compared_with_its_definition(deployment: Path, space: SearchSpace) -> None:
    edit_manifest(deployment, lambda data: data["space"].update(name="cifar_mbv3"))
    known = load_space("cifar_mbv3").with_classes(5).fingerprint
    with pytest.raises(InvalidDeploymentError, match=f"'space.fingerprint' is {space.fingerprint}, expected {known}"):
        verify_deployment(deployment)
    edit_manifest(deployment, lambda data: data["space"].update(fingerprint=known))
    with pytest.raises(InvalidDeploymentError, match="outside the space 'cifar_mbv3'"):
        verify_deployment(deployment)
