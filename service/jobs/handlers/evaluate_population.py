"""The child's side of an `evaluate_population` job: archs and images to a CSV."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.jobs.handlers.ordered_bundle import open_ordered
from service.jobs.states import POPULATION_FILE, PopulationOrder
from supernet.bundle import hash_file
from supernet.bundling import population_archs
from supernet.data.batches import Normalisation
from supernet.data.images import count_images, load_class_folders, load_parquet
from supernet.errors import InvalidDatasetError
from supernet.evaluation.calibration import load_calibration, recalibrate_from
from supernet.evaluation.population import evaluate_population
from supernet.network.checkpoint import load_supernet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from supernet.data.images import ImageSet
    from supernet.spaces.arch import Arch

_MOST_SHOWN = 5
_LOADED = 0.02


def run(payload: dict[str, Any], out_dir: Path, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Evaluate a population, each subnet recalibrated from what the bundle holds, and write it into `out_dir`.

    Returns:
        `archs`, `images`, `mean_top1` and `best_top1` as fractions, and the `sha256` of the CSV.

    Raises:
        ConflictError: `bundle_changed`.
        InvalidDatasetError: The images cannot be read, are too many, or their classes are not the bundle's.
        SupernetError: Whatever else loading the bundle raises.
    """
    order = PopulationOrder.model_validate(payload)
    report(0.0, "load")
    bundle = open_ordered(order)
    supernet, space = load_supernet(bundle.path), bundle.space
    calibration = load_calibration(bundle.calibration_path, space)
    images = load_labelled(
        Path(order.images),
        size=max(space.resolutions),
        classes=bundle.manifest.classes,
        max_bytes=order.max_image_bytes,
    )

    def recalibrate(subnet: nn.Module, arch: Arch) -> None:
        recalibrate_from(calibration, subnet, arch=arch)

    population = evaluate_population(
        supernet,
        population_archs(space, np.random.default_rng(order.seed), order.archs),
        Path(order.file),
        recalibrate=recalibrate,
        images=images,
        normalisation=Normalisation(bundle.manifest.mean, bundle.manifest.std),
        report=lambda done, total: report(_LOADED + (1 - _LOADED) * done / total, "evaluate"),
    )
    out_dir.mkdir()
    shutil.copyfile(order.file, out_dir / POPULATION_FILE)
    top1 = [entry.result.top1 for entry in population]
    return {
        "archs": len(population),
        "images": len(images),
        "mean_top1": float(np.mean(top1)),
        "best_top1": max(top1),
        "sha256": hash_file(out_dir / POPULATION_FILE),
    }


def load_labelled(folder: Path, *, size: int, classes: tuple[str, ...], max_bytes: int) -> ImageSet:
    """Read the images of a folder of parquet files or of one folder per class, with the labels of a bundle.

    Args:
        folder: Of images that the bundle has not learnt from.
        size: Height and width of the decoded images, pixels.
        classes: Of the bundle, in label order. The images have to have all of them.
        max_bytes: Most that all images may take in memory, decoded.

    Raises:
        InvalidDatasetError: The images are training images, broken, too many, or of other classes.
    """
    files = sorted(folder.glob("*.parquet"))
    if learnt := [file.name for file in files if file.name.startswith("train")]:
        raise InvalidDatasetError(
            f"'{folder.name}' holds training images ({learnt[0]}), whose accuracy says nothing about new ones. Name a "
            "folder with held-out images only."
        )
    n_images = count_images(files or folder)
    if (n_bytes := n_images * size * size * 3) > max_bytes:
        raise InvalidDatasetError(
            f"The {n_images} images of '{folder.name}' take, at {size}×{size} pixels, {n_bytes} bytes of memory; "
            f"allowed are {max_bytes}. Name a folder with fewer, or raise TAILOR_MAX_IMAGE_BYTES."
        )
    # The folders are listed, never named after the classes: a bundle from outside could name any path.
    images = load_parquet(files, size=size) if files else load_class_folders(folder, size=size)
    same = images.classes == classes if files else sorted(images.classes) == sorted(classes)
    if not same:
        raise InvalidDatasetError(
            f"The {len(images.classes)} classes of '{folder.name}', {list(images.classes[:_MOST_SHOWN])} …, are not "
            f"the supernet's {len(classes)}, {list(classes[:_MOST_SHOWN])} …. Label the images as it was trained."
        )
    labels = np.array([classes.index(name) for name in images.classes])
    return replace(images, labels=labels[images.labels], classes=classes)
