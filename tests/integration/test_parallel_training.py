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

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import torch

from supernet.data.images import ImageSet
from supernet.training.config import load_config
from supernet.training.loop import train

torch.set_num_threads(1)
config, out = Path(sys.argv[1]), Path(sys.argv[2])
rng = np.random.default_rng(0)
images = ImageSet(rng.integers(0, 256, (48, 12, 12, 3), np.uint8), rng.integers(0, 3, 48), ("a", "b", "c"))
train(load_config(config), images, out)
"""


def write_config(folder: Path, method: str, **settings: int) -> Path:
    (folder / "space.json").write_text(json.dumps(SPACE.to_dict()), encoding="utf-8")
    path = folder / f"{method}.toml"
    values = {"epochs": 2, "batch_size": 16, "learning_rate": 0.1, "validation_images": 1} | settings
    lines = [f"{key} = {value}" for key, value in values.items()]
    path.write_text("\n".join(['space = "space.json"', f'method = "{method}"', *lines]), encoding="utf-8")
    return path


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["us_nets", "pss_net"])
def test_two_processes_equal_one_that_accumulates(method: str, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT, encoding="utf-8")
    config = write_config(tmp_path, method)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run([*torchrun, str(script), str(config), str(tmp_path / "two")], tmp_path)
    halves = write_config(tmp_path, method, accumulate=2)
    run([sys.executable, str(script), str(halves), str(tmp_path / "one")], tmp_path)

    two, one = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("two", "one"))
    assert set(two) == set(one)
    for name, tensor in one.items():
        if "running_" not in name:  # each process has statistics of its own; they are recalibrated in the end
            torch.testing.assert_close(
                two[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("two", "one")]
    assert len(logs[0]) == 3
    for first, second in zip(logs[0][1:], logs[1][1:], strict=True):
        # All but the seconds.
        for left, right in zip(first.split(",")[2:5], second.split(",")[2:5], strict=True):
            assert float(left) == pytest.approx(float(right), rel=1e-4)
