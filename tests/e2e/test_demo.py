"""`make demo`: the whole way, from a request to a measured model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from supernet.export.verify import verify_deployment

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.mark.timeout(600)
def test_demo_ends_with_a_verified_model_within_the_budget(tmp_path: Path) -> None:
    out = tmp_path / "model"
    done = subprocess.run([sys.executable, str(DEMO), "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    word, document = done.stdout.strip().splitlines()[-1].split(" {", 1)
    assert word == "DEMO OK"
    answer = json.loads("{" + document)
    assert set(answer) == {
        "device",
        "budget_ms",
        "estimated_ms",
        "measured_ms",
        "predicted_accuracy",
        "model",
        "sha256",
        "parity_max_abs_diff",
        "seconds_search",
        "seconds_total",
    }
    assert 0 < answer["estimated_ms"] <= answer["budget_ms"]
    assert answer["parity_max_abs_diff"] <= 1e-4
    assert 0.5 < answer["predicted_accuracy"] < 1
    assert hashlib.sha256(Path(answer["model"]).read_bytes()).hexdigest() == answer["sha256"]
    verify_deployment(out)
    # Looser than the 25 % a quiet machine keeps: this test may share its cores with others.
    assert 0.5 < answer["measured_ms"] / answer["estimated_ms"] < 2


def test_demo_refuses_a_folder_it_cannot_write_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, str(DEMO), "--out", str(tmp_path / "file" / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert "cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1
