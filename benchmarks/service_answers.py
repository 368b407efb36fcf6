"""How fast a service answers: searches that compute, look-ups in a known front, impossible budgets, a fleet.

make serve &
python benchmarks/service_answers.py --out FOLDER

The fleet is made of the table of a registered device: each of its devices runs every kind of block at another pace.
Prints medians and spreads as Markdown. Devices it registers are deleted again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from service_calls import checked, only_device

from latency_tables.table import LatencyTable, parse_table

SPACE = "cifar_mbv3"
# Budgets of a device, as shares of its range.
SHARES = (0.15, 0.35, 0.6)
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--device", help="registered device; default the only one with one thread")
    parser.add_argument("--count", type=int, default=200, help="questions of a kind")
    parser.add_argument("--devices", type=int, default=50, help="devices of the fleet, with three budgets each")
    parser.add_argument("--rounds", type=int, default=5, help="times the fleet is asked for")
    parser.add_argument("--out", type=Path, required=True, help="folder for answers.json and answers.md")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=arguments.server, timeout=120) as client:
        device = arguments.device or only_device(client)
        limits = checked(client.get(f"/v1/devices/{device}/limits")).json()["latency_ms"]
        rng = np.random.default_rng(0)
        budgets = rng.uniform(1.05 * limits["min"], limits["max"], arguments.count)
        searches = [{"device": device, "constraints": {"latency_ms": budget}} for budget in budgets]
        impossible = [
            {"device": device, "constraints": {"latency_ms": share * limits["min"]}}
            for share in rng.uniform(0.01, 0.99, arguments.count)
        ]
        measured = {
            "search that computes": ask_all(
                client, [search | {"evaluations": 10_000} for search in searches[: arguments.count // 10]], status=201
            ),
            "impossible budget": ask_all(client, impossible, status=409),
            "front, traced by a job": [wait_for_front(client, device)],
            "search in a known front": ask_all(client, searches, status=201, source="front"),
            "the same at confidence 0.95": ask_all(
                client,
                [
                    search | {"confidence": 0.95}
                    for search in searches
                    if search["constraints"]["latency_ms"] > 1.5 * limits["min"]
                ],
                status=201,
                source="front",
            ),
            f"fleet of {arguments.devices} devices, {len(SHARES)} budgets each": ask_fleet(
                client, device, n_devices=arguments.devices, rounds=arguments.rounds
            ),
        }
    (arguments.out / "answers.json").write_text(json.dumps(measured, indent=1) + "\n")
    table = as_markdown(measured)
    (arguments.out / "answers.md").write_text(table)
    print(table)


def ask_all(
    client: httpx.Client, questions: list[dict[str, Any]], *, status: int, source: str | None = None
) -> list[float]:
    """Seconds of each question, from the request to its whole answer."""
    for question in questions[:WARM_UP]:
        client.post("/v1/searches", json=question)
    seconds = []
    for question in questions:
        started = time.perf_counter()
        response = client.post("/v1/searches", json=question)
        seconds.append(time.perf_counter() - started)
        if response.status_code != status or (source and response.json()["source"] != source):
            raise SystemExit(f"{question} was answered {response.status_code}: {response.text}")
    return seconds


def wait_for_front(client: httpx.Client, device: str) -> float:
    """Order the device's front; seconds until it is known."""
    started = time.perf_counter()
    while checked(client.get(f"/v1/devices/{device}/front")).status_code == 202:
        time.sleep(0.05)
    return time.perf_counter() - started


def ask_fleet(client: httpx.Client, device: str, *, n_devices: int, rounds: int) -> list[float]:
    """Seconds of a batch for devices none of which has a known front."""
    table = parse_table(checked(client.get(f"/v1/devices/{device}/tables/{SPACE}")).text, space=SPACE)
    seconds = []
    for number in range(rounds):
        rng = np.random.default_rng(number)
        names = [f"fleet-{number}-{index}" for index in range(n_devices)]
        try:
            searches = [search for name in names for search in register(client, vary(table, name, rng))]
            started = time.perf_counter()
            answer = checked(client.post("/v1/searches:batch", json={"searches": searches})).json()
            seconds.append(time.perf_counter() - started)
        finally:
            for name in names:
                client.delete(f"/v1/devices/{name}")
        if any(item["problem"] for item in answer["items"]):
            raise SystemExit("A search of the fleet had no answer.")
    return seconds


def register(client: httpx.Client, table: LatencyTable) -> list[dict[str, Any]]:
    """Register a device's table; searches over its range."""
    name = table.device.device_id
    checked(client.put(f"/v1/devices/{name}/tables/{SPACE}", json=table.to_dict()))
    limits = checked(client.get(f"/v1/devices/{name}/limits")).json()["latency_ms"]
    budgets = [limits["min"] + share * (limits["max"] - limits["min"]) for share in SHARES]
    return [{"device": name, "constraints": {"latency_ms": budget}} for budget in budgets]


def vary(table: LatencyTable, device_id: str, rng: np.random.Generator) -> LatencyTable:
    """A device on which every kind of block, by kernel and squeeze-excite, runs at another pace."""
    paces: dict[tuple[object, ...], float] = {}
    rows = {}
    for spec, stats in table.rows.items():
        kind = (spec.kind, spec.kernel_size, spec.se_chs > 0)
        pace = paces.setdefault(kind, float(rng.uniform(0.5, 2)))
        rows[spec] = replace(stats, value_ms=pace * stats.value_ms, std_ms=pace * stats.std_ms)
    return replace(table, device=replace(table.device, device_id=device_id), rows=rows)


def as_markdown(measured: dict[str, list[float]]) -> str:
    lines = ["| question | n | median | 5 % | 95 % | largest |", "|---|---|---|---|---|---|"]
    for name, seconds in measured.items():
        low, middle, high = np.quantile(seconds, [0.05, 0.5, 0.95])
        values = (middle, low, high, max(seconds))
        lines.append(f"| {name} | {len(seconds)} | " + " | ".join(show(value) for value in values) + " |")
    return "\n".join(lines) + "\n"


def show(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


if __name__ == "__main__":
    main()
