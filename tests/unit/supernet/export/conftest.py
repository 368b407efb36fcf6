"""One small deployment, exported once for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from supernet.export.folder import write_deployment
from supernet.export.manifest import (
    Accuracy,
    BnRecalibration,
    DeploymentManifest,
    Latency,
    Preprocessing,
    SupernetReference,
)
from supernet.export.onnx import ExportReport
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """Every kind of layer: hard swish, squeeze-excite, shortcut, a convolution with a bias and no norm."""
    return SearchSpace(
        "tiny_export",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(
                BlockKind.INVERTED,
                widths=(8,),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(1, 2),
                act=Act.RELU,
                se=True,
                shortcut=True,
            ),
            Stage(BlockKind.CONV, widths=(16,), act=Act.HSWISH, norm=False, bias=True),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(5,), norm=False, bias=True),
        ),
        resolutions=(8, 16),
    )


@pytest.fixture(scope="session")
def trained_subnet(space: SearchSpace) -> Subnet:
    """The largest arch with norms that do something; tests that change it take a copy."""
    generator = torch.Generator().manual_seed(3)
    subnet = extract_subnet(Supernet(space, generator), space.largest())
    for name, tensor in subnet.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.3, generator=generator)
        if name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 2, generator=generator)
    return subnet


@pytest.fixture(scope="session")
def facts(space: SearchSpace) -> dict[str, Any]:
    """What the caller of `write_deployment` knows."""
    return {
        "arch": space.largest(),
        "space": space,
        "preprocessing": Preprocessing(resolution=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25)),
        "classes": ("ant", "bee", "cat", "dog", "eel"),
        "bn_recalibration": BnRecalibration(source="noise", images=256),
        "supernet": SupernetReference(name="tiny", weights_sha256="ab" * 32),
        "accuracy": Accuracy(predicted=0.7, low=0.65, high=0.75, level=0.9),
        "latency_ms": Latency(estimated=3.0, low=2.8, high=3.3, level=0.9, device="cpu", table_version="1"),
    }


@pytest.fixture(scope="session")
def exported(trained_subnet: Subnet, facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment folder nobody changes."""
    folder = tmp_path_factory.mktemp("export") / "deployment"
    write_deployment(folder, trained_subnet, **facts)
    return folder


@pytest.fixture
def deployment(exported: Path, tmp_path: Path) -> Path:
    """A copy of the deployment to damage."""
    return Path(shutil.copytree(exported, tmp_path / "deployment"))


@pytest.fixture
def instant_export(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`write_deployment` copies the exported model: tests of folders need no export each."""
    model = exported / "model.onnx"
    described = DeploymentManifest.from_json((exported / "manifest.json").read_text()).model

    def copy_model(subnet: Subnet, path: Path, *, opset: int) -> ExportReport:
        shutil.copy(model, path)
        return ExportReport(path, opset, described.ir_version, described.size_bytes, described.sha256, 0, 0.0)

    monkeypatch.setattr("supernet.export.folder.export_onnx", copy_model)
