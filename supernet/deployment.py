"""Bundle and arch to a deployment folder: extract, recalibrate, export, compare, describe."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from supernet.bundle import Bundle, open_bundle
from supernet.data.batches import Normalisation, image_batches
from supernet.data.images import load_images
from supernet.data.noise import noise_batches
from supernet.errors import InvalidConfigError
from supernet.evaluation.calibration import load_calibration, recalibrate_from
from supernet.evaluation.statistics import apply_statistics, recalibrate_bn
from supernet.export.folder import write_deployment
from supernet.export.manifest import Accuracy, BnRecalibration, Latency, Preprocessing, SupernetReference
from supernet.export.onnx import DEFAULT_OPSET
from supernet.network.checkpoint import load_supernet
from supernet.network.extract import extract_subnet
from supernet.pools.choice import statistics_of
from supernet.pools.storage import load_pools
from supernet.predictors.loading import load_predictor
from supernet.predictors.predictor import describe_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from supernet.network.elastic_net import Supernet
    from supernet.network.subnet import Subnet
    from supernet.pools.storage import PoolChoice
    from supernet.spaces.arch import Arch

MOST_IMAGES = 2000
# Of 1,024 noise images.
PARITY_SEEDS = (2**32, 2**32 + 1)


def build_deployment(
    bundle_path: Path | str,
    arch: Arch,
    out_dir: Path,
    *,
    opset: int = DEFAULT_OPSET,
    precision: str = "fp32",
    accuracy: dict[str, Any] | None = None,
    latency: dict[str, Any] | None = None,
    calibration: Path | None = None,
    report: Callable[[float, str], None] = lambda _share, _stage: None,
) -> dict[str, Any]:
    """Cut one subnet out of a bundle and write it as verified ONNX.

    Args:
        bundle_path: A bundle's folder, or the name of a shipped one. Kept in memory for the next call.
        arch: Any arch of its space.
        out_dir: Gets `model.onnx` and `manifest.json`, both or neither.
        opset: Of the ONNX file.
        precision: `fp32`.
        accuracy: `predicted`, `low`, `high`, `level` as fractions; by default the bundle's predictor is asked.
        latency: `estimated`, `low`, `high`, `level` in ms with `device` and `table_version`, where a device is known.
        calibration: Folder of the user's own images for BN recalibration; by default what the bundle holds serves.
        report: Called with the share done and the stage that starts.

    Returns:
        The manifest.

    Raises:
        InvalidArchError: The arch lies outside the bundle's space.
        MissingPartError: The bundle has no weights, or no calibration and no folder was given.
        InvalidConfigError: The precision or the opset is not on offer.
        InvalidDatasetError: The folder of images has none, or a broken one.
        ExportParityError: ONNX Runtime and torch disagree.
    """
    if precision != "fp32":
        raise InvalidConfigError(f"'precision' must be 'fp32', got '{precision}'.")
    report(0.0, "load")
    bundle = open_bundle(bundle_path)
    space, normalisation = bundle.space, Normalisation(bundle.manifest.mean, bundle.manifest.std)
    arch = space.canonicalize(arch)
    subnet = extract_subnet(_warm_supernet(str(bundle_path), bundle.sha256), arch)

    report(0.2, "recalibrate")
    with _one_thread():
        choice = None if calibration else _choice_of(bundle, arch)
        recalibration = _recalibrate(subnet, arch, bundle, choice=choice, folder=calibration)

    found = Accuracy(**accuracy) if accuracy else _predict_accuracy(bundle, arch)
    if found is not None and choice is not None:
        found = replace(found, evaluated=choice.top1)

    report(0.4, "export")
    manifest = write_deployment(
        out_dir,
        subnet,
        arch=arch,
        space=space,
        preprocessing=Preprocessing(arch.resolution, normalisation.mean, normalisation.std),
        classes=bundle.manifest.classes,
        bn_recalibration=recalibration,
        supernet=SupernetReference(bundle.manifest.name, bundle.manifest.parts["weights"]["sha256"]),
        accuracy=found,
        latency_ms=Latency(**latency) if latency else None,
        parity_images=torch.cat(
            [batch for seed in PARITY_SEEDS for batch in noise_batches(normalisation, arch.resolution, seed=seed)]
        ),
        opset=opset,
    )
    report(1.0, "done")
    return manifest.to_dict()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: sums over threads depend on their number, and so would the exported bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=2)
def _warm_supernet(bundle_path: str, _sha256: str) -> Supernet:
    """The supernet of a bundle; the hash makes a changed bundle another entry."""
    return load_supernet(bundle_path)


def _choice_of(bundle: Bundle, arch: Arch) -> PoolChoice | None:
    """The arch's pool, where it is the choice of one."""
    if "pools" not in bundle.manifest.parts:
        return None
    pools = load_pools(bundle.pools_path, bundle.space)
    return next((choice for choice in pools if choice.arch == arch), None)


def _recalibrate(
    subnet: Subnet, arch: Arch, bundle: Bundle, *, choice: PoolChoice | None, folder: Path | None
) -> BnRecalibration:
    if choice is not None:
        apply_statistics(subnet, statistics_of(bundle.space, choice))
        return BnRecalibration("pool", 0)
    if folder is None and "calibration" not in bundle.manifest.parts and bundle.manifest.knows_statistics:
        return BnRecalibration("weights", 0)
    if folder is None:
        calibration = load_calibration(bundle.calibration_path, bundle.space)
        return BnRecalibration(recalibrate_from(calibration, subnet, arch=arch), len(calibration.images))
    # In random order: folders are mostly sorted by class, and batches of one class have too small a variance.
    images = load_images(
        folder, size=max(bundle.space.resolutions), most=MOST_IMAGES, rng=np.random.default_rng(bundle.space.classes)
    )
    normalisation = Normalisation(bundle.manifest.mean, bundle.manifest.std)
    recalibrate_bn(subnet, image_batches(images, normalisation, resolution=arch.resolution))
    return BnRecalibration("images", len(images))


def _predict_accuracy(bundle: Bundle, arch: Arch) -> Accuracy | None:
    if "predictor" not in bundle.manifest.parts:
        return None
    described = describe_accuracy(load_predictor(bundle.predictor_path, bundle.space), arch)
    return Accuracy(**described) if described else None
