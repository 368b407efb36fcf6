"""Predictors from their files, whatever their kind."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

from supernet.errors import InvalidBundleError
from supernet.predictors import accuracy, corrected, evaluated, ofa_network
from supernet.predictors.storage import damaged, read_file, validate_space

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from supernet.predictors.predictor import Predictor
    from supernet.predictors.storage import Arrays
    from supernet.spaces.space import SearchSpace

_READERS: dict[str, Callable[[SearchSpace, dict[str, Any], Arrays], Predictor]] = {
    accuracy.FORMAT: accuracy.AccuracyPredictor.from_file,
    corrected.FORMAT: corrected.CorrectedPredictor.from_file,
    evaluated.FORMAT: evaluated.EvaluatedAccuracies.from_file,
    ofa_network.FORMAT: ofa_network.OfaPredictor.from_file,
}


def space_name_of(path: Path) -> str:
    """Name of the search space a predictor file was fitted for; `load_predictor` checks the rest.

    Raises:
        InvalidBundleError: As `load_predictor`.
    """
    content, _ = read_file(path)
    name = content.get("space")
    if not isinstance(name, str):
        raise damaged(path, f"'space' is a name, got {reprlib.repr(name)}")
    return name


def load_predictor(path: Path, space: SearchSpace) -> Predictor:
    """Read what the `save` of a predictor wrote.

    Raises:
        InvalidBundleError: The file is absent, truncated, inconsistent or of another format.
        FingerprintMismatchError: It was fitted for another search space, or the same one with other classes.
    """
    content, arrays = read_file(path)
    found = content.get("format")
    read = _READERS.get(found) if isinstance(found, str) else None
    if read is None:
        raise InvalidBundleError(
            f"'{path}' is no Tailor predictor: format {reprlib.repr(found)}, not one of {sorted(_READERS)}. "
            "Fit one with `tailor predictor fit`."
        )
    validate_space(path, content, space)
    try:
        return read(space, content, arrays)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
