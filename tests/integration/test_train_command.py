"""`tailor train`: from a folder of images and a TOML file to bundles, for every kind of run, in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from service.cli import app
from supernet.bundle import open_bundle
from supernet.network.checkpoint import load_supernet
from supernet.pools.runtime import PoolRuntime
from supernet.predictors.loading import load_predictor

SPACE = """
name = "tiny"
resolutions = [8]
[[stages]]
kind = "conv"
widths = [8, 16]
kernel_sizes = [3]
stride = 2
[[stages]]
kind = "inverted"
widths = [8, 16]
depths = [1, 2]
kernel_sizes = [3, 5]
expand_ratios = [2, 3]
shortcut = true
[[stages]]
kind = "pool"
[[stages]]
kind = "linear"
widths = [10]
norm = false
bias = true
"""


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing would take most of the time of runs as short as these."""
    monkeypatch.setattr("supernet.training.log.draw_curves", lambda *_: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of 100 images each, and one that is cut short."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name, tint in (("dark", 0), ("light", 120)):
        (folder / name).mkdir(parents=True)
        for number in range(100):
            pixels = rng.integers(tint, tint + 120, (10, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    whole = (folder / "dark" / "000.png").read_bytes()
    (folder / "dark" / "broken.png").write_bytes(whole[: len(whole) // 2])
    return folder


def run(tmp_path: Path, config: str, *options: str) -> Result:
    (tmp_path / "tiny.toml").write_text(SPACE)
    (tmp_path / "config.toml").write_text(f'space = "tiny.toml"\n{config}')
    return CliRunner().invoke(app, ["train", str(tmp_path / "config.toml"), *options])


def test_own_images_become_a_bundle_and_one_subnet_learns_on(images: Path, tmp_path: Path) -> None:
    refused = run(tmp_path, 'method = "rss"', "--data", str(images), "--out", str(tmp_path / "rss"), "--smoke")
    assert refused.exit_code == 1
    assert "broken.png" in str(refused.exception) + refused.output
    options = ("--smoke", "--skip-broken", "--data", str(images))
    done = run(tmp_path, 'method = "rss"', *options, "--out", str(tmp_path / "rss"))
    assert done.exit_code == 0, done.output
    assert "1 broken images skipped" in done.stderr
    bundle = open_bundle(tmp_path / "rss" / "bundle")
    assert bundle.manifest.classes == ("dark", "light")
    assert set(bundle.manifest.parts) == {"weights", "predictor", "calibration"}

    (tmp_path / "answer.json").write_text(json.dumps({"arch": bundle.space.largest().to_dict()}))
    config = 'method = "fine_tuning"\n[fine_tuning]\ntarget = "answer.json"\ndistil = 1.0'
    tuned = (*options, "--initial", str(bundle.path), "--out", str(tmp_path / "tuned"))
    refused = run(tmp_path, config, *tuned)
    assert "distils from a teacher" in str(refused.exception) + refused.output
    done = run(tmp_path, config, *tuned, "--teacher", str(bundle.path))
    assert done.exit_code == 0, done.output
    alone = open_bundle(tmp_path / "tuned" / "bundle")
    assert alone.space.size() == 1
    training = alone.manifest.training
    assert training["evaluated"]["images"] == training["evaluated_before"]["images"] == 48
    predictor = load_predictor(alone.predictor_path, alone.space)
    assert predictor.predict(alone.space.to_rows([alone.space.smallest()]))[0] == training["evaluated"]["top1"]


def test_a_trial_run_needs_no_images_and_pools_come_with_the_bundle(tmp_path: Path) -> None:
    config = 'method = "pss_net"\n[pss_net]\nbins = 4\npool_size = 2\nprior_archs = 300'
    assert run(tmp_path, config, "--out", str(tmp_path / "run")).exit_code == 2
    done = run(tmp_path, config, "--smoke", "--out", str(tmp_path / "run"))
    assert done.exit_code == 0, done.output
    bundle = open_bundle(tmp_path / "run" / "bundle")
    assert bundle.manifest.training["dataset"] == "painted"
    runtime = PoolRuntime.load(bundle.path)
    assert runtime.pools
    assert runtime(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


def test_switchable_widths_are_bundled_one_by_one(tmp_path: Path) -> None:
    config = 'method = "us_nets"\n[us_nets]\nwidths = [0.5, 1.0]\nbn = "switchable"\nbn_images = 4'
    done = run(tmp_path, config, "--smoke", "--out", str(tmp_path / "run"))
    assert done.exit_code == 0, done.output
    narrow, wide = (load_supernet(tmp_path / "run" / f"bundle_{ratio}") for ratio in ("0.5", "1"))
    assert narrow.space.size() == wide.space.size() == 1
    assert len(narrow.state_dict()["blocks.0.layers.conv.norm.weight"]) == 8
    assert len(wide.state_dict()["blocks.0.layers.conv.norm.weight"]) == 16
