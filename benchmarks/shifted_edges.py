"""Accuracy of a supernet's largest network with BN statistics of images that are shifted in several ways.

python benchmarks/shifted_edges.py BUNDLE DATA
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from supernet.data.batches import Normalisation
from supernet.data.images import ImageSet
from supernet.data.splits import load_splits
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.statistics import recalibrate_bn
from supernet.network.checkpoint import load_supernet
from supernet.network.extract import extract_subnet

PAD, BATCH = 4, 128


def main() -> None:
    bundle, data = sys.argv[1:]
    supernet = load_supernet(bundle)
    splits = load_splits(Path(data), size=32, validation_images=5000, seed=0)
    normalisation = Normalisation(*splits.train.normalisation())
    subnet = extract_subnet(supernet, supernet.space.largest())
    for mode in ("none", "constant", "reflect", "edge"):
        statistics = (images for images, _ in shifted(splits.train.take(np.arange(2000)), normalisation, mode))
        recalibrate_bn(subnet, statistics)
        top1 = evaluate_accuracy(subnet, shifted(splits.validation, normalisation, "none")).top1
        same = evaluate_accuracy(subnet, shifted(splits.validation, normalisation, mode)).top1
        print(f"statistics of images shifted with {mode:8} edges: {top1:.2%} of whole images, {same:.2%} of such ones")


def shifted(images: ImageSet, normalisation: Normalisation, mode: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in random order, each image moved by up to 4 pixels and half of them mirrored; `none` for whole ones."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(images))
    for start in range(0, len(order) - 1, BATCH):
        chosen = order[start : start + BATCH]
        pixels = images.pixels[chosen]
        if mode != "none":
            padded = np.pad(pixels, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode=mode)
            places = rng.integers(0, 2 * PAD + 1, (len(chosen), 2)).tolist()
            windows = [image[y : y + 32, x : x + 32] for image, (y, x) in zip(padded, places, strict=True)]
            flips = rng.random(len(chosen)) < 0.5
            pixels = np.stack([w[:, ::-1] if flip else w for w, flip in zip(windows, flips, strict=True)])
        yield normalisation.apply(pixels), torch.from_numpy(images.labels[chosen])


if __name__ == "__main__":
    main()
