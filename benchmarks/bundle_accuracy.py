"""Test accuracy of a bundle's subnets: predicted, recalibrated with real images, and from the bundle alone.

python benchmarks/bundle_accuracy.py --data FOLDER --out FILE.csv

The largest, the smallest and random subnets over all resolutions. Goes on where FILE.csv ends.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from supernet.bundle import open_bundle
from supernet.data.batches import Normalisation, evaluation_batches
from supernet.data.splits import load_splits
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.calibration import load_calibration, recalibrate_from_anchors
from supernet.evaluation.population import BATCH_SIZE, evaluate_arch, recalibrate_with
from supernet.network.checkpoint import load_supernet
from supernet.network.extract import extract_subnet
from supernet.predictors.loading import load_predictor

if TYPE_CHECKING:
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

RECALIBRATION_IMAGES = 2000
COLUMNS = ["arch_id", "resolution", "predicted", "low", "high", "real", "anchors", "gap", "anchor_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="cifar_mbv3", help="folder or shipped name")
    parser.add_argument("--data", type=Path, required=True, help="data set with a test split")
    parser.add_argument("--out", type=Path, required=True, help="CSV with a line per subnet, percent")
    parser.add_argument("--archs", type=int, default=100, help="random archs beside the largest and the smallest")
    parser.add_argument("--anchored", type=int, default=40, help="of them, also recalibrated from the bundle alone")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    bundle = open_bundle(arguments.bundle)
    supernet, space = load_supernet(arguments.bundle), bundle.space
    calibration = load_calibration(bundle.calibration_path, space)
    predictor = load_predictor(bundle.predictor_path, space)
    normalisation = Normalisation(bundle.manifest.mean, bundle.manifest.std)
    # The split of the training run, so that recalibration sees training images only.
    validation, seed = bundle.manifest.training["validation_images"], bundle.manifest.training["seed"]
    splits = load_splits(arguments.data, size=max(space.resolutions), validation_images=validation, seed=seed)
    if splits.test is None:
        sys.exit(f"'{arguments.data}' has no test split.")
    rng = np.random.default_rng(arguments.seed)
    recalibration = splits.train.take(rng.permutation(len(splits.train))[:RECALIBRATION_IMAGES])

    with_images = recalibrate_with(recalibration, normalisation)
    archs = [space.largest(), space.smallest(), *random_archs(space, rng, arguments.archs)]
    anchors = {anchor.arch for anchor in calibration.anchors}
    anchored = [arch for arch in archs[2:] if arch not in anchors][: arguments.anchored]
    done = {row["arch_id"]: row for row in read(arguments.out)}
    for arch in archs:
        if arch.arch_id in done:
            continue
        real = evaluate_arch(supernet, arch, recalibrate=with_images, images=splits.test, normalisation=normalisation)
        rows = space.to_rows([arch])
        low, high = predictor.interval(rows, extra_images=len(splits.test))
        values = [predictor.predict(rows)[0], low[0], high[0], real.top1]
        row = dict(
            zip(COLUMNS, [arch.arch_id, str(arch.resolution), *(f"{100 * v:.2f}" for v in values)], strict=False)
        )
        if arch in anchored:
            subnet = extract_subnet(supernet, arch)
            started = time.perf_counter()
            recalibrate_from_anchors(subnet, arch, calibration)
            row["anchor_seconds"] = f"{time.perf_counter() - started:.2f}"
            batches = evaluation_batches(splits.test, normalisation, resolution=arch.resolution, batch_size=BATCH_SIZE)
            top1 = evaluate_accuracy(subnet, batches).top1
            row |= {"anchors": f"{100 * top1:.2f}", "gap": f"{100 * (real.top1 - top1):.2f}"}
        append(arguments.out, row)
        done[arch.arch_id] = row
    summarise([done[arch.arch_id] for arch in archs])


def random_archs(space: SearchSpace, rng: np.random.Generator, count: int) -> list[Arch]:
    """Distinct uniform draws, as many at each resolution."""
    rows = space.sample_rows(rng, count)
    rows[:, 0] = np.arange(count) % len(space.resolutions)
    return list(dict.fromkeys(space.from_rows(rows)))


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, str]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def summarise(rows: list[dict[str, str]]) -> None:
    """Print the figures of all subnets."""
    largest, smallest, *drawn = rows
    real = np.array([float(row["real"]) for row in drawn])
    print(f"top-1 with statistics from {RECALIBRATION_IMAGES} real images, percent of the test images:")
    print(f"  {len(drawn)} random subnets: mean {real.mean():.2f}, from {real.min():.2f} to {real.max():.2f}")
    for resolution in sorted({row["resolution"] for row in drawn}):
        part = [float(row["real"]) for row in drawn if row["resolution"] == resolution]
        print(f"    at {resolution} pixels: mean {np.mean(part):.2f} of {len(part)}")
    print(f"  largest {largest['real']}, smallest {smallest['real']}")
    errors = [float(row["predicted"]) - float(row["real"]) for row in rows]
    inside = [float(row["low"]) <= float(row["real"]) <= float(row["high"]) for row in rows]
    print(
        f"predicted against test accuracy: RMSE {np.sqrt(np.mean(np.square(errors))):.2f}, bias {np.mean(errors):.2f} "
        f"points; {sum(inside)} of {len(rows)} inside the interval"
    )
    anchored = [row for row in rows if row.get("gap")]
    if anchored:
        gaps = np.array([float(row["gap"]) for row in anchored])
        seconds = [float(row["anchor_seconds"]) for row in anchored]
        held = [float(row["low"]) <= float(row["anchors"]) <= float(row["high"]) for row in anchored]
        print(
            f"from the bundle alone, {len(gaps)} subnets: gap mean {gaps.mean():.2f}, mean size "
            f"{abs(gaps).mean():.2f}, largest {abs(gaps).max():.2f} points; {np.median(seconds):.2f} s per subnet "
            f"(median); {sum(held)} of {len(held)} inside the interval"
        )


if __name__ == "__main__":
    main()
