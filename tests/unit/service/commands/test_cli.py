"""The `tailor` command: answers on stdout, notes on stderr, exit codes, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.commands.output import validate_writable
from supernet.spaces.arch_csv import arch_columns, write_arch
from supernet.spaces.costs import macs, params
from supernet.spaces.presets import list_spaces, load_space

DATA = Path(__file__).parents[4] / "latency_tables" / "data"


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
    assert done.stderr.startswith(
        "Error: No search space 'nonsense'. Name a file that ends with .toml or .json, or one of: "
    )
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
        (["export", "--supernet", "none", "--arch", "largest", "-o", "out"], "'none'"),
        (["export", "--supernet", "cifar_mbv3", "--arch", "none.json", "-o", "out"], "none.json"),
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


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ufeff{}", '{"arch": 3}'])
def test_an_arch_file_that_holds_none_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(text, encoding="utf-8")
    done = run("export", "--supernet", "cifar_mbv3", "--arch", "arch.json", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["train", "c.toml", "--data", "d"], "torch", "train"),
        (["export", "--supernet", "cifar_mbv3", "--arch", "arch.json", "-o", "out"], "torch", "export"),
        (["profile", "-o", "t.json"], "onnxruntime", "agent"),
        (["profile", "-o", "t.json", "--server", "http://127.0.0.1:1"], "httpx", "agent"),
        (["verify", "."], "onnx", "runtimes"),
        (["serve"], "uvicorn", "serve"),
        (["worker"], "dbos", "serve"),
        (["db", "upgrade"], "pydantic_settings", "serve"),
    ],
)
def test_a_missing_package_names_the_extra_to_install(
    arguments: list[str], package: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / "arch.json").write_text(json.dumps({"arch": load_space("cifar_mbv3").smallest().to_dict()}))
    code = f"import sys; sys.modules['{package}'] = None; from service.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    # Variables of the tests look like settings, which the command would warn about.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAILOR_")}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: This command needs the package '{package}', which is not installed. "
        f"Install it with: pip install 'tailor-nas[{extra}]'\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["profile", "-o", "file/t.json"],
        ["export", "--supernet", "cifar_mbv3", "--arch", "arch.json", "-o", "file/out"],
        ["train", "none.toml", "--data", "none", "--out", "file/out"],
    ],
)
def test_an_output_folder_that_cannot_be_written_is_refused_before_the_work(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "arch.json").write_text(json.dumps(load_space("cifar_mbv3").smallest().to_dict()))
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert "file" in done.stderr
    assert "--out" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_probe_of_the_output_folder_leaves_nothing(tmp_path: Path) -> None:
    validate_writable(tmp_path / "not" / "yet" / "there")
    validate_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("TAILOR_MAX_BODY_BYTES", "abc", "TAILOR_MAX_BODY_BYTES is 'abc', but should be a valid integer"),
        ("TAILOR_DATABASE_URL", "nonsense", "TAILOR_DATABASE_URL is no database URL. Allowed are"),
        ("TAILOR_ARTIFACTS_URL", "nonsense", "Set TAILOR_ARTIFACTS_URL to one such as file:///folder"),
    ],
)
def test_nonsense_in_the_environment_ends_in_one_line(name: str, value: str, part: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    environment = os.environ | {name: value}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert part in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that takes no byte")
def test_an_answer_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "service.cli", "spaces", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: No space left on device. Free some space, then run the command again.\n"


def test_a_reader_that_leaves_early_sees_no_traceback(archs_csv: Path) -> None:
    lines = archs_csv.read_text().splitlines()
    archs_csv.write_text("\n".join([lines[0], *lines[1:] * 1500]))  # more than a pipe holds
    command = [sys.executable, "-m", "service.cli", "describe", "--space", "cifar_mbv3", "--archs", str(archs_csv)]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_interrupt_ends_quietly() -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc to see how far the command is")
    command = [sys.executable, "-m", "service.cli", "search", "--supernet", "cifar_mbv3", "--latency-ms", "1"]
    command += ["--table", str(next(DATA.glob("*/cifar_mbv3.json"))), "--evaluations", "900000000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores the signal, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while "safetensors" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (130, -signal.SIGINT)  # a shell shows both as 130
    assert out == ""
    assert "Traceback" not in err
