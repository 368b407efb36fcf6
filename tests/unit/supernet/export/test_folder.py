from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supernet.errors import ExportParityError, InvalidConfigError, InvalidDeploymentError
from supernet.export.folder import write_deployment
from supernet.network.subnet import Subnet

pytestmark = pytest.mark.usefixtures("instant_export")


def test_deployment_is_two_files_and_no_more(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["manifest.json", "model.onnx"]
    assert [path.name for path in exported.parent.iterdir()] == ["deployment"]


def test_equal_inputs_give_equal_bytes(
    exported: Path, trained_subnet: Subnet, facts: dict[str, Any], tmp_path: Path
) -> None:
    write_deployment(tmp_path / "new" / "again", trained_subnet, **facts)
    for name in ("manifest.json", "model.onnx"):
        assert (tmp_path / "new" / "again" / name).read_bytes() == (exported / name).read_bytes()


def test_parity_is_measured_on_the_images_given(
    trained_subnet: Subnet, facts: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    images = rng.standard_normal((21, 3, 16, 16)).astype(np.float32)
    manifest = write_deployment(tmp_path / "deployment", trained_subnet, **facts, parity_images=images)
    assert (manifest.parity.images, manifest.verification.images) == (21, 16)


def test_earlier_deployment_is_replaced(deployment: Path, trained_subnet: Subnet, facts: dict[str, Any]) -> None:
    (deployment / "model.onnx").write_bytes(b"earlier")
    write_deployment(deployment, trained_subnet, **facts, seed=5)
    assert json.loads((deployment / "manifest.json").read_text())["verification"]["seed"] == 5
    assert (deployment / "model.onnx").read_bytes() != b"earlier"
    assert [path.name for path in deployment.parent.iterdir()] == ["deployment"]


@pytest.mark.parametrize(
    ("change", "error"),
    [({"tolerance": 1e-12}, ExportParityError), ({"classes": ("ant", "bee")}, InvalidDeploymentError)],
)
def test_failure_writes_nothing_and_keeps_the_earlier_deployment(
    deployment: Path, trained_subnet: Subnet, facts: dict[str, Any], change: dict[str, Any], error: type[Exception]
) -> None:
    before = (deployment / "manifest.json").read_bytes()
    for target in (deployment, deployment.parent / "new"):
        with pytest.raises(error):
            write_deployment(target, trained_subnet, **facts | change)
    assert (deployment / "manifest.json").read_bytes() == before
    assert [path.name for path in deployment.parent.iterdir()] == ["deployment"]


def test_folder_with_other_files_is_left_alone(trained_subnet: Subnet, facts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidConfigError, match="is no deployment"):
        write_deployment(tmp_path, trained_subnet, **facts)
    with pytest.raises(InvalidConfigError, match="is no deployment"):
        write_deployment(tmp_path / "thesis.txt", trained_subnet, **facts)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
