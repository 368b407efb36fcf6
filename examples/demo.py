"""The whole way once: start the service, search for this machine, deploy, download, run and measure the model.

    make demo

Uses the REST API as any client would. Ends with a line `DEMO OK {json}`, or stops with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnxruntime

from latency_tables.build import measure_model, measure_pace
from latency_tables.errors import UnstableMeasurementError
from latency_tables.probe import matches, this_device
from latency_tables.table import LatencyTable, load_table, parse_table
from supernet.export.verify import verify_deployment
from supernet.spaces.presets import load_space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SPACE = "cifar_mbv3"
# A table counts as this machine's when its reference network runs this close to the latency it had then.
SAME_PACE = 0.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the downloaded model")
    out = parser.parse_args().out
    prepare(out)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tailor-demo-") as scratch, running_service(Path(scratch)) as client:
        say(f"Service is up after {time.perf_counter() - started:.1f} s: {client.base_url}")
        table = find_device(client, Path(scratch))
        device = table.device.device_id
        limits = get(client, f"/v1/devices/{device}/limits").json()["latency_ms"]
        fastest, slowest = limits["min"], limits["max"]
        budget_ms = round((fastest * slowest) ** 0.5, 3)
        say(f"Subnets run in {fastest:.3f} to {slowest:.3f} ms on {device}. Asking for at most {budget_ms} ms.")

        asked = time.perf_counter()
        search = post(client, "/v1/searches", {"device": device, "constraints": {"latency_ms": budget_ms}})
        seconds_search = time.perf_counter() - asked
        accuracy, latency = search["accuracy"], search["latency_ms"]
        say(
            f"Answer in {seconds_search * 1000:.0f} ms after {search['evaluations']} evaluations: "
            f"{search['macs'] / 1e6:.1f} M MACs, {latency['estimated']:.3f} ms, "
            f"accuracy {accuracy['predicted']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%})"
        )

        deployment = post(client, "/v1/deployments", {"search_id": search["id"]})
        wait_for(client, deployment["job"]["id"])
        folder = download(client, deployment["id"], out)
        model = folder / "model.onnx"
        report = verify_deployment(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        say(
            f"Downloaded {model}, {model.stat().st_size:,} bytes. Verified: logits of {report.images} reference images "
            f"at most {report.max_abs_diff:.1e} from torch's."
        )

    classes, shares = classify(model, manifest, picture(manifest["preprocessing"]["resolution"]))
    ranked = ", ".join(f"{name} {share:.0%}" for name, share in list(zip(classes, shares, strict=True))[:3])
    say(f"A painted ship is taken for: {ranked}")

    measured_ms = measure(model, table)
    say(f"Measured {measured_ms:.3f} ms against {latency['estimated']:.3f} ms estimated.")
    answer = {
        "device": device,
        "budget_ms": budget_ms,
        "estimated_ms": latency["estimated"],
        "measured_ms": measured_ms,
        "predicted_accuracy": accuracy["predicted"],
        "model": str(model),
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "parity_max_abs_diff": manifest["parity"]["max_abs_diff"],
        "seconds_search": round(seconds_search, 4),
        "seconds_total": round(time.perf_counter() - started, 1),
    }
    print("DEMO OK", json.dumps(answer))


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def running_service(folder: Path) -> Iterator[httpx.Client]:
    """Start `tailor serve` on a free port and stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "service.log"
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--data-dir", str(folder / "data")]
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(300):
                if process.poll() is not None:
                    sys.exit(f"The service stopped at once:\n{log.read_text()}")
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            else:
                sys.exit(f"The service did not become ready:\n{log.read_text()}")
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def prepare(out: Path) -> None:
    """Make the folder of the result now: after a minute of work is late to find that nothing can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        sys.exit(f"Error: '{out}' cannot be written: {error.strerror or error}. Choose another folder with --out.")


def get(client: httpx.Client, path: str) -> httpx.Response:
    return answer_of(client.get(path))


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = answer_of(client.post(path, json=body)).json()
    return answer


def answer_of(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        request = response.request
        sys.exit(f"{request.method} {request.url.path} answered {response.status_code}: {response.text}")
    return response


def find_device(client: httpx.Client, folder: Path) -> LatencyTable:
    """The latency table of the registered device this machine is; where there is none, measure and register one.

    A machine too busy to be measured takes the table of its chip nearest to its pace.
    """
    mine, space = this_device(threads=1), load_space(SPACE)
    of_this_chip: list[tuple[float, LatencyTable]] = []
    for item in get(client, "/v1/devices").json()["items"]:
        answer = client.get(f"/v1/devices/{item['id']}/tables/{SPACE}")
        if answer.is_error:
            continue
        table = parse_table(answer.text, space=SPACE)
        if not matches(table.device, mine):
            continue
        pace = measure_pace(table, space)
        if abs(pace - 1) <= SAME_PACE:
            say(f"This machine is the registered device {item['id']}: {pace:.2f} times its latency.")
            return table
        say(f"This machine has the chip of {item['id']}, but runs a network in {pace:.2f} times its latency.")
        of_this_chip.append((pace, table))
    say(f"No shipped latency table fits this machine ({mine.chip}). Measuring a quick one, about a minute …")
    path = folder / "table.json"
    command = [sys.executable, "-m", "service.cli", "profile", "--supernet", SPACE, "--quick"]
    command += ["--device", f"this-{mine.device_id}"[:64], "-o", str(path)]
    # A busy moment spoils a measurement; two in a row are a busy machine.
    if subprocess.run(command, check=False).returncode and subprocess.run(command, check=False).returncode:
        if not of_this_chip:
            sys.exit("This machine could not be measured; the reason stands above.")
        pace, table = min(of_this_chip, key=lambda found: abs(found[0] - 1))
        device = table.device.device_id
        say(f"This machine is too busy to be measured. Taking {device}; expect {pace:.2f} times its latency.")
        return table
    table = load_table(path)
    url = f"/v1/devices/{table.device.device_id}/tables/{SPACE}"
    answer_of(client.put(url, content=path.read_bytes(), headers={"content-type": "application/json"}))
    return table


def measure(model: Path, table: LatencyTable) -> float:
    """Latency of the model, ms, at the pace of the table; at any pace where the machine no longer has that one."""
    try:
        return measure_model(model, threads=1, table=table, space=load_space(SPACE)).value_ms
    except UnstableMeasurementError as error:
        say(f"Note: {error}")
        return measure_model(model, threads=1).value_ms


def wait_for(client: httpx.Client, job_id: str) -> None:
    """Follow a job by its server-sent events."""
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data:"):
                job = json.loads(line.removeprefix("data:"))
                say(f"  {job['state']:<9} {job['progress']:4.0%} {job.get('stage') or ''}")
    job = get(client, f"/v1/jobs/{job_id}").json()
    if job["state"] != "succeeded":
        sys.exit(f"The deployment {job['state']}: {(job['error'] or {}).get('message', 'somebody stopped it.')}")


def download(client: httpx.Client, deployment_id: str, out: Path) -> Path:
    for name in ("model.onnx", "manifest.json"):
        (out / name).write_bytes(get(client, f"/v1/deployments/{deployment_id}/{name}").content)
    return out


def picture(size: int) -> NDArray[np.uint8]:
    """A ship on the sea, painted: `(size, size, 3)` uint8."""
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.empty((size, size, 3))
    image[:] = (165, 195, 225)
    image[y > 0.62] = (35, 75, 120)
    image[(y > 0.5) & (y < 0.68) & (x > 0.15 + 0.5 * (y - 0.5)) & (x < 0.88 - 0.5 * (y - 0.5))] = (120, 40, 35)
    image[(y > 0.36) & (y <= 0.5) & (x > 0.35) & (x < 0.7)] = (235, 235, 230)
    image[(y > 0.22) & (y <= 0.36) & (x > 0.5) & (x < 0.6)] = (60, 60, 65)
    return image.astype(np.uint8)


def classify(model: Path, manifest: dict[str, Any], image: NDArray[np.uint8]) -> tuple[list[str], list[float]]:
    """Run the model on one image as its manifest says; classes and their shares, likeliest first."""
    recipe = manifest["preprocessing"]
    pixels = (image * recipe["scale"] - np.array(recipe["mean"])) / np.array(recipe["std"])
    batch = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {manifest["model"]["input"]["name"]: batch})[0]
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    order = np.argsort(-shares)
    return [manifest["classes"][index] for index in order], [float(shares[index]) for index in order]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
