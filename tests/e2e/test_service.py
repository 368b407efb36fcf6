"""The service as it is run: API and worker in processes of their own, real exports, real kills."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from supernet.export.verify import verify_deployment
from supernet.network.elastic_net import Supernet
from supernet.ofa.weights import reference_names
from supernet.spaces.presets import load_space

ROOT = Path(__file__).parents[2]
SPACE = "cifar_mbv3"


@dataclass
class Service:
    """A running `tailor serve`."""

    client: httpx.Client
    process: subprocess.Popen[bytes]
    data: Path

    def post(self, path: str, body: dict[str, object]) -> dict[str, object]:
        response = self.client.post(path, json=body)
        assert response.is_success, response.text
        answer: dict[str, object] = response.json()
        return answer

    def job(self, job_id: str) -> dict[str, object]:
        answer: dict[str, object] = self.client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return answer

    def wait(self, job_id: str, *, timeout_s: float = 120) -> dict[str, object]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (job := self.job(job_id))["state"] not in ("queued", "running"):
                return job
            time.sleep(0.1)
        pytest.fail(f"job {job_id} did not end: {self.job(job_id)}")

    def worker_pid(self) -> int:
        """The child of the server that runs jobs."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                parent = int(re.search(r"^PPid:\s*(\d+)", status.read_text(), re.MULTILINE).group(1))  # type: ignore[union-attr]
                command = (status.parent / "cmdline").read_bytes()
            except (OSError, AttributeError):
                continue
            if parent == self.process.pid and b"service.jobs.worker" in command:
                return int(status.parent.name)
        pytest.fail("the server has no worker")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data = tmp_path_factory.mktemp("service")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--data-dir", str(data / "data")]
    environment = os.environ | {"TAILOR_FRONT_EVALUATIONS": "5000"}
    with (data / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in range(600):
            assert process.poll() is None, (data / "log").read_text()
            try:
                if client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            pytest.fail((data / "log").read_text())
        yield Service(client, process, data / "data")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, (data / "log").read_text()


def deployment_of(service: Service, resolution: int) -> tuple[str, str]:
    """Ask for the smallest arch at a resolution; ids of the deployment and its job."""
    arch = load_space(SPACE).smallest().to_dict() | {"resolution": resolution}
    deployment = service.post("/v1/deployments", {"supernet": SPACE, "arch": arch})
    return str(deployment["id"]), str(deployment["job"]["id"])  # type: ignore[index]


def download(service: Service, deployment_id: str, folder: Path) -> Path:
    folder.mkdir()
    for name in ("model.onnx", "manifest.json"):
        content = service.client.get(f"/v1/deployments/{deployment_id}/{name}").raise_for_status().content
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.timeout(300)
def test_killed_worker_finishes_the_deployment_once_after_its_restart(service: Service, tmp_path: Path) -> None:
    deployment_id, job_id = deployment_of(service, 24)
    deadline = time.monotonic() + 90
    while (job := service.job(job_id))["stage"] != "export":
        assert job["state"] in ("queued", "running"), job
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    killed = service.worker_pid()
    os.kill(killed, signal.SIGKILL)

    job = service.wait(job_id)
    assert (job["state"], job["attempts"]) == ("succeeded", 2)
    assert service.worker_pid() != killed
    verify_deployment(download(service, deployment_id, tmp_path / "model"))
    attempts = sorted(path.name for path in (service.data / "artifacts" / "deployments" / deployment_id).iterdir())
    assert attempts == ["2"]
    time.sleep(2)  # a second finish would come from a queue that delivers again
    assert service.job(job_id) == job


@pytest.mark.timeout(300)
def test_the_same_request_gives_the_same_bytes(service: Service, tmp_path: Path) -> None:
    folders = []
    for name in ("first", "second"):
        deployment_id, job_id = deployment_of(service, 28)
        assert service.wait(job_id)["state"] == "succeeded"
        folders.append(download(service, deployment_id, tmp_path / name))
    assert (folders[0] / "model.onnx").read_bytes() == (folders[1] / "model.onnx").read_bytes()


def test_a_front_is_traced_by_the_worker_and_makes_searches_look_ups(service: Service) -> None:
    # Other tests of this service register devices with tables for other spaces.
    devices = service.client.get("/v1/devices").json()["items"]
    device = next(item["id"] for item in devices if SPACE in [table["space"] for table in item["tables"]])
    path = f"/v1/devices/{device}/front"
    ordered = service.client.get(path)
    assert ordered.status_code == 202, ordered.text
    job = service.wait(ordered.json()["job"]["id"])
    assert (job["state"], job["result"]) == ("succeeded", f"{path}?supernet={SPACE}")
    points = service.client.get(path).json()["points"]
    budget = points[len(points) // 2]["latency_ms"]["estimated"]
    found = service.post("/v1/searches", {"device": device, "constraints": {"latency_ms": budget * (1 + 1e-9)}})
    assert found["source"] == "front"
    assert found["arch_id"] == points[len(points) // 2]["arch_id"]


def test_second_instance_on_the_same_folder_is_refused_in_one_line(service: Service) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--data-dir", str(service.data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr


def readme_commands() -> list[str]:
    """Those of the README, and the one that registers a table made by hand."""
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "tables.md").read_text()
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    return [line.partition("#")[0] for line in lines if line.startswith("curl ") and "…" not in line]


@pytest.mark.timeout(300)
def test_curl_commands_of_the_readme_run(service: Service, tmp_path: Path) -> None:
    commands = readme_commands()
    assert len(commands) >= 4
    names = {"DEPLOYMENT_ID": "none", "JOB_ID": "none"}
    tables = list((ROOT / "latency_tables" / "data").glob(f"*/{SPACE}.json"))
    document = json.loads(tables[0].read_text())
    document["device"]["device_id"] = "my-npu"
    (tmp_path / "my-npu.json").write_text(json.dumps(document))
    for command in commands:
        command = command.replace("http://127.0.0.1:8000", str(service.client.base_url).rstrip("/"))
        for name, value in names.items():
            command = command.replace(name, value)
        done = subprocess.run(
            [*shlex.split(command), "--fail-with-body"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        answer = json.loads(done.stdout) if done.stdout else {}
        if isinstance(answer.get("deployment"), dict):
            names = {"DEPLOYMENT_ID": answer["deployment"]["id"], "JOB_ID": answer["deployment"]["job"]["id"]}
            assert service.wait(answer["deployment"]["job"]["id"])["state"] == "succeeded"
    verify_deployment(tmp_path_with_model(tmp_path))
    assert service.client.get("/v1/devices/my-npu").status_code == 200


def tmp_path_with_model(folder: Path) -> Path:
    """The downloaded files in a folder of their own, as `tailor verify` wants them."""
    model = folder / "model"
    model.mkdir()
    for name in ("model.onnx", "manifest.json"):
        (folder / name).rename(model / name)
    return model


# ---------------------------------------------------------------------- a supernet of the reference project


def tailor(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.shared_data
@pytest.mark.timeout(600)
def test_an_imported_supernet_is_searched_with_a_published_table_and_deployed(
    service: Service, shared_data: Path, tmp_path: Path
) -> None:
    space = load_space("ofa_mbv3_w1.2")
    state = Supernet(space, torch.Generator().manual_seed(0)).state_dict()
    names = reference_names(space, state)
    torch.save({names[ours]: tensor for ours, tensor in state.items()}, tmp_path / "supernet.pth")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (224, 224, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{index}.png")

    predictor, bundle, table = tmp_path / "predictor", tmp_path / "bundle", tmp_path / "table.json"
    server = str(service.client.base_url).rstrip("/")
    of_space = ("--space", space.name)
    tailor("predictor", "import-ofa", shared_data / "ofa_acc_predictor.pth", *of_space, "-o", predictor)
    parts = ("--predictor", predictor, "--calibration", pictures)
    tailor("import-ofa", tmp_path / "supernet.pth", *of_space, *parts, "-o", bundle)
    tailor("supernet", "add", bundle, "--id", "imported", "--server", server)
    tailor("table", "import", shared_data / "ofa_note10", *of_space, "--device", "note10", "-o", table)
    put = service.client.put(f"/v1/devices/note10/tables/{space.name}", json=json.loads(table.read_text()))
    assert put.status_code == 201, put.text

    question = {"supernet": "imported", "device": "note10", "constraints": {"latency_ms": 11}}
    search = service.post("/v1/searches", question)
    assert search["latency_ms"]["estimated"] <= 11  # type: ignore[index]
    assert search["arch"]["resolution"] in (160, 176, 192, 208, 224)  # type: ignore[index]
    # Nobody knows how far off the reference's predictor is.
    assert search["accuracy"]["predicted"] > 0.7  # type: ignore[index]
    assert search["accuracy"]["low"] is None  # type: ignore[index]

    deployment = service.post("/v1/deployments", {"search_id": search["id"]})
    job = service.wait(str(deployment["job"]["id"]), timeout_s=500)  # type: ignore[index]
    assert job["state"] == "succeeded", job["error"]
    folder = download(service, str(deployment["id"]), tmp_path / "model")
    assert verify_deployment(folder).arch_id == search["arch_id"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["bn_recalibration"] == {"source": "images", "images": 8}
    assert manifest["parity"]["top1_agreement"] >= 0.999
