"""OfaPredictor: the accuracy predictors of the once-for-all reference project, on numpy.

A perceptron of three hidden layers over one of the project's encodings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.predictors.inputs import ArchInputs
from supernet.predictors.ofa_encodings import OfaEncoding, resolution_first_encoding, tutorial_encoding
from supernet.predictors.predictor import validate_resolutions
from supernet.predictors.storage import validate_number, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from supernet.predictors.storage import Arrays
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

    # Weights `(out, in)` and biases `(out,)`, float32.
    Layer = tuple[NDArray[np.float32], NDArray[np.float32]]

FORMAT = "tailor-ofa-predictor/1"
# What the tutorial's predictor was trained on; its encoding floors all others.
TUTORIAL_RESOLUTIONS = (160, 176, 192, 208, 224)
LAYERS = 4
_MOST_WIDTH = 4096
# Four layers of larger numbers could leave the range of float32.
_LARGEST = 1e4
_LARGEST_RESOLUTION = 4096
# Rows at once: bounds the memory, not the time.
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class OfaPredictor:
    """Predicts top-1 accuracies as the reference project does.

    It was fitted on images held out of the *training* set, and overstates ImageNet's validation accuracy by 3 to 5
    points: trust the order, not the numbers. Nobody knows how far off it is, so it has neither intervals nor a quality;
    `CorrectedPredictor` has both.

    Attributes:
        encoding: Of the archs.
        resolutions: The only ones it predicts for, ascending, pixels.
        layers: From the bits to the accuracy; ReLU between them.

    Raises:
        ValueError: The layers do not follow each other, or hold numbers that are not finite or far too large.

    Source: Cai et al. 2020 (arXiv 1908.09791), appendix A; `ofa/tutorial/accuracy_predictor.py` and
    `ofa/nas/accuracy_predictor/acc_predictor.py`. Differs: predictions are cut to [0, 1], and resolutions it never saw
    are refused.
    """

    encoding: OfaEncoding
    resolutions: tuple[int, ...]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        """Check the layers against the encoding and each other."""
        if len(self.layers) != LAYERS:
            raise ValueError(f"it has {len(self.layers)} layers, not {LAYERS}")
        hidden = self.layers[0][0].shape[0]
        if not 1 <= hidden <= _MOST_WIDTH:
            raise ValueError(f"its layers are {hidden} wide, not 1 to {_MOST_WIDTH}")
        widths = (self.encoding.n_bits, *[hidden] * (LAYERS - 1), 1)
        for index, ((weight, bias), (n_in, n_out)) in enumerate(zip(self.layers, pairwise(widths), strict=True)):
            if weight.shape != (n_out, n_in) or bias.shape != (n_out,):
                raise ValueError(
                    f"layer {index} has weights of {weight.shape} and biases of {bias.shape}, not {(n_out, n_in)} and "
                    f"{(n_out,)}"
                )
            for array in (weight, bias):
                if array.dtype != np.float32 or not (np.abs(array) <= _LARGEST).all():
                    raise ValueError(f"layer {index} holds numbers that are no float32 up to {_LARGEST:g}")

    @property
    def space(self) -> SearchSpace:
        """The space it predicts for."""
        return self.encoding.space

    @property
    def quality(self) -> None:
        """None: nobody knows how well it does."""

    def predict(self, rows: Rows) -> Values:
        """Predict top-1 accuracies; see the class for how far to trust them.

        Args:
            rows: `(n_archs, n_slots)` choice indices.

        Returns:
            `(n_archs,)` fractions in [0, 1].

        Raises:
            InvalidArchError: A row lies outside the space or has a resolution the predictor does not know.
        """
        rows = self._inputs.check(np.asarray(rows))
        validate_resolutions(self.space, rows, self.resolutions)
        predicted = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            predicted[part] = self._accuracy_of(self.encoding.encode(rows[part]))
        return np.clip(predicted, 0, 1)

    def interval(self, *_arguments: object, **_options: object) -> None:
        """None: nobody knows how far off it is."""

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all; an existing one is replaced.

        Raises:
            InvalidConfigError: The path is a folder, or lies in one that does not exist.
        """
        content, arrays = self.parts()
        write_file(path, self.space, file_format=FORMAT, content=content, arrays=arrays)

    def parts(self) -> tuple[dict[str, Any], Arrays]:
        """The JSON object and the arrays of its file."""
        arrays: Arrays = {}
        for index, (weight, bias) in enumerate(self.layers):
            arrays |= {f"{index}.weight": weight, f"{index}.bias": bias}
        return {"resolutions": self.resolutions, "resolution_bits": self.encoding.resolution_bits}, arrays

    @classmethod
    def from_file(cls, space: SearchSpace, content: dict[str, Any], arrays: Arrays) -> OfaPredictor:
        """Put together what `save` wrote for this space; raises `ValueError` and the like where it is damaged."""
        layers = tuple((arrays.pop(f"{index}.weight"), arrays.pop(f"{index}.bias")) for index in range(LAYERS))
        if arrays:
            raise ValueError(f"it holds the unknown arrays {sorted(arrays)}")
        bits = content["resolution_bits"]
        encoding = tutorial_encoding(space) if bits is None else resolution_first_encoding(space, _sizes(bits))
        resolutions = _sizes(content["resolutions"])
        if not resolutions or list(resolutions) != sorted(set(resolutions) & set(encoding.resolutions)):
            raise ValueError(f"its resolutions {list(resolutions)} are not among {list(encoding.resolutions)}")
        return cls(encoding, resolutions, layers)

    # ------------------------------------------------------------------ private

    @cached_property
    def _inputs(self) -> ArchInputs:
        return ArchInputs(self.space)

    def _accuracy_of(self, bits: NDArray[np.float32]) -> NDArray[np.float32]:
        # The first layer as sums of looked-up columns took eleven times as long as this product (1,000 rows, one
        # thread).
        activations = bits.T
        for weight, bias in self.layers[:-1]:
            activations = weight @ activations
            activations += bias[:, None]
            np.maximum(activations, 0, out=activations)
        weight, bias = self.layers[-1]
        accuracy: NDArray[np.float32] = weight[0] @ activations + bias
        return accuracy


def _sizes(values: Any) -> tuple[int, ...]:
    """A JSON list of resolutions; raises `ValueError` for anything else."""
    if not isinstance(values, list):
        raise ValueError(f"resolutions are a list, got {type(values).__name__}")
    for value in values:
        validate_number("resolutions", value, 1, _LARGEST_RESOLUTION, whole=True)
    return tuple(values)
