from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from supernet.errors import InvalidConfigError
from supernet.export.onnx import export_onnx
from supernet.export.runtime import open_session, run_session
from supernet.network.subnet import Subnet
from supernet.spaces.space import SearchSpace

EXPORT_IN_ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file
from supernet.export.onnx import export_onnx
from supernet.network.subnet import Subnet
from supernet.spaces.space import SearchSpace

space = SearchSpace.from_dict(json.loads(sys.argv[1]))
subnet = Subnet([spec for _, spec in space.walk(space.largest())], norm_eps=space.norm_eps)
subnet.load_state_dict(load_file("weights.safetensors"))
print(export_onnx(subnet, Path("model.onnx")).sha256)
"""


@pytest.fixture(scope="session")
def model(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported / "model.onnx")


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_graph_takes_any_batch_size_and_gives_torchs_logits(
    exported: Path, trained_subnet: Subnet, batch: int, rng: np.random.Generator
) -> None:
    images = rng.standard_normal((batch, 3, 16, 16)).astype(np.float32)
    logits = run_session(open_session(exported / "model.onnx"), images)
    with torch.inference_mode():
        np.testing.assert_allclose(logits, trained_subnet(torch.from_numpy(images)), atol=1e-5)


def test_norms_are_folded_and_activations_are_single_operators(model: onnx.ModelProto) -> None:
    operators = {node.op_type for node in model.graph.node}
    assert operators == {"Conv", "HardSwish", "Relu", "ReduceMean", "HardSigmoid", "Mul", "Add", "Reshape", "Gemm"}


def test_bytes_hold_no_trace_of_the_machine(exported: Path, model: onnx.ModelProto) -> None:
    content = (exported / "model.onnx").read_bytes()
    for trace in ("site-packages", "supernet/", str(Path(torch.__file__).parent), "fx_node", "forward("):
        assert trace.encode() not in content
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
    text = str(bare)
    for trace in ("/", ".py", "doc_string", "metadata_props", torch.__version__):
        assert trace not in text


def test_equal_weights_give_equal_bytes_in_another_process(
    space: SearchSpace, trained_subnet: Subnet, exported: Path, tmp_path: Path
) -> None:
    save_file(trained_subnet.state_dict(), tmp_path / "weights.safetensors")
    result = subprocess.run(
        [sys.executable, "-c", EXPORT_IN_ANOTHER_PROCESS, json.dumps(space.to_dict())],
        cwd=tmp_path,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    recorded = json.loads((exported / "manifest.json").read_text())["model"]["sha256"]
    assert result.stdout == recorded + "\n"
    assert result.stderr == ""
    assert (tmp_path / "model.onnx").read_bytes() == (exported / "model.onnx").read_bytes()


def test_export_prints_nothing_and_leaves_the_subnet_alone(
    trained_subnet: Subnet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {name: tensor.clone() for name, tensor in trained_subnet.state_dict().items()}
    report = export_onnx(trained_subnet, tmp_path / "model.onnx", opset=20)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (report.opset, report.size_bytes) == (20, (tmp_path / "model.onnx").stat().st_size)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == 20
    assert any(isinstance(module, nn.BatchNorm2d) for module in trained_subnet.modules())
    for name, tensor in trained_subnet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("opset", [17, 24])
def test_opset_outside_the_range_is_refused(trained_subnet: Subnet, tmp_path: Path, opset: int) -> None:
    with pytest.raises(InvalidConfigError, match=f"18 to 23, got {opset}"):
        export_onnx(trained_subnet, tmp_path / "model.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


def test_failed_check_leaves_the_earlier_file(
    trained_subnet: Subnet, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / "model.onnx"
    earlier.write_bytes(b"earlier")
    broken = onnx.load(exported / "model.onnx")
    broken.graph.node[0].op_type = "NoSuchOperator"
    monkeypatch.setattr("supernet.export.onnx._traced", lambda subnet, opset: broken)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(trained_subnet, earlier)
    assert earlier.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
