"""A deployment folder checked again, anywhere. Needs numpy, onnx and onnxruntime, but no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from supernet.errors import InvalidArchError, InvalidDeploymentError
from supernet.export.manifest import MANIFEST_FILE, MODEL_FILE, DeploymentManifest, TensorSpec
from supernet.export.reference import decode_logits, reference_images
from supernet.export.runtime import ONNX_RUNTIME_ERRORS, open_session, run_session
from supernet.spaces.presets import list_spaces, load_space

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """A deployment that verified.

    Attributes:
        images: Reference images that were run.
        max_abs_diff: Largest difference of a logit from torch's.
        tolerance: What it was allowed to be.
        space_known: Whether the arch was checked against its search space, which only a space that comes with Tailor
            allows.
    """

    folder: Path
    arch_id: str
    images: int
    max_abs_diff: float
    tolerance: float
    space_known: bool


def verify_deployment(folder: Path, *, threads: int = 1) -> VerificationReport:
    """Check that a deployment is complete, unchanged and computes what torch computed.

    Args:
        folder: With `manifest.json` and `model.onnx`; only read.
        threads: Of ONNX Runtime.

    Returns:
        What was checked.

    Raises:
        InvalidDeploymentError: A file is missing, truncated, changed or contradicts another; names the file, what was
            found and what was expected.
    """
    manifest = _load_manifest(folder)
    space_known = _check_arch(manifest)
    content = _load_model(folder, manifest)
    _check_graph(content, manifest)
    max_abs_diff = _compare_logits(content, manifest, threads=threads)
    return VerificationReport(
        folder=folder,
        arch_id=manifest.arch_id,
        images=manifest.verification.images,
        max_abs_diff=max_abs_diff,
        tolerance=manifest.verification.tolerance,
        space_known=space_known,
    )


def _load_manifest(folder: Path) -> DeploymentManifest:
    try:
        return DeploymentManifest.from_json(_read(folder, MANIFEST_FILE).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidDeploymentError(f"'{folder / MANIFEST_FILE}' is no UTF-8 text: {error}.") from error


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise InvalidDeploymentError(
            f"'{folder / name}' cannot be read: {error.strerror}. "
            f"A deployment folder holds '{MANIFEST_FILE}' and '{MODEL_FILE}'."
        ) from error


def _check_arch(manifest: DeploymentManifest) -> bool:
    """Whether the space is known; raises where it is and the arch or the fingerprint does not belong to it."""
    name = manifest.space.name
    if name not in list_spaces():
        return False
    space = load_space(name).with_classes(len(manifest.classes))
    _expect("'space.fingerprint'", manifest.space.fingerprint, space.fingerprint)
    try:
        canonical = space.canonicalize(manifest.arch)
    except InvalidArchError as error:
        raise InvalidDeploymentError(f"'{MANIFEST_FILE}': the arch is outside the space '{name}': {error}") from error
    _expect("'arch'", manifest.arch.to_json(), canonical.to_json())
    return True


def _load_model(folder: Path, manifest: DeploymentManifest) -> bytes:
    name = manifest.model.file
    content = _read(folder, name)
    _expect(f"size of '{name}' in bytes", len(content), manifest.model.size_bytes)
    _expect(f"SHA-256 of '{name}'", hashlib.sha256(content).hexdigest(), manifest.model.sha256)
    return content


def _check_graph(content: bytes, manifest: DeploymentManifest) -> None:
    name = manifest.model.file
    try:
        onnx.checker.check_model(content, full_check=True)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidDeploymentError(f"'{name}' is no valid ONNX model: {error}") from error
    model = onnx.load_model_from_string(content)
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise InvalidDeploymentError(f"'{name}' keeps weights in other files; a deployment's model is one file.")
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    _expect(f"opset of '{name}'", opsets.get(""), manifest.model.opset)
    _expect(f"IR version of '{name}'", model.ir_version, manifest.model.ir_version)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for part, values, spec in (
        ("input", inputs, manifest.model.input),
        ("output", list(model.graph.output), manifest.model.output),
    ):
        _expect(f"{part} of '{name}'", [_describe(value) for value in values], [_described(spec)])


def _describe(value: Any) -> tuple[str, str, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), shape


def _described(spec: TensorSpec) -> tuple[str, str, tuple[int | str, ...]]:
    return spec.name, {"float32": "FLOAT"}.get(spec.dtype, spec.dtype), spec.shape


def _compare_logits(content: bytes, manifest: DeploymentManifest, *, threads: int) -> float:
    verification, preprocessing = manifest.verification, manifest.preprocessing
    try:
        expected = decode_logits(verification.logits, images=verification.images, classes=len(manifest.classes))
    except ValueError as error:
        raise InvalidDeploymentError(f"'{MANIFEST_FILE}', 'verification.logits': {error}.") from error
    images = reference_images(
        verification.seed,
        images=verification.images,
        resolution=preprocessing.resolution,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    name = manifest.model.file
    try:
        found = run_session(open_session(content, threads=threads), images)
    except ONNX_RUNTIME_ERRORS as error:
        raise InvalidDeploymentError(f"ONNX Runtime cannot run '{name}': {error}") from error
    if found.shape != expected.shape:
        raise InvalidDeploymentError(f"'{name}' gives logits of shape {found.shape}, expected {expected.shape}.")
    max_abs_diff = float(np.abs(found - expected).max())
    if not max_abs_diff <= verification.tolerance:  # so written that NaN raises
        raise InvalidDeploymentError(
            f"'{name}' gives logits that differ by {max_abs_diff:.2e} from those in '{MANIFEST_FILE}', "
            f"{verification.tolerance:.0e} is allowed: model, preprocessing or reference logits were changed."
        )
    return max_abs_diff


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise InvalidDeploymentError(
            f"The deployment was changed or is incomplete: {what} is {found}, expected {expected}. Deploy again."
        )
