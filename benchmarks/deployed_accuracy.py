"""Test accuracy of deployments: the ONNX files on a data set's test images, prepared as their manifests say.

python benchmarks/deployed_accuracy.py --data FOLDER DEPLOYMENT [DEPLOYMENT …]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from supernet.data.batches import Normalisation, evaluation_batches
from supernet.data.splits import load_splits

if TYPE_CHECKING:
    from supernet.data.images import ImageSet

BATCH_SIZE = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="data set with a test split")
    parser.add_argument("deployments", type=Path, nargs="+", help="folders with model.onnx and manifest.json")
    parser.add_argument("--size", type=int, help="pixels images are decoded to; default the models' largest resolution")
    arguments = parser.parse_args()
    test = load_test_images(arguments.data, size=arguments.size or max(map(resolution_of, arguments.deployments)))
    for folder in arguments.deployments:
        print(f"{folder}: {top1(folder, test):.2%} of {len(test)} test images")


def load_test_images(data: Path, *, size: int) -> ImageSet:
    test = load_splits(data, size=size, validation_images=1, seed=0).test
    if test is None:
        sys.exit(f"'{data}' has no test split.")
    return test


def resolution_of(deployment: Path) -> int:
    return int(json.loads((deployment / "manifest.json").read_text())["preprocessing"]["resolution"])


def top1(deployment: Path, test: ImageSet) -> float:
    """Share of the test images, at least as large as the model's resolution, that it classifies rightly."""
    manifest = json.loads((deployment / "manifest.json").read_text())
    recipe, name = manifest["preprocessing"], manifest["model"]["input"]["name"]
    session = onnxruntime.InferenceSession(deployment / "model.onnx", providers=["CPUExecutionProvider"])
    normalisation = Normalisation(recipe["mean"], recipe["std"])
    batches = evaluation_batches(test, normalisation, resolution=recipe["resolution"], batch_size=BATCH_SIZE)
    hits = sum(
        int((session.run(None, {name: images.numpy()})[0].argmax(1) == labels.numpy()).sum())
        for images, labels in batches
    )
    return hits / len(test)


if __name__ == "__main__":
    main()
