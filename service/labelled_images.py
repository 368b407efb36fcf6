"""Labelled images from a folder, and subnets of a bundle evaluated on them. Imports torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from supernet.bundle import open_bundle
from supernet.data.batches import Normalisation
from supernet.data.images import count_images, load_class_folders, load_parquet
from supernet.errors import InvalidDatasetError
from supernet.evaluation.calibration import load_calibration, recalibrate_from
from supernet.evaluation.population import evaluate_arch
from supernet.network.checkpoint import load_supernet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from supernet.data.images import ImageSet
    from supernet.spaces.arch import Arch

# Of all images together, decoded, where nobody sets another limit.
MAX_IMAGE_BYTES = 2 * 2**30
_MOST_SHOWN = 5


def build_evaluator(supernet: str, folder: Path) -> Callable[[Arch], float]:
    """A function that evaluates archs of a bundle on labelled images, recalibrated as their deployments are.

    Args:
        supernet: A bundle's folder, or the name of a shipped one.
        folder: See `load_labelled`.

    Returns:
        Arch to top-1 accuracy, a fraction.

    Raises:
        MissingPartError: The bundle has no weights or no calibration.
        InvalidDatasetError: As `load_labelled`.
    """
    bundle = open_bundle(supernet)
    network = load_supernet(bundle.path)
    calibration = load_calibration(bundle.calibration_path, bundle.space)
    labelled = load_labelled(
        folder, size=max(bundle.space.resolutions), classes=bundle.manifest.classes, max_bytes=MAX_IMAGE_BYTES
    )

    def recalibrate(subnet: nn.Module, arch: Arch) -> None:
        recalibrate_from(calibration, subnet, arch=arch)

    def evaluate(arch: Arch) -> float:
        return evaluate_arch(
            network,
            arch,
            recalibrate=recalibrate,
            images=labelled,
            normalisation=Normalisation(bundle.manifest.mean, bundle.manifest.std),
        ).top1

    return evaluate


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
