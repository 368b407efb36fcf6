"""`tailor table fit`, as a user runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latency_tables.device import DeviceProfile
from latency_tables.errors import InvalidSettingError
from latency_tables.estimator import LatencyEstimator
from latency_tables.table import LatencyStats, LatencyTable, load_table, save_table
from service.cli import app
from supernet.spaces.arch_csv import arch_columns, write_arch
from supernet.spaces.presets import load_space

SPACE = load_space("cifar_mbv3")
ARCHS = (SPACE.largest(), SPACE.smallest())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    device = DeviceProfile(device_id="phone", chip="Bench", runtime="ort", runtime_version="1.0")
    rows = {spec: LatencyStats(0.01 + spec.macs / 1e7) for spec in SPACE.distinct_blocks()}
    save_table(LatencyTable(device, SPACE.name, {"measured_by": "a test"}, rows), tmp_path / "base.json")
    return tmp_path / "base.json"


def estimates(table: Path) -> list[float]:
    return [one.estimated_ms for one in LatencyEstimator(load_table(table), SPACE).estimate(ARCHS)]


def write_measured(path: Path, latencies: list[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*arch_columns(SPACE), "latency_ms"])
        writer.writeheader()
        for arch, latency_ms in zip(ARCHS, latencies, strict=True):
            writer.writerow(write_arch(SPACE, arch) | {"latency_ms": latency_ms})
    return path


def test_a_table_follows_measured_networks(base: Path, tmp_path: Path) -> None:
    measured = write_measured(tmp_path / "measured.csv", [repr(1.25 * ms) for ms in estimates(base)])
    out = tmp_path / "fitted.csv"
    done = CliRunner().invoke(app, ["table", "fit", "--base", str(base), "--measured", str(measured), "-o", str(out)])
    assert done.exit_code == 0, done.exception
    assert estimates(out) == pytest.approx([1.25 * ms for ms in estimates(base)])
    assert "2 networks were off by 20.0% on average" in done.stderr


def test_a_file_without_latencies_is_refused(base: Path, tmp_path: Path) -> None:
    measured = write_measured(tmp_path / "measured.csv", ["fast", ""])
    done = CliRunner().invoke(
        app, ["table", "fit", "--base", str(base), "--measured", str(measured), "-o", str(tmp_path / "t.json")]
    )
    assert isinstance(done.exception, InvalidSettingError)
    assert "column 'latency_ms'" in str(done.exception)
    assert not (tmp_path / "t.json").exists()
