"""Latency tables of this machine, and whole networks they never saw: estimated against measured, in one sitting.

python benchmarks/latency_agreement.py --out FOLDER --threads 1 2
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.agreement import check_agreement
from latency_tables.build import measure_networks, measure_table
from latency_tables.estimator import LatencyEstimator
from latency_tables.measure import FULL_PLAN
from latency_tables.table import save_table
from service.answers import find_best
from supernet.bundle import open_bundle
from supernet.predictors.accuracy import load_predictor
from supernet.spaces.arch_csv import arch_columns, write_arch

if TYPE_CHECKING:
    from latency_tables.table import LatencyTable
    from supernet.bundle import Bundle
    from supernet.spaces.arch import Arch

# Not a seed of any table: no network of the comparison belongs to its calibration, except by a chance of 1 in 10^13.
SEED = 9001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="cifar_mbv3", help="folder or shipped name")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables and the comparisons")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--random", type=int, default=100, help="random archs to compare")
    parser.add_argument("--searched", type=int, default=40, help="answers of searches to compare, over all budgets")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bundle = open_bundle(arguments.bundle)
    for threads in arguments.threads:
        started = time.perf_counter()
        table = measure_table(bundle.space, threads=threads, plan=FULL_PLAN, report=progress)
        progress(f"table of {threads} threads after {time.perf_counter() - started:.0f} s")
        save_table(table, arguments.out / f"table_{threads}t.json")
        archs = {
            "random": bundle.space.from_rows(bundle.space.sample_rows(np.random.default_rng(SEED), arguments.random)),
            "searched": searched_archs(table, bundle, arguments.searched),
        }
        compare(table, bundle, archs, arguments.out / f"agreement_{threads}t.csv")
        progress(f"{threads} threads after {time.perf_counter() - started:.0f} s")


def searched_archs(table: LatencyTable, bundle: Bundle, count: int) -> list[Arch]:
    """Best subnets at budgets spread evenly, by ratio, from the smallest to the largest latency."""
    estimator = LatencyEstimator(table, bundle.space)
    predictor = load_predictor(bundle.predictor_path, bundle.space)
    ends = [entry.estimated_ms for entry in estimator.estimate([bundle.space.smallest(), bundle.space.largest()])]
    budgets = np.geomspace(1.05 * ends[0], ends[1], count)
    archs = {}
    for seed, budget_ms in enumerate(map(float, budgets)):
        arch, _ = find_best(
            predictor,
            estimator,
            constraints={"latency_ms": budget_ms},
            confidence=None,
            precision="fp32",
            evaluations=10_000,
            seed=seed,
            resolutions=None,
        )
        archs[arch] = None
    return list(archs)


def compare(table: LatencyTable, bundle: Bundle, archs: dict[str, list[Arch]], out: Path) -> None:
    """Measure the archs at the table's pace; write each one to `out` and a line of figures per kind to stdout."""
    every = [arch for kind in archs.values() for arch in kind]
    kinds = [kind for kind, group in archs.items() for _ in group]
    threads = table.device.threads
    measured = measure_networks(
        every, bundle.space, threads=threads, plan=FULL_PLAN, seed=SEED, table=table, report=progress
    )
    estimator = LatencyEstimator(table, bundle.space)
    columns = [*arch_columns(bundle.space), "kind", "latency_ms", "estimated_ms", "low_ms", "high_ms"]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for arch, kind, stats, entry in zip(every, kinds, measured, estimator.estimate(every), strict=True):
            numbers = (stats.value_ms, entry.estimated_ms, entry.low_ms, entry.high_ms)
            values = dict(zip(columns[-4:], (f"{number:.5f}" for number in numbers), strict=True))
            writer.writerow(write_arch(bundle.space, arch) | {"kind": kind} | values)
    for kind, group in archs.items():
        latencies = [stats.value_ms for stats, found in zip(measured, kinds, strict=True) if found == kind]
        estimated = [entry.estimated_ms for entry in estimator.estimate(group)]
        ratios = np.quantile(np.array(latencies) / np.array(estimated), [0, 0.05, 0.5, 0.95, 1])
        report = check_agreement(estimator, group, latencies).to_dict()
        figures = {"threads": threads, "kind": kind, **report}
        print(json.dumps(figures | {"measured_over_estimated": [round(float(ratio), 4) for ratio in ratios]}))
        sys.stdout.flush()


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
