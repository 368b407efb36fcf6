"""Deployments over a device's whole range: estimated and measured latency, predicted and test accuracy of each.

make serve &
python benchmarks/deployments.py --data FOLDER --out FOLDER

Asks a running service for the best subnet at every budget, downloads each model, checks it, measures it on this machine
and classifies the test images with it. Prints the table as Markdown.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx
import numpy as np
from deployed_accuracy import load_test_images, top1
from service_calls import checked, download_deployment, only_device

from latency_tables.build import measure_model
from latency_tables.measure import FULL_PLAN
from latency_tables.table import LatencyTable, parse_table
from supernet.export.verify import verify_deployment
from supernet.spaces.presets import load_space

if TYPE_CHECKING:
    from supernet.data.images import ImageSet


@dataclass(frozen=True)
class Deployed:
    """One deployment; latencies in ms, accuracies as fractions."""

    device: str
    budget_ms: float
    arch_id: str
    resolution: int
    macs: int
    estimated_ms: float
    latency_low_ms: float
    latency_high_ms: float
    measured_ms: float
    predicted: float
    accuracy_low: float
    accuracy_high: float
    test_accuracy: float
    search_s: float
    deploy_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--device", help="registered device; default the only one with one thread")
    parser.add_argument("--space", default="cifar_mbv3")
    parser.add_argument("--data", type=Path, required=True, help="data set with a test split")
    parser.add_argument("--count", type=int, default=20, help="budgets, evenly spaced by ratio over the device's range")
    parser.add_argument("--out", type=Path, required=True, help="folder for deployments.csv and table.md")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    test = load_test_images(arguments.data, size=max(load_space(arguments.space).resolutions))
    rows = []
    with httpx.Client(base_url=arguments.server, timeout=120) as client:
        device = arguments.device or only_device(client)
        table = parse_table(
            checked(client.get(f"/v1/devices/{device}/tables/{arguments.space}")).text, space=arguments.space
        )
        limits = checked(client.get(f"/v1/devices/{device}/limits")).json()["latency_ms"]
        # From just above the fastest subnet, where there is something to choose, to the slowest.
        for budget_ms in np.geomspace(1.05 * limits["min"], limits["max"], arguments.count):
            rows.append(deploy(client, table, round(float(budget_ms), 4), test))
            print(rows[-1], file=sys.stderr, flush=True)
    with (arguments.out / "deployments.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Deployed)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    text = as_markdown(rows)
    (arguments.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def deploy(client: httpx.Client, table: LatencyTable, budget_ms: float, test: ImageSet) -> Deployed:
    """Search, deploy, download, verify, measure and evaluate one subnet."""
    device = table.device.device_id
    started = time.perf_counter()
    response = client.post("/v1/searches", json={"device": device, "constraints": {"latency_ms": budget_ms}})
    search = checked(response).json()
    search_s = time.perf_counter() - started
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        deployment = checked(client.post("/v1/deployments", json={"search_id": search["id"]})).json()
        download_deployment(client, deployment, folder)
        deploy_s = time.perf_counter() - started - search_s
        verify_deployment(folder)
        measured = measure_model(
            folder / "model.onnx",
            threads=table.device.threads,
            plan=FULL_PLAN,
            table=table,
            space=load_space(table.space),
        )
        test_accuracy = top1(folder, test)
    latency, accuracy = search["latency_ms"], search["accuracy"]
    return Deployed(
        device=device,
        budget_ms=budget_ms,
        arch_id=search["arch_id"],
        resolution=search["arch"]["resolution"],
        macs=search["macs"],
        estimated_ms=latency["estimated"],
        latency_low_ms=latency["low"],
        latency_high_ms=latency["high"],
        measured_ms=measured.value_ms,
        predicted=accuracy["predicted"],
        accuracy_low=accuracy["low"],
        accuracy_high=accuracy["high"],
        test_accuracy=test_accuracy,
        search_s=search_s,
        deploy_s=deploy_s,
    )


def as_markdown(rows: list[Deployed]) -> str:
    lines = [
        "| device | budget | estimated | measured | accuracy, predicted | accuracy, test | answer in | deployed in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        latency_pm = max(row.estimated_ms - row.latency_low_ms, row.latency_high_ms - row.estimated_ms)
        accuracy_pm = max(row.predicted - row.accuracy_low, row.accuracy_high - row.predicted)
        lines.append(
            f"| {row.device} | {row.budget_ms:.3f} ms | {row.estimated_ms:.3f} ± {latency_pm:.3f} ms "
            f"| {row.measured_ms:.3f} ms | {100 * row.predicted:.1f} ± {100 * accuracy_pm:.1f} % "
            f"| {100 * row.test_accuracy:.1f} % | {row.search_s:.2f} s | {row.deploy_s:.1f} s |"
        )
    ratios = np.array([row.measured_ms / row.estimated_ms for row in rows])
    inside_latency = sum(row.latency_low_ms <= row.measured_ms <= row.latency_high_ms for row in rows)
    inside_accuracy = sum(row.accuracy_low <= row.test_accuracy <= row.accuracy_high for row in rows)
    lines.append(
        f"\nOf {len(rows)} deployments, test accuracy lies in the predicted interval for {inside_accuracy}, measured "
        f"latency in the estimated interval for {inside_latency}, within 10 % of the estimate for "
        f"{int((abs(1 / ratios - 1) <= 0.1).sum())}; at or below the budget for "
        f"{sum(row.measured_ms <= row.budget_ms for row in rows)}. Mean error of the estimate "
        f"{100 * float(abs(1 / ratios - 1).mean()):.1f} %."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
