"""A deployment folder: export, parity and manifest in a row, written whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.export.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    Accuracy,
    BnRecalibration,
    DeploymentManifest,
    Latency,
    ModelFile,
    Parity,
    Preprocessing,
    SupernetReference,
    TensorSpec,
    Verification,
    build_manifest,
)
from supernet.export.onnx import BATCH_DIMENSION, DEFAULT_OPSET, INPUT_NAME, OUTPUT_NAME, ExportReport, export_onnx
from supernet.export.parity import DEFAULT_TOLERANCE, allowed_difference, check_parity, reference_logits
from supernet.export.reference import encode_logits, reference_images

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from supernet.network.subnet import Subnet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

REFERENCE_IMAGES = 16


def write_deployment(
    folder: Path,
    subnet: Subnet,
    *,
    arch: Arch,
    space: SearchSpace,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
    bn_recalibration: BnRecalibration,
    supernet: SupernetReference,
    accuracy: Accuracy | None = None,
    latency_ms: Latency | None = None,
    parity_images: Tensor | NDArray[np.float32] | None = None,
    opset: int = DEFAULT_OPSET,
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
) -> DeploymentManifest:
    """Export a subnet, compare it with torch and write `model.onnx` and `manifest.json`.

    Args:
        folder: Made whole beside its final place and then renamed. An earlier deployment there is replaced.
        subnet: Recalibrated, of `arch`; stays as it is.
        arch: Canonical.
        space: The arch's, with the number of classes the weights have.
        preprocessing: Its mean and standard deviation shape the reference images too.
        classes: Names, in the order of the outputs.
        bn_recalibration: What the caller recalibrated with.
        supernet: Where the weights come from.
        accuracy: None where nothing predicted it.
        latency_ms: None where no device was named.
        parity_images: `(n, channels, resolution, resolution)`, normalised; without them the reference images serve.
        opset: As `export_onnx`.
        tolerance: Largest difference of a logit, here and in later verifications.
        seed: Of the reference images.

    Returns:
        What was written. The model is the same on every machine; `parity` is a measurement of this one.

    Raises:
        InvalidConfigError: The folder holds something that is no deployment, or an argument is out of range.
        ExportParityError: The graph differs from torch; nothing is written.
        InvalidDeploymentError: Arguments contradict each other; nothing is written.
    """
    _validate_target(folder)
    images = reference_images(
        seed,
        images=REFERENCE_IMAGES,
        resolution=preprocessing.resolution,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    expected = reference_logits(subnet, images)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        made = Path(scratch, "new")
        made.mkdir()
        export = export_onnx(subnet, made / MODEL_FILE, opset=opset)
        parity = check_parity(
            subnet, made / MODEL_FILE, images if parity_images is None else parity_images, tolerance=tolerance
        )
        manifest = build_manifest(
            arch=arch,
            space=space,
            model=_describe_model(export, subnet, classes=expected.shape[1]),
            preprocessing=preprocessing,
            classes=classes,
            bn_recalibration=bn_recalibration,
            parity=Parity(parity.images, parity.max_abs_diff, parity.top1_agreement, parity.tolerance),
            supernet=supernet,
            verification=Verification(
                seed, REFERENCE_IMAGES, allowed_difference(tolerance, expected), encode_logits(expected)
            ),
            accuracy=accuracy,
            latency_ms=latency_ms,
        )
        (made / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        if folder.exists():
            # A directory cannot replace a full one: the old one moves away first and goes with the scratch folder.
            folder.rename(Path(scratch, "old"))
        made.rename(folder)
    return manifest


def _describe_model(export: ExportReport, subnet: Subnet, *, classes: int) -> ModelFile:
    size = subnet.resolution
    return ModelFile(
        file=export.path.name,
        sha256=export.sha256,
        size_bytes=export.size_bytes,
        opset=export.opset,
        ir_version=export.ir_version,
        precision="fp32",
        input=TensorSpec(INPUT_NAME, "float32", (BATCH_DIMENSION, subnet.in_chs, size, size), "NCHW"),
        output=TensorSpec(OUTPUT_NAME, "float32", (BATCH_DIMENSION, classes), "NC"),
    )


def _validate_target(folder: Path) -> None:
    """Refuse to replace anything but a deployment or an empty folder."""
    if folder.exists() and (
        not folder.is_dir() or {path.name for path in folder.iterdir()} - {MANIFEST_FILE, MODEL_FILE}
    ):
        raise InvalidConfigError(f"'{folder}' exists and is no deployment: choose a new folder or empty this one.")
