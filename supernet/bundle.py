"""Bundle: a trained supernet as a folder of safetensors files and a manifest. Reading one needs no torch.

A part may be missing: without weights a bundle can be searched but not deployed, without a predictor not searched,
without calibration a deployment needs images of its own. Only training with pools of subnets leaves pools.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from supernet.errors import InvalidBundleError, InvalidSpaceError, MissingPartError
from supernet.spaces.space import SearchSpace
from supernet.strict_json import unique_keys

FORMAT = "tailor-supernet/1"
MANIFEST = "manifest.json"
PARTS = {
    "weights": "weights.safetensors",
    "predictor": "predictor.safetensors",
    "calibration": "calibration.safetensors",
    "pools": "pools.safetensors",
}
DEFAULT_BUNDLE = "cifar_mbv3"
# Pixels lie in [0, 1]; beyond this their mean and deviation are no numbers of images.
_MOST = 1e6
_SHA256 = re.compile("[0-9a-f]{64}")
_SHIPPED = Path(__file__).parent / "bundles"
_WAY_OUT = {
    "weights": "Use a bundle that has them: this one can only be searched.",
    "predictor": "Fit one with `tailor predictor fit`.",
    "calibration": "Pass a folder of images with `--calibration FOLDER`.",
    "pools": "Train with the method `pss_net`: only its bundles have them.",
}


@dataclass(frozen=True)
class BundleManifest:
    """What a bundle says of itself.

    Attributes:
        name: Of the supernet; the id a service gives it.
        space: The search space with the number of classes it was trained for.
        classes: Names, in the order of the outputs.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        training: Method, settings, data set and what else tells where the weights come from.
        parts: Per part its file, SHA-256 and size in bytes.
        versions: Of the tools that made it.
    """

    name: str
    space: SearchSpace
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training: dict[str, Any]
    parts: dict[str, dict[str, Any]]
    versions: dict[str, str]

    @property
    def knows_statistics(self) -> bool:
        """Whether BN statistics of subnets are at hand: a supernet of one arch keeps them with its weights."""
        return "calibration" in self.parts or self.space.size() == 1

    def to_dict(self) -> dict[str, Any]:
        """JSON values, in the order of the file."""
        return {
            "format": FORMAT,
            "name": self.name,
            "space": self.space.to_dict(),
            "space_fingerprint": self.space.fingerprint,
            "classes": list(self.classes),
            "normalisation": {"mean": list(self.mean), "std": list(self.std)},
            "training": self.training,
            "parts": self.parts,
            "versions": self.versions,
        }

    @classmethod
    def from_dict(cls, data: Any) -> BundleManifest:
        """Read what `to_dict` wrote; raises `InvalidBundleError` for anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise InvalidBundleError(f"This is no supernet bundle: format {found!r}, expected '{FORMAT}'.")
        try:
            # What cannot be written as a text could not be answered with either.
            json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise _malformed(f"it holds what JSON cannot: {error}") from error
        _check_keys(data, ("format", *_KEYS), "the manifest")
        for name, kind in _KEYS.items():
            if not isinstance(data[name], kind):
                raise _malformed(f"'{name}' must be {_WORDS[kind]}, got {reprlib.repr(data[name])}")
        normalisation = data["normalisation"]
        _check_keys(normalisation, ("mean", "std"), "'normalisation'")
        for name in ("name", "space_fingerprint"):
            _check_texts(name, [data[name]])
        _check_texts("classes", data["classes"])
        _check_texts("versions", list(data["versions"].values()))
        for part, entry in data["parts"].items():
            _check_part(part, entry)
        try:
            space = SearchSpace.from_dict(data["space"])
        except InvalidSpaceError as error:
            raise InvalidBundleError(f"The bundle's search space is broken: {error}") from error
        manifest = cls(
            name=data["name"],
            space=space,
            classes=tuple(data["classes"]),
            mean=_read_numbers("mean", normalisation["mean"]),
            std=_read_numbers("std", normalisation["std"]),
            training=dict(data["training"]),
            parts={part: dict(entry) for part, entry in data["parts"].items()},
            versions=dict(data["versions"]),
        )
        if data["space_fingerprint"] != manifest.space.fingerprint:
            raise InvalidBundleError("The bundle's search space does not match its fingerprint: it was edited.")
        if len(manifest.classes) != manifest.space.classes:
            raise InvalidBundleError(
                f"The bundle names {len(manifest.classes)} classes, its space has {manifest.space.classes}."
            )
        chs = manifest.space.in_chs
        if any(std < 1 / _MOST for std in manifest.std) or (len(manifest.mean), len(manifest.std)) != (chs, chs):
            raise InvalidBundleError(
                f"The bundle's normalisation needs {chs} finite means and {chs} positive standard deviations, "
                f"got {list(manifest.mean)} and {list(manifest.std)}."
            )
        return manifest


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; `open_bundle` has checked every part it lists."""

    path: Path
    manifest: BundleManifest

    @property
    def space(self) -> SearchSpace:
        """The search space, with the bundle's classes."""
        return self.manifest.space

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, which lists the hashes of all parts."""
        return hash_file(self.path / MANIFEST)

    @property
    def is_deployable(self) -> bool:
        """Whether subnets can be cut out and recalibrated."""
        return "weights" in self.manifest.parts and self.manifest.knows_statistics

    @property
    def weights_path(self) -> Path:
        """Raises `MissingPartError` where the bundle has none."""
        return self._part("weights")

    @property
    def predictor_path(self) -> Path:
        """Raises `MissingPartError` where the bundle has none."""
        return self._part("predictor")

    @property
    def calibration_path(self) -> Path:
        """Raises `MissingPartError` where the bundle has none."""
        return self._part("calibration")

    @property
    def pools_path(self) -> Path:
        """Raises `MissingPartError` where the bundle has none."""
        return self._part("pools")

    def _part(self, part: str) -> Path:
        if part not in self.manifest.parts:
            raise MissingPartError(f"Supernet '{self.manifest.name}' has no {part}. {_WAY_OUT[part]}", part=part)
        return self.path / PARTS[part]


def open_bundle(path: Path | str) -> Bundle:
    """Open a bundle by its folder or by a shipped name, and check every part against its hash.

    Raises:
        InvalidBundleError: No such bundle, or a file is missing, truncated or changed.
    """
    folder = shipped_bundles().get(str(path), Path(path))
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        shipped = ", ".join(shipped_bundles()) or "none"
        raise InvalidBundleError(f"'{path}' is no bundle folder and no shipped supernet ({shipped}).") from error
    try:
        data = json.loads(content, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidBundleError(f"'{folder / MANIFEST}' is no JSON: {error}.") from error
    manifest = BundleManifest.from_dict(data)
    for part, entry in manifest.parts.items():
        file = folder / PARTS[part]
        if not file.is_file():
            raise InvalidBundleError(f"'{folder}' lacks '{file.name}', which its manifest lists.")
        if file.stat().st_size != entry["bytes"] or hash_file(file) != entry["sha256"]:
            raise InvalidBundleError(f"'{file}' is truncated or changed: its size or SHA-256 is not the manifest's.")
    return Bundle(folder, manifest)


def write_manifest(
    folder: Path,
    *,
    name: str,
    space: SearchSpace,
    classes: tuple[str, ...],
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    training: dict[str, Any],
    versions: dict[str, str],
) -> Bundle:
    """Write the manifest over the parts that lie in `folder`, and open the bundle."""
    parts = {
        part: {"file": file, "sha256": hash_file(folder / file), "bytes": (folder / file).stat().st_size}
        for part, file in PARTS.items()
        if (folder / file).is_file()
    }
    mean, std = normalisation
    manifest = BundleManifest(name, space, classes, mean, std, training, parts, versions)
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest.to_dict(), indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return open_bundle(folder)


def shipped_bundles() -> dict[str, Path]:
    """Bundles that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(_SHIPPED.glob(f"*/{MANIFEST}"))}


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_KEYS: dict[str, type] = {
    "name": str,
    "space": dict,
    "space_fingerprint": str,
    "classes": list,
    "normalisation": dict,
    "training": dict,
    "parts": dict,
    "versions": dict,
}
_WORDS = {str: "a text", dict: "an object", list: "a list", int: "a whole number"}
_PART_KEYS: dict[str, type] = {"file": str, "sha256": str, "bytes": int}


def _malformed(why: str) -> InvalidBundleError:
    return InvalidBundleError(f"The bundle's manifest is incomplete or malformed: {why}.")


def _check_keys(data: dict[str, Any], keys: tuple[str, ...], what: str) -> None:
    unknown, missing = sorted(set(data) - set(keys)), [key for key in keys if key not in data]
    if unknown or missing:
        raise _malformed(f"{what} has the keys {list(keys)}; unknown {unknown}, missing {missing}")


def _check_texts(name: str, values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise _malformed(f"'{name}' must be printable text, got {reprlib.repr(value)}")


def _read_numbers(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or any(
        isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MOST for value in values
    ):
        raise _malformed(f"'{name}' must be a list of numbers, got {reprlib.repr(values)}")
    return tuple(map(float, values))


def _check_part(part: str, entry: Any) -> None:
    if part not in PARTS:
        raise InvalidBundleError(f"The bundle has unknown parts [{part!r}]; allowed are {sorted(PARTS)}.")
    if not isinstance(entry, dict):
        raise _malformed(f"'parts.{part}' must be an object, got {reprlib.repr(entry)}")
    _check_keys(entry, tuple(_PART_KEYS), f"'parts.{part}'")
    for key, kind in _PART_KEYS.items():
        if type(entry[key]) is not kind:
            raise _malformed(f"'parts.{part}.{key}' must be {_WORDS[kind]}, got {reprlib.repr(entry[key])}")
    if not _SHA256.fullmatch(entry["sha256"]):
        raise _malformed(f"'parts.{part}.sha256' must be 64 hex digits, got {reprlib.repr(entry['sha256'])}")
