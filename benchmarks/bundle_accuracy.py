"""Test accuracy of a bundle's subnets: predicted, recalibrated with real images, and from the bundle alone.

python benchmarks/bundle_accuracy.py --data FOLDER --archs 10
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch

from supernet.bundle import open_bundle
from supernet.data.batches import Normalisation, evaluation_batches
from supernet.data.splits import load_splits
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.calibration import load_calibration, recalibrate_from_anchors
from supernet.evaluation.population import BATCH_SIZE, evaluate_arch
from supernet.network.checkpoint import load_supernet
from supernet.network.extract import extract_subnet
from supernet.predictors.accuracy import load_predictor

RECALIBRATION_IMAGES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="cifar_mbv3", help="folder or shipped name")
    parser.add_argument("--data", type=Path, required=True, help="data set with a test split")
    parser.add_argument("--archs", type=int, default=10, help="random archs beside the largest and the smallest")
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

    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["arch_id", "resolution", "predicted", "low", "high", "real", "anchors", "gap", "anchor_seconds"])
    gaps, inside = [], []
    archs = [space.largest(), space.smallest(), *space.from_rows(space.sample_rows(rng, arguments.archs))]
    for arch in archs:
        real = evaluate_arch(
            supernet, arch, recalibration=recalibration, images=splits.test, normalisation=normalisation
        )
        subnet = extract_subnet(supernet, arch)
        started = time.perf_counter()
        recalibrate_from_anchors(subnet, arch, calibration)
        seconds = time.perf_counter() - started
        batches = evaluation_batches(splits.test, normalisation, resolution=arch.resolution, batch_size=BATCH_SIZE)
        anchors = evaluate_accuracy(subnet, batches)
        rows = space.to_rows([arch])
        low, high = predictor.interval(rows, extra_images=len(splits.test))
        gaps.append(100 * (real.top1 - anchors.top1))
        inside.append(bool(low[0] <= anchors.top1 <= high[0]))
        values = [predictor.predict(rows)[0], low[0], high[0], real.top1, anchors.top1]
        shown = [f"{100 * value:.2f}" for value in values]
        out.writerow([arch.arch_id, arch.resolution, *shown, f"{gaps[-1]:.2f}", f"{seconds:.2f}"])
        sys.stdout.flush()
    print(
        f"# gap real - anchors: mean {np.mean(gaps):.2f}, median {np.median(gaps):.2f}, "
        f"largest {np.max(np.abs(gaps)):.2f} points; inside the interval: {sum(inside)} of {len(inside)}"
    )


if __name__ == "__main__":
    main()
