"""Accuracy predictors of the once-for-all reference project, from the files its code saves. Reading one needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from supernet.errors import InvalidArchError, InvalidCheckpointError
from supernet.ofa.state_dicts import read_state_dict
from supernet.predictors.ofa_encodings import (
    TUTORIAL_SIZES,
    OfaEncoding,
    resolution_first_encoding,
    tutorial_encoding,
)
from supernet.predictors.ofa_network import LAYERS, TUTORIAL_RESOLUTIONS, OfaPredictor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from supernet.predictors.ofa_network import Layer
    from supernet.spaces.space import SearchSpace

    State = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Names of the tensors in a state dict, in the order of the layers.

    Attributes:
        biases: The last may be a number that is added to the output, which is the same.
    """

    weights: tuple[str, ...]
    biases: tuple[str, ...]

    @property
    def keys(self) -> set[str]:
        return {*self.weights, *self.biases}


_TUTORIAL = _Layout(
    weights=("0.weight", "2.weight", "4.weight", "6.weight"),
    biases=("0.bias", "2.bias", "4.bias", "6.bias"),
)
_RESOLUTION_FIRST = _Layout(
    weights=("layers.0.0.weight", "layers.1.0.weight", "layers.2.0.weight", "layers.3.weight"),
    biases=("layers.0.0.bias", "layers.1.0.bias", "layers.2.0.bias", "base_acc"),
)


def import_predictor(path: Path, space: SearchSpace, *, resolutions: Sequence[int] | None = None) -> OfaPredictor:
    """Read an accuracy predictor of the reference project.

    Args:
        path: A state dict saved by torch, of the tutorial's predictor (`0.weight`, …, with an output bias) or of
            `ofa.nas` (`layers.0.0.weight`, …, with `base_acc`), alone or under the key `state_dict`.
        space: The space of the supernet it was fitted for. The file does not tell: the same shapes fit every width.
        resolutions: Image sizes it was trained with. For `ofa.nas` all of them in the order given to its encoder; for
            the tutorial's 160, 176, 192, 208, 224 where none are given.

    Raises:
        InvalidCheckpointError: The file is absent, truncated or no state dict, a key is missing or left over, a shape
            does not fit the space, or the image sizes are not told.
        InvalidSpaceError: The reference has no such encoding of the space.
        InvalidArchError: The resolutions are not among those of the space and the encoding.
    """
    state = _read_state(path)
    layout = max((_TUTORIAL, _RESOLUTION_FIRST), key=lambda layout: len(layout.keys & set(state)))
    missing, left_over = sorted(layout.keys - set(state)), sorted(set(state) - layout.keys)
    if missing or left_over:
        raise InvalidCheckpointError(
            f"'{path}' is no accuracy predictor of the once-for-all project: missing {missing}, left over {left_over}."
        )
    if layout is _TUTORIAL:
        encoding, known = _tutorial(space, resolutions)
    else:
        encoding = _resolution_first(path, state[layout.weights[0]], space, resolutions)
        known = encoding.resolutions
    layers = tuple(_layer(path, state, *names) for names in zip(layout.weights, layout.biases, strict=True))
    try:
        return OfaPredictor(encoding, known, layers)
    except ValueError as error:
        raise InvalidCheckpointError(
            f"'{path}' does not fit space '{space.name}' with {encoding.n_bits} inputs and {LAYERS} layers: {error}. "
            "Name the space and the image sizes it was trained with."
        ) from error


def _tutorial(space: SearchSpace, resolutions: Sequence[int] | None) -> tuple[OfaEncoding, tuple[int, ...]]:
    encoding = tutorial_encoding(space)
    own = [size for size in encoding.resolutions if size in TUTORIAL_SIZES]
    asked = sorted(set(TUTORIAL_RESOLUTIONS).intersection(own) if resolutions is None else set(resolutions))
    if not asked or not set(asked) <= set(own):
        raise InvalidArchError(
            f"A predictor of the tutorial's kind knows, in space '{space.name}', resolutions among {own}; got {asked}. "
            "Name those it was trained with."
        )
    return encoding, tuple(asked)


def _resolution_first(
    path: Path, weight: NDArray[np.float32], space: SearchSpace, resolutions: Sequence[int] | None
) -> OfaEncoding:
    if resolutions is None:
        n_inputs = weight.shape[-1] if weight.ndim else 0
        n_others = resolution_first_encoding(space, space.resolutions).n_bits - len(space.resolutions)
        raise InvalidCheckpointError(
            f"'{path}' does not tell the image sizes it was trained with. It has {n_inputs} inputs, {n_others} of them "
            f"for what '{space.name}' chooses beside the resolution: name {max(n_inputs - n_others, 0)} sizes, in "
            "the order of its encoder, with --resolutions."
        )
    return resolution_first_encoding(space, resolutions)


def _layer(path: Path, state: State, weight: str, bias: str) -> Layer:
    for name, n_dims in ((weight, 2), (bias, 1)):
        if state[name].ndim != n_dims:
            raise InvalidCheckpointError(f"'{name}' in '{path}' has the shape {state[name].shape}, not {n_dims} sizes.")
    return state[weight], state[bias]


def _read_state(path: Path) -> State:
    """The tensors of a file, by name."""
    state = read_state_dict(path)
    if strange := sorted(name for name, tensor in state.items() if not tensor.is_floating_point()):
        raise InvalidCheckpointError(f"'{path}' is no state dict of a predictor: {strange} are no tensors of numbers.")
    return {name: tensor.to(torch.float32).numpy() for name, tensor in state.items()}
