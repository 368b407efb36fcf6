"""A predictor's file: arrays and one JSON object, as safetensors. It knows no kind of predictor."""

from __future__ import annotations

import json
import reprlib
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from supernet.errors import FingerprintMismatchError, InvalidBundleError, InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from supernet.spaces.space import SearchSpace

    Arrays = dict[str, NDArray[Any]]

_KEY = "tailor"


def write_file(path: Path, space: SearchSpace, *, file_format: str, content: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a predictor of a space, whole or not at all; an existing file is replaced.

    Raises:
        InvalidConfigError: The path is a folder, or lies in one that does not exist.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidConfigError(f"'{path}' cannot be written: name a file in a folder that exists.")
    header = {"format": file_format, "space": space.name, "space_fingerprint": space.fingerprint, **content}
    partial = path.with_name(path.name + ".partial")
    # NOTE: safetensors writes several keys in random order; one key keeps equal predictors equal files.
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        partial,
        metadata={_KEY: json.dumps(header, sort_keys=True)},
    )
    partial.replace(path)


def read_file(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The JSON object and the arrays of a file.

    Raises:
        InvalidBundleError: It is absent or truncated, or holds no JSON object.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY, "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError, TypeError) as error:
        raise InvalidBundleError(f"'{path}' cannot be read as safetensors: {error}. Is the file complete?") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, f"its header is a {type(content).__name__}, no object")
    return content, arrays


def validate_space(path: Path, content: Mapping[str, Any], space: SearchSpace) -> None:
    """Refuse a predictor of another space.

    Raises:
        FingerprintMismatchError: Names both.
    """
    found = str(content.get("space_fingerprint"))
    if found != space.fingerprint:
        raise FingerprintMismatchError(
            f"'{path}' was fitted for the space {reprlib.repr(content.get('space'))} ({found[:12]}), not for "
            f"'{space.name}' ({space.fingerprint[:12]}). Load it with the space of its own bundle.",
            expected=space.fingerprint,
            found=found,
        )


def validate_number(name: str, value: Any, least: float, most: float, *, whole: bool = False) -> None:
    """Raise `ValueError` for what is no number in the range."""
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        wanted = f"a {'whole ' if whole else ''}number from {least:g}" + (f" to {most:g}" if most < inf else "")
        raise ValueError(f"'{name}' must be {wanted}, got {reprlib.repr(value)}")


def damaged(path: Path, why: object) -> InvalidBundleError:
    """The error for a file whose parts contradict each other."""
    return InvalidBundleError(f"'{path}' is damaged: {why}. Fit or import the predictor again.")
