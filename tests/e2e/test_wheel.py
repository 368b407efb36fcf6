"""The wheel holds everything the service needs and nothing else, and serves without the repository."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "supernet", "latency_tables")
# 4 MB when this was written, nearly all of it the shipped bundle.
MAX_BYTES = 16 * 2**20

BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
# Isolated (-I) and without site (-S): neither the repository nor an editable install can be imported. The packages
# of others come last, without the .pth files of their folder.
SERVE = """
import sys
sys.path[:0] = [sys.argv.pop(1)]
sys.path += [sys.argv.pop(1)]
import latency_tables, service, supernet
print(service.__file__, supernet.__file__, latency_tables.__file__, sep="\\n", flush=True)
from service.cli import main
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's wheel, built without a network by its own backend."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    done = subprocess.run(
        [*command, "--target", str(target), str(wheel)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def committed(*folders: str) -> set[str]:
    """Files below these folders that git knows."""
    done = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("needs the git repository to know what belongs into the wheel")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    assert committed(*PACKAGES) <= names_of(wheel)


def test_the_wheel_holds_what_the_service_reads(wheel: Path) -> None:
    names = names_of(wheel)
    bundle = {
        f"supernet/bundles/cifar_mbv3/{part}"
        for part in (
            "manifest.json",
            "weights.safetensors",
            "predictor.safetensors",
            "calibration.safetensors",
        )
    }
    migrations = {f"service/db/migrations/{name}" for name in ("env.py", "versions/0001_initial.py")}
    assert bundle | migrations | {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(re.fullmatch(r"latency_tables/data/[^/]+/cifar_mbv3\.json", name) for name in names)
    (licence,) = (name for name in names if name.endswith(".dist-info/licenses/LICENSE"))
    with zipfile.ZipFile(wheel) as archive:
        assert b"Apache License" in archive.read(licence)
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert b"tailor = service.cli:main" in archive.read(entry_points)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    assert {name.partition("/")[0] for name in names_of(wheel)} == {*PACKAGES, dist_info(wheel)}
    strays = [
        name
        for name in names_of(wheel)
        if re.search(r"\.(pyc|sqlite|log|lock|pt|pth|onnx|ipynb)$|(^|/)(tests?|docs|runs|__pycache__|\.tailor)/", name)
    ]
    assert strays == []
    assert wheel.stat().st_size <= MAX_BYTES


def dist_info(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}-{version}.dist-info"


@pytest.mark.timeout(120)
def test_the_installed_wheel_serves_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    here, data = tmp_path / "here", tmp_path / "data"
    here.mkdir()
    others = Path(pytest.__file__).parents[1]
    command = [sys.executable, "-I", "-S", "-c", SERVE, str(installed), str(others)]
    # Without a worker, whose export would take longer than all the rest; it is the same package.
    command += ["serve", "--port", "0", "--no-worker"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TAILOR_", "PYTHON"))}
    with (tmp_path / "out").open("w") as out, (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=here, stdout=out, stderr=log, env=environment | {"TAILOR_DATA_DIR": str(data)}
        )
    try:
        address = address_of(process, tmp_path / "log")
        places = [Path(line) for line in (tmp_path / "out").read_text().splitlines()]
        assert places == [installed / package / "__init__.py" for package in PACKAGES]
        assert ask(f"{address}/readyz") == (200, {"status": "ok"})
        _, devices = ask(f"{address}/v1/devices")
        device = devices["items"][0]["id"]
        _, limits = ask(f"{address}/v1/devices/{device}/limits")
        budget = (limits["latency_ms"]["min"] + limits["latency_ms"]["max"]) / 2
        status, search = ask(f"{address}/v1/searches", {"device": device, "constraints": {"latency_ms": budget}})
        assert status == 201
        assert search["latency_ms"]["estimated"] <= budget
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    assert {"tailor.sqlite", "artifacts"} <= {path.name for path in data.iterdir()}
    assert list(here.iterdir()) == []


def address_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the service listens, as its log says."""
    for _ in range(600):
        for line in log.read_text().splitlines():
            if line.startswith("{") and (record := json.loads(line))["message"] == "listening":
                return str(record["address"])
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    pytest.fail(log.read_text())


def ask(url: str, body: dict[str, object] | None = None) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, json.loads(response.read())
