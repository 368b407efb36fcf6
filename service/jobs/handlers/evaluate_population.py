"""The child's side of an `evaluate_population` job: archs and images to a CSV."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.jobs.handlers.ordered_bundle import open_ordered
from service.jobs.states import POPULATION_FILE, PopulationOrder
from service.labelled_images import load_labelled
from supernet.bundle import hash_file
from supernet.bundling import population_archs
from supernet.data.batches import Normalisation
from supernet.evaluation.calibration import load_calibration, recalibrate_from
from supernet.evaluation.population import evaluate_population
from supernet.network.checkpoint import load_supernet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from supernet.spaces.arch import Arch

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
