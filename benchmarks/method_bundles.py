"""From images to a verified model with every training method, by the commands a user would give.

python benchmarks/method_bundles.py --data FOLDER --out FOLDER [--methods rss,us_nets]

Each method trains for a few minutes and leaves a bundle; this machine is measured for it; a service takes bundle and
table, answers a budget in the middle of the range, and deploys the answer; `tailor verify` accepts the files, and the
model classifies the test images. What is finished is not done again. Prints the table as Markdown. The trained
accuracies are those of minutes: they show that the way is open, not which method is best.
"""

from __future__ import annotations

import argparse
import csv
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
from deployed_accuracy import load_test_images, top1
from service_calls import checked, download_deployment

from supernet.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supernet.data.images import ImageSet

CONFIGS = Path(__file__).parent / "methods"
# Measurements of a machine before it is given up as too busy.
PROFILES = 6
METHODS = ("rss", "progressive_shrinking", "us_nets", "pss_net", "netaug", "fine_tuning")


@dataclass(frozen=True)
class Row:
    """What came of one method; accuracies as fractions, latencies in ms."""

    method: str
    space: str
    archs: str
    train_s: float
    bundle_bytes: int
    budget_ms: float
    estimated_ms: float
    predicted: float
    low: float
    high: float
    test_accuracy: float
    verified: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="images with a test split; see fashion_mnist.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--population", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2, help="of training")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # What carries from a method to the next: fine-tuning starts from the supernet of RSS.
    methods = [method for method in METHODS if method in arguments.methods.split(",")]
    for method in methods:
        train(method, arguments.data, arguments.out, population=arguments.population, threads=arguments.threads)
        profile(arguments.out / method)
    test = load_test_images(arguments.data, size=28)
    with running_service(arguments.out / "service") as client:
        rows = [deploy(client, method, arguments.out / method, test) for method in methods]
    with (arguments.out / "methods.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    text = as_markdown(rows)
    (arguments.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def train(method: str, data: Path, out: Path, *, population: int, threads: int) -> None:
    """`tailor train`, timed; a run that was stopped goes on."""
    folder = out / method
    seconds = folder / "train_seconds"
    if seconds.exists():
        return
    command = ["train", str(CONFIGS / f"{method}.toml"), "--data", str(data), "--out", str(folder), "--resume"]
    command += ["--population", str(population), "--threads", str(threads), "--dataset", "Fashion-MNIST"]
    if method == "fine_tuning":
        command += ["--initial", str(out / "rss" / "bundle")]
    started = time.perf_counter()
    tailor(*command)
    seconds.write_text(f"{time.perf_counter() - started:.1f}")


def profile(folder: Path) -> None:
    """`tailor profile` with the bundle's own space; a busy minute of the machine is waited for."""
    if (folder / "table.json").exists():
        return
    command = ["profile", "--supernet", str(folder / "bundle"), "--device", "this-machine", "--quick"]
    command += ["-o", str(folder / "table.json")]
    for _ in range(PROFILES - 1):
        if not run_tailor(*command):
            return
    tailor(*command)


def deploy(client: httpx.Client, method: str, folder: Path, test: ImageSet) -> Row:
    """Register, search, deploy, download, verify, classify."""
    bundle = open_bundle(folder / "bundle")
    tailor("supernet", "add", str(bundle.path), "--id", method, "--server", str(client.base_url))
    content = (folder / "table.json").read_bytes()
    url = f"/v1/devices/this-machine/tables/{bundle.space.name}"
    checked(client.put(url, content=content, headers={"content-type": "application/json"}))
    limits = checked(client.get("/v1/devices/this-machine/limits", params={"supernet": method})).json()["latency_ms"]
    budget_ms = float(np.sqrt(limits["min"] * limits["max"])) * 1.001  # the only network of a space meets it too
    search = checked(
        client.post(
            "/v1/searches",
            json={
                "supernet": method,
                "device": "this-machine",
                "constraints": {"latency_ms": budget_ms},
                "deploy": True,
            },
        )
    ).json()
    model = folder / "model"
    model.mkdir(exist_ok=True)
    download_deployment(client, search["deployment"], model)
    tailor("verify", str(model))
    accuracy, size = search["accuracy"], bundle.space.size()
    return Row(
        method=method,
        space=bundle.space.name,
        archs=f"{size:,}" if size < 1e6 else f"{size:.1e}",
        train_s=float((folder / "train_seconds").read_text()),
        bundle_bytes=sum(entry["bytes"] for entry in bundle.manifest.parts.values()),
        budget_ms=budget_ms,
        estimated_ms=search["latency_ms"]["estimated"],
        predicted=accuracy["predicted"],
        low=accuracy["low"],
        high=accuracy["high"],
        test_accuracy=top1(model, test),
        verified="yes",
    )


def as_markdown(rows: list[Row]) -> str:
    lines = [
        "| method | archs | trained and bundled in | bundle | budget | estimated | accuracy, predicted "
        "| accuracy, test | verified |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        reach = max(row.predicted - row.low, row.high - row.predicted)
        lines.append(
            f"| `{row.method}` | {row.archs} | {row.train_s / 60:.1f} min | {row.bundle_bytes / 1e6:.2f} MB "
            f"| {row.budget_ms:.3f} ms | {row.estimated_ms:.3f} ms | {100 * row.predicted:.1f} ± {100 * reach:.1f} % "
            f"| {100 * row.test_accuracy:.1f} % | {row.verified} |"
        )
    return "\n".join(lines) + "\n"


def tailor(*arguments: str) -> None:
    """One command; ends the script where it fails."""
    if run_tailor(*arguments):
        sys.exit(f"Failed: tailor {' '.join(arguments)}")


def run_tailor(*arguments: str) -> int:
    """The exit code of one command, whose progress goes to stderr."""
    return subprocess.run([sys.executable, "-m", "service.cli", *arguments], check=False).returncode


@contextmanager
def running_service(folder: Path) -> Iterator[httpx.Client]:
    """`tailor serve` on a free port with a data folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--data-dir", str(folder)]
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                for _ in range(300):
                    try:
                        if client.get("/readyz").status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    time.sleep(0.1)
                else:
                    sys.exit(f"The service did not become ready; see '{folder / 'service.log'}'.")
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


if __name__ == "__main__":
    main()
