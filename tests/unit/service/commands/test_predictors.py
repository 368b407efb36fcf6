"""`tailor predictor import-ofa`, `fit --calibrate`, and what the other commands do with an imported predictor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latency_tables.device import DeviceProfile
from latency_tables.table import LatencyStats, LatencyTable, save_table
from service.cli import app
from supernet.errors import FingerprintMismatchError, InvalidCheckpointError, InvalidConfigError
from supernet.predictors.loading import load_predictor
from supernet.spaces.arch import Arch
from supernet.spaces.arch_csv import arch_columns, write_arch
from supernet.spaces.presets import load_space

SPACE = load_space("ofa_mbv3_w1.2")


def run(*arguments: object) -> str:
    """What a command prints to stdout."""
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported from a file with random weights, by the command."""
    folder = tmp_path_factory.mktemp("predictor")
    generator = torch.Generator().manual_seed(2)
    shapes = {"0": (40, 128), "2": (40, 40), "4": (40, 40), "6": (1, 40)}
    state = {f"{name}.weight": torch.randn(shape, generator=generator) / 20 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.full(shape[:1], 0.7) for name, shape in shapes.items()}
    torch.save(state, folder / "acc_predictor.pth")
    out = folder / "p.safetensors"
    assert not run("predictor", "import-ofa", folder / "acc_predictor.pth", "--space", SPACE.name, "-o", out)
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two resolutions; the predictor knows one of them."""
    path = tmp_path_factory.mktemp("table") / "table.json"
    few = replace(SPACE, resolutions=(160, 164))
    device = DeviceProfile(device_id="board", chip="Board", runtime="onnxruntime", runtime_version="1.31.1")
    rows = {spec: LatencyStats(1e-3 + spec.macs * 1e-7, 1e-6, 100) for spec in few.distinct_blocks()}
    save_table(LatencyTable(device=device, space=SPACE.name, source={"method": "made up"}, rows=rows), path)
    return path


def test_an_import_says_which_resolutions_it_knows(tmp_path: Path, predictor: Path) -> None:
    source, out = predictor.parent / "acc_predictor.pth", tmp_path / "p"
    options = ("--space", SPACE.name, "--out", str(out), "--resolutions", "176,160")
    done = CliRunner().invoke(app, ["predictor", "import-ofa", str(source), *options])
    assert "it knows the resolutions 160, 176." in done.stderr
    assert "overstates accuracies by 3 to 5 points and has no intervals: trust the order alone" in done.stderr
    assert "`tailor predictor fit --calibrate` corrects it" in done.stderr
    assert out.is_file()


def test_a_failed_import_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"PK")
    with pytest.raises(InvalidCheckpointError, match="incomplete"):
        run("predictor", "import-ofa", tmp_path / "broken.pth", "--space", SPACE.name, "-o", tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    archs = [
        replace(arch, resolution=192)
        for arch in (SPACE.smallest(), SPACE.largest(), SPACE.sample(np.random.default_rng(1)))
    ]
    return written(tmp_path / "measured.csv", {arch: 70.0 + index for index, arch in enumerate(archs)})


def written(path: Path, measured: dict[Arch, float]) -> Path:
    """A CSV of archs with their accuracies in percent."""
    lines = [",".join([*arch_columns(SPACE), "top1_percent"])]
    lines += [",".join([*write_arch(SPACE, arch).values(), str(top1)]) for arch, top1 in measured.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def overstated(tmp_path_factory: pytest.TempPathFactory, predictor: Path) -> Path:
    """Archs whose accuracies lie four points below what the predictor says."""
    sampled = SPACE.sample_rows(np.random.default_rng(3), 25)
    archs = [replace(arch, resolution=160) for arch in SPACE.from_rows(sampled)]
    top1 = 100 * load_predictor(predictor, SPACE).predict(SPACE.to_rows(archs)) - 4
    return written(tmp_path_factory.mktemp("overstated") / "m.csv", dict(zip(archs, top1.tolist(), strict=True)))


def test_an_evaluation_knows_no_intervals(predictor: Path, measured: Path) -> None:
    report = json.loads(run("predictor", "evaluate", predictor, "--measured", measured, "--json"))
    assert list(report) == ["n", "rmse_pp", "kendall_tau", "bias_pp", "coverage_90", "width_90_pp"]
    assert (report["n"], report["coverage_90"], report["width_90_pp"]) == (3, None, None)
    shown = run("predictor", "evaluate", predictor, "--measured", measured)
    assert [line.split()[-1] for line in shown.splitlines() if "_90" in line] == ["unknown", "unknown"]


def test_a_search_needs_no_bundle_and_gives_no_interval(predictor: Path, table: Path) -> None:
    arguments = ("--space", SPACE.name, "--predictor", predictor, "--table", table, "--latency-ms", 60)
    answer = json.loads(run("search", *arguments, "--evaluations", 300, "--json"))
    assert answer["arch"]["resolution"] == 160
    assert answer["latency_ms"]["estimated"] <= 60
    assert 0 < answer["accuracy"].pop("predicted") <= 1
    assert answer["accuracy"] == {"low": None, "high": None, "level": None}
    assert "no interval" in run("search", *arguments, "--evaluations", 300)


def test_an_evaluation_says_how_far_an_imported_predictor_is_off(predictor: Path, overstated: Path) -> None:
    done = CliRunner().invoke(app, ["predictor", "evaluate", str(predictor), "--measured", str(overstated)])
    assert "No intervals: it predicts 4.0 points above these archs on average." in done.stderr
    assert "`tailor predictor fit --calibrate` corrects it" in done.stderr


def test_a_calibrated_predictor_is_right_and_answers_with_intervals(
    tmp_path: Path, predictor: Path, overstated: Path, table: Path
) -> None:
    out = tmp_path / "corrected"
    options = ("--space", SPACE.name, "--measured", overstated, "--calibrate", predictor, "-o", out)
    quality = json.loads(run("predictor", "fit", *options, "--json"))
    assert quality["n_archs"] == 25
    assert quality["rmse_pp"] < 0.2
    done = CliRunner().invoke(app, ["predictor", "evaluate", str(out), "--measured", str(overstated), "--json"])
    report = json.loads(done.stdout)
    assert abs(report["bias_pp"]) < 0.1
    assert report["coverage_90"] >= 0.9
    assert "No intervals" not in done.stderr
    search = ("--space", SPACE.name, "--predictor", out, "--table", table, "--latency-ms", 60, "--evaluations", 300)
    accuracy = json.loads(run("search", *search, "--json"))["accuracy"]
    assert accuracy["low"] < accuracy["predicted"] < accuracy["high"]
    assert "no interval" not in run("search", *search)


def test_a_calibration_that_is_refused_writes_nothing(
    tmp_path: Path, predictor: Path, overstated: Path, measured: Path
) -> None:
    out = tmp_path / "corrected"
    options = ("--calibrate", predictor, "-o", out)
    with pytest.raises(InvalidConfigError, match="at least 20 archs, got 3"):
        run("predictor", "fit", "--space", SPACE.name, "--measured", measured, *options)
    with pytest.raises(FingerprintMismatchError, match="was fitted for the space"):
        run("predictor", "fit", "--space", "ofa_mbv3_w1.0", "--measured", overstated, *options)
    assert not out.exists()
