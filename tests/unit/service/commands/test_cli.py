"""The `tailor` command: answers on stdout, notes on stderr, exit codes, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from supernet.spaces.arch_csv import arch_columns, write_arch
from supernet.spaces.costs import macs, params
from supernet.spaces.presets import list_spaces, load_space


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `tailor` as a user does."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.fixture
def archs_csv(tmp_path: Path) -> Path:
    space = load_space("cifar_mbv3")
    path = tmp_path / "archs.csv"
    lines = [",".join(arch_columns(space))]
    lines += [",".join(write_arch(space, arch).values()) for arch in (space.largest(), space.smallest())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_spaces_prints_one_json_document() -> None:
    done = run("spaces", "--json")
    assert done.returncode == 0
    assert [entry["space"] for entry in json.loads(done.stdout)] == list_spaces()
    assert done.stderr == ""


def test_describe_keeps_the_order_of_the_file(archs_csv: Path) -> None:
    space = load_space("cifar_mbv3")
    done = run("describe", "--space", "cifar_mbv3", "--archs", str(archs_csv), "--json")
    assert json.loads(done.stdout) == [
        {"arch_id": arch.arch_id, "macs": macs(space, arch), "params": params(space, arch)}
        for arch in (space.largest(), space.smallest())
    ]


def test_unknown_space_is_one_line_and_exit_code_1(archs_csv: Path) -> None:
    done = run("describe", "--space", "nonsense", "--archs", str(archs_csv))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: No search space 'nonsense'. Known are: cifar_mbv3")
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    done = run("describe", "--no-such-option")
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "none.toml", "--data", "none"], "'none.toml' cannot be read"),
        (["table", "check", "none.json"], "none.json"),
        (["verify", "none"], "none"),
        (["export", "--supernet", "none", "--arch", "none.json", "-o", "out"], "none.json"),
        (["search", "--supernet", "none", "--table", "none.json", "--latency-ms", "1"], "none"),
        (["predictor", "fit", "--space", "cifar_mbv3", "--measured", "none.csv", "-o", "p"], "none.csv"),
        (["table", "import", "none", "--space", "ofa_mbv3_w1.2", "--device", "phone", "-o", "t.json"], "none"),
    ],
)
def test_missing_file_is_named_without_traceback(arguments: list[str], part: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom service.cli import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'fastapi', 'sqlalchemy', 'numpy.random') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() in ("[]", "['numpy.random']")
