"""What a deployment says of itself: a frozen value with a strict JSON form. Needs no torch."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from supernet.errors import InvalidArchError, InvalidDeploymentError
from supernet.spaces.arch import Arch

if TYPE_CHECKING:
    from supernet.spaces.space import SearchSpace

FORMAT = "tailor-deployment/1"
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
RESIZE = "bilinear, antialiased"
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class SpaceReference:
    """The search space the arch belongs to; its fingerprint covers the number of classes."""

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Input or output of the model.

    Attributes:
        shape: Whole numbers; a name where any size is allowed.
        layout: A letter per dimension: N images, C channels, H height, W width.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The ONNX file.

    Attributes:
        file: Its name in the deployment folder.
        precision: One of `PRECISIONS`.
    """

    file: str
    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    precision: str
    input: TensorSpec
    output: TensorSpec


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an image to the model's input: resize, scale, then `(pixel - mean) / std` per channel.

    Attributes:
        resolution: Height and width, pixels.
        mean: Per channel, of scaled pixels.
        std: Per channel, of scaled pixels.
        scale: Factor from 8-bit values to [0, 1].
    """

    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = RESIZE
    channel_order: str = "RGB"
    scale: float = 1 / 255


@dataclass(frozen=True, slots=True)
class BnRecalibration:
    """Where the statistics of batch normalisation come from, and from how many images.

    `images` and `anchors` tell real from synthesised ones; `weights` and `pool` are statistics that came with the
    bundle, from 0 images here.
    """

    source: str
    images: int


@dataclass(frozen=True, slots=True)
class Parity:
    """ONNX Runtime against torch, as `parity.ParityReport`; measured where the deployment was made."""

    images: int
    max_abs_diff: float
    top1_agreement: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy as a fraction: predicted with its interval, and evaluated on data where that was done.

    `low`, `high` and `level` are None where nobody knows how far off the predictor is.
    """

    predicted: float
    low: float | None
    high: float | None
    level: float | None
    evaluated: float | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency in ms: estimated from a device's table with its interval, and measured where that was done."""

    estimated: float
    low: float
    high: float
    level: float
    device: str
    table_version: str
    measured: float | None = None


@dataclass(frozen=True, slots=True)
class SupernetReference:
    """The supernet the weights were cut from."""

    name: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Reference images, made from the seed by `reference.reference_images`, with the logits the model must give.

    Attributes:
        images: How many.
        tolerance: Largest difference of a logit that is allowed.
        logits: As `reference.encode_logits` writes them.
    """

    seed: int
    images: int
    tolerance: float
    logits: str


@dataclass(frozen=True, slots=True)
class ToolVersions:
    """What made the deployment; no build suffixes, since they differ between machines."""

    tailor: str
    torch: str
    onnx: str
    onnxruntime: str


@dataclass(frozen=True, slots=True)
class DeploymentManifest:
    """Everything needed to use, verify and trace a deployment.

    Raises:
        InvalidDeploymentError: Two fields contradict each other, or a value is out of range; names them.
    """

    arch: Arch
    arch_id: str
    space: SpaceReference
    model: ModelFile
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    bn_recalibration: BnRecalibration
    parity: Parity
    accuracy: Accuracy | None
    latency_ms: Latency | None
    supernet: SupernetReference
    verification: Verification
    versions: ToolVersions

    def __post_init__(self) -> None:
        """Compare what is written twice and check ranges that types do not tell."""
        model, preprocessing = self.model, self.preprocessing
        size = preprocessing.resolution
        expected = {
            "arch_id": (self.arch_id, self.arch.arch_id),
            "preprocessing.resolution": (size, self.arch.resolution),
            "model.input.shape": (model.input.shape[1:], (len(preprocessing.mean), size, size)),
            "model.output.shape": (model.output.shape[1:], (len(self.classes),)),
            "preprocessing.std": (len(preprocessing.std), len(preprocessing.mean)),
        }
        for name, (found, wanted) in expected.items():
            if found != wanted:
                raise InvalidDeploymentError(
                    f"'{name}' in '{MANIFEST_FILE}' is {found!r}, the rest of it says {wanted!r}."
                )
        allowed = {
            # A path here would make `verify_deployment` read outside the folder.
            "model.file": (model.file, model.file == MODEL_FILE, f"'{MODEL_FILE}'"),
            "model.sha256": (model.sha256, _is_sha256(model.sha256), "64 hex digits"),
            "model.precision": (model.precision, model.precision in PRECISIONS, f"one of {list(PRECISIONS)}"),
            "preprocessing.std": (preprocessing.std, min(preprocessing.std, default=0) > 0, "positive"),
            "classes": (list(self.classes), len(set(self.classes)) == len(self.classes) > 0, "names without repeats"),
            "verification.seed": (self.verification.seed, self.verification.seed >= 0, "not negative"),
            "verification.images": (self.verification.images, 1 <= self.verification.images <= 1024, "1 to 1024"),
            "verification.tolerance": (self.verification.tolerance, self.verification.tolerance > 0, "positive"),
        }
        for name, (value, is_allowed, rule) in allowed.items():
            if not is_allowed:
                raise InvalidDeploymentError(f"'{name}' in '{MANIFEST_FILE}' must be {rule}, got {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON values, the format among them."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {"format": FORMAT, **plain, "arch": self.arch.to_dict()}

    def to_json(self) -> str:
        """The file's text: sorted keys, no time stamps; equal manifests give equal text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: Any) -> DeploymentManifest:
        """Read what `to_dict` wrote.

        Raises:
            InvalidDeploymentError: A key is unknown or missing, a value has the wrong type, or fields contradict each
                other; the message names them.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise InvalidDeploymentError(
                f"'{MANIFEST_FILE}' is no deployment manifest: format {found!r}, expected '{FORMAT}'."
            )
        manifest: DeploymentManifest = _read(cls, {key: data[key] for key in data if key != "format"}, "")
        return manifest

    @classmethod
    def from_json(cls, text: str) -> DeploymentManifest:
        """Read what `to_json` wrote; raises `InvalidDeploymentError` for anything else."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidDeploymentError(f"'{MANIFEST_FILE}' is no JSON: {error}.") from error
        return cls.from_dict(data)


def build_manifest(
    *,
    arch: Arch,
    space: SearchSpace,
    model: ModelFile,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
    bn_recalibration: BnRecalibration,
    parity: Parity,
    supernet: SupernetReference,
    verification: Verification,
    accuracy: Accuracy | None = None,
    latency_ms: Latency | None = None,
) -> DeploymentManifest:
    """Put the parts together, with the versions of the installed tools.

    Args:
        arch: Canonical.
        space: The arch's, with the number of classes the weights have.
        model: As exported.
        preprocessing: At the arch's resolution.
        classes: Names, in the order of the outputs.
        bn_recalibration: Of the exported subnet.
        parity: Of the exported subnet.
        supernet: Where the weights come from.
        verification: Reference images and torch's logits.
        accuracy: None where nothing predicted it.
        latency_ms: None where no device was named.

    Raises:
        InvalidDeploymentError: A part has a value of another type than it declares, or two contradict each other.
    """
    if space.classes != len(classes):
        raise InvalidDeploymentError(
            f"The space '{space.name}' has {space.classes} classes, {len(classes)} are named: use `with_classes`."
        )
    manifest = DeploymentManifest(
        arch=arch,
        arch_id=arch.arch_id,
        space=SpaceReference(space.name, space.fingerprint),
        model=model,
        preprocessing=preprocessing,
        classes=classes,
        bn_recalibration=bn_recalibration,
        parity=parity,
        accuracy=accuracy,
        latency_ms=latency_ms,
        supernet=supernet,
        verification=verification,
        versions=_tool_versions(),
    )
    # A manifest that its own reader refuses is never written.
    return DeploymentManifest.from_dict(manifest.to_dict())


def _tool_versions() -> ToolVersions:
    names = {"tailor": "tailor-nas", "torch": "torch", "onnx": "onnx", "onnxruntime": "onnxruntime"}
    return ToolVersions(**{name: version(distribution).partition("+")[0] for name, distribution in names.items()})


def _is_sha256(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _read(kind: Any, value: Any, where: str) -> Any:
    """Turn JSON values into the type `kind`, strictly; `where` is the dotted path for messages."""
    options = get_args(kind)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_read(options[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if kind is Arch:
        try:
            return Arch.from_dict(value)
        except InvalidArchError as error:
            raise InvalidDeploymentError(f"'{where}' in '{MANIFEST_FILE}' is no arch: {error}") from error
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        return _read_fields(kind, value, where)
    if kind is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif type(value) is kind:
        return value
    if options and get_origin(kind) is not tuple:  # a union
        if value is None and NoneType in options:
            return None
        matching = [option for option in options if type(value) is option]
        return _read(matching[0] if matching else options[0], value, where)
    raise InvalidDeploymentError(
        f"'{where}' in '{MANIFEST_FILE}' must be {getattr(kind, '__name__', kind)}, got {value!r}."
    )


def _read_fields(kind: type, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    prefix = f"{where}." if where else ""
    unknown = [prefix + key for key in sorted(set(value) - set(names))]
    missing = [prefix + name for name in names if name not in value]
    if unknown or missing:
        raise InvalidDeploymentError(
            f"'{MANIFEST_FILE}' does not have the keys of '{FORMAT}': unknown {unknown}, missing {missing}."
        )
    return kind(**{name: _read(hints[name], value[name], prefix + name) for name in names})
