"""Latency tables of this machine, and whole networks they never saw: estimated against measured, in one sitting.

python benchmarks/latency_agreement.py --out FOLDER --threads 1 2

A table and the networks that judge it are measured in turns. The networks are random archs and answers of searches
with an earlier table, by default the shipped one.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.agreement import check_agreement
from latency_tables.build import measure_table_and_networks
from latency_tables.estimator import LatencyEstimator
from latency_tables.measure import FULL_PLAN
from latency_tables.table import load_table, save_table
from service.answers import find_best
from service.questions import Question, Target
from service.usecases.shipped import shipped_tables
from supernet.bundle import open_bundle
from supernet.predictors.loading import load_predictor
from supernet.spaces.arch_csv import arch_columns, write_arch

if TYPE_CHECKING:
    from latency_tables.table import LatencyStats, LatencyTable
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
    parser.add_argument("--limit", type=float, default=FULL_PLAN.limit_s, help="seconds, where the machine is busy")
    parser.add_argument("--table", type=Path, help="earlier table to search with; default the shipped one")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bundle = open_bundle(arguments.bundle)
    earlier = load_table(arguments.table) if arguments.table else next(shipped_tables())
    space, rng = bundle.space, np.random.default_rng(SEED)
    archs = dict.fromkeys(space.from_rows(space.sample_rows(rng, arguments.random)), "random")
    archs |= dict.fromkeys(searched_archs(earlier, bundle, arguments.searched), "searched")
    plan = replace(FULL_PLAN, limit_s=arguments.limit)
    for threads in arguments.threads:
        started = time.perf_counter()
        table, measured = measure_table_and_networks(space, list(archs), threads=threads, plan=plan, report=progress)
        progress(f"{threads} threads after {time.perf_counter() - started:.0f} s")
        save_table(table, arguments.out / f"table_{threads}t.json")
        compare(LatencyEstimator(table, space), archs, measured, arguments.out / f"agreement_{threads}t.csv")


def searched_archs(table: LatencyTable, bundle: Bundle, count: int) -> list[Arch]:
    """Best subnets at budgets spread evenly, by ratio, between the smallest and the largest latency.

    The ends of the space are left to the calibration.
    """
    estimator = LatencyEstimator(table, bundle.space)
    predictor = load_predictor(bundle.predictor_path, bundle.space)
    ends = [entry.estimated_ms for entry in estimator.estimate([bundle.space.smallest(), bundle.space.largest()])]
    budgets = np.geomspace(1.05 * ends[0], ends[1], count)
    archs: dict[Arch, None] = {}
    ends_of_space = {replace(arch, resolution=0) for arch in (bundle.space.smallest(), bundle.space.largest())}
    for seed, budget_ms in enumerate(map(float, budgets)):
        target = Target(estimator.table.device.device_id, estimator, {"latency_ms": budget_ms})
        arch, _ = find_best(predictor, [target], Question(seed=seed))
        if replace(arch, resolution=0) not in ends_of_space:
            archs[arch] = None
    return list(archs)


def compare(estimator: LatencyEstimator, archs: dict[Arch, str], measured: list[LatencyStats], out: Path) -> None:
    """Write each arch to `out`, and a line of figures per kind to stdout."""
    space = estimator.space
    columns = [*arch_columns(space), "kind", "latency_ms", "estimated_ms", "low_ms", "high_ms"]
    estimates = estimator.estimate(list(archs))
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for (arch, kind), stats, entry in zip(archs.items(), measured, estimates, strict=True):
            numbers = (stats.value_ms, entry.estimated_ms, entry.low_ms, entry.high_ms)
            values = dict(zip(columns[-4:], (f"{number:.5f}" for number in numbers), strict=True))
            writer.writerow(write_arch(space, arch) | {"kind": kind} | values)
    threads = estimator.table.device.threads
    for kind in dict.fromkeys(archs.values()):
        found = [index for index, one in enumerate(archs.values()) if one == kind]
        latencies = np.array([measured[index].value_ms for index in found])
        ratios = np.quantile(latencies / [estimates[index].estimated_ms for index in found], [0, 0.05, 0.5, 0.95, 1])
        report = check_agreement(estimator, [list(archs)[index] for index in found], list(latencies)).to_dict()
        figures = {"threads": threads, "kind": kind, **report}
        print(json.dumps(figures | {"measured_over_estimated": [round(float(ratio), 4) for ratio in ratios]}))
        sys.stdout.flush()


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
