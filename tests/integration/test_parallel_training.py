"""Two processes train what one process trains that runs the same two halves of each batch one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

SPACE = SearchSpace(
    "parallel",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
        Stage(
            BlockKind.INVERTED,
            widths=(8,),
            depths=(1, 2),
            kernel_sizes=(3, 5),
            expand_ratios=(2, 3),
            act=Act.RELU,
            shortcut=True,
        ),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(10,), norm=False, bias=True),
    ),
    resolutions=(8, 12),
)

# Epochs; progressive shrinking has four phases here.
METHODS = {"us_nets": 2, "pss_net": 2, "progressive_shrinking": 4, "netaug": 2}

SCRIPT = """
import sys
from pathlib import Path

import numpy as np

from supernet.data.images import ImageSet
from supernet.training.config import load_config
from supernet.training.loop import train

rng = np.random.default_rng(0)
images = ImageSet(rng.integers(0, 256, (48, 12, 12, 3), np.uint8), rng.integers(0, 3, 48), ("a", "b", "c"))
for config in map(Path, sys.argv[1:]):
    train(load_config(config), images, config.with_suffix(""))
"""


def write_configs(folder: Path, *, accumulate: int) -> list[str]:
    """One per method; a run's folder is named after its file."""
    folder.mkdir()
    (folder / "space.json").write_text(json.dumps(SPACE.to_dict()), encoding="utf-8")
    common = {"batch_size": 16, "accumulate": accumulate, "learning_rate": 0.1, "ema": 0.9, "validation_images": 1}
    for method, epochs in METHODS.items():
        lines = [f"{key} = {value}" for key, value in {"epochs": epochs, **common}.items()]
        text = "\n".join(['space = "space.json"', f'method = "{method}"', *lines])
        (folder / f"{method}.toml").write_text(text, encoding="utf-8")
    return [str(folder / f"{method}.toml") for method in METHODS]


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of two processes and of one, with a folder for each method."""
    folder = tmp_path_factory.mktemp("parallel")
    script = folder / "run.py"
    script.write_text(SCRIPT, encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run([sys.executable, *torchrun, str(script), *write_configs(folder / "two", accumulate=1)], folder)
    run([sys.executable, str(script), *write_configs(folder / "one", accumulate=2)], folder)
    return folder / "two", folder / "one"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one_that_accumulates(method: str, runs: tuple[Path, Path]) -> None:
    two, one = (load_file(folder / method / "checkpoint.safetensors") for folder in runs)
    assert set(two) == set(one)
    assert any(name.startswith("average.") for name in one)
    assert any(name.startswith("teacher.") for name in one) is (method == "progressive_shrinking")
    for name, tensor in one.items():
        # Each process has statistics of its own; they are recalibrated in the end.
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(
                two[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )
    logs = [(folder / method / "log.csv").read_text(encoding="utf-8").splitlines() for folder in runs]
    assert len(logs[0]) == METHODS[method] + 1
    for first, second in zip(logs[0][1:], logs[1][1:], strict=True):
        # All but the seconds.
        for left, right in zip(first.split(",")[2:5], second.split(",")[2:5], strict=True):
            assert float(left) == pytest.approx(float(right), rel=1e-4)
