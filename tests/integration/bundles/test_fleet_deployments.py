"""`tailor fleet -o`: one verified model per answer, made again where it no longer holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latency_tables.device import DeviceProfile
from latency_tables.table import LatencyStats, LatencyTable, save_table
from service.cli import app
from supernet.bundle import open_bundle
from supernet.export.verify import verify_deployment


def write_table(path: Path, run_dir: Path, *, factor: float = 1.0) -> None:
    space = open_bundle(run_dir / "bundle").space
    device = DeviceProfile(device_id="board", chip="Bench", runtime="ort", runtime_version="1.0")
    rows = {spec: LatencyStats(factor * (0.01 + spec.macs / 1e7)) for spec in space.distinct_blocks()}
    save_table(LatencyTable(device, space.name, {"measured_by": "a test"}, rows), path)


@pytest.fixture
def plan(run_dir: Path, tmp_path: Path) -> Path:
    write_table(tmp_path / "board.json", run_dir)
    path = tmp_path / "fleet.toml"
    path.write_text(
        f'supernet = "{run_dir / "bundle"}"\n[[devices]]\ntable = "board.json"\nlatency_percent = [30, 100]\n'
    )
    return path


def run(plan: Path, out: Path) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, ["fleet", str(plan), "-o", str(out), "--json"])
    assert done.exit_code == 0, done.exception
    answers: list[dict[str, object]] = json.loads(done.stdout)
    return answers


def test_every_answer_becomes_a_verified_model(plan: Path, run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    answers = run(plan, out)
    assert len(answers) == 2
    for answer in answers:
        folder = Path(str(answer["deployment"]))
        assert folder == out / "board" / str(answer["arch_id"])
        assert verify_deployment(folder).arch_id == answer["arch_id"]
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["latency_ms"]["device"] == "board"
        assert manifest["latency_ms"]["estimated"] == answer["latency_ms"]["estimated"]  # type: ignore[index]
    written = {path: path.stat().st_mtime_ns for path in out.rglob("model.onnx")}
    run(plan, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.onnx")} == written, "nothing is made twice"
    write_table(tmp_path / "board.json", run_dir, factor=2.0)
    for answer in run(plan, out):
        manifest = json.loads((Path(str(answer["deployment"])) / "manifest.json").read_text())
        assert manifest["latency_ms"]["estimated"] == answer["latency_ms"]["estimated"], "a new table, new manifests"  # type: ignore[index]


def test_models_are_not_made_at_a_precision_that_is_only_counted(plan: Path, tmp_path: Path) -> None:
    plan.write_text(f'precision = "int8"\n{plan.read_text()}')
    assert CliRunner().invoke(app, ["fleet", str(plan), "-o", str(tmp_path / "models")]).exit_code == 2
    assert not (tmp_path / "models").exists()
