"""EvaluatedAccuracies: for spaces so small that every arch was evaluated, nothing is left to predict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.predictors.inputs import ArchInputs
from supernet.predictors.predictor import INTERVAL_LEVEL
from supernet.predictors.storage import validate_number, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from supernet.predictors.storage import Arrays
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

FORMAT = "tailor-evaluated-accuracies/1"
MOST_ARCHS = 1000


@dataclass(frozen=True, eq=False)
class EvaluatedAccuracies:
    """The accuracy that each arch of a space had on held-out images.

    Attributes:
        space: Of at most `MOST_ARCHS` archs.
        rows: `(n_archs, n_slots)`, every arch once.
        top1: `(n_archs,)` fractions.
        n_images: Behind each.

    Raises:
        InvalidConfigError: The archs are not those of the space, or an accuracy is no fraction.
    """

    space: SearchSpace
    rows: Rows
    top1: Values
    n_images: int

    def __post_init__(self) -> None:
        """Check that nothing is missing."""
        size = self.space.size()
        if not size == len(self._place) == len(self.rows) <= MOST_ARCHS:
            raise InvalidConfigError(
                f"All {size} archs of '{self.space.name}', at most {MOST_ARCHS}, are evaluated once each; got "
                f"{len(self._place)} of them in {len(self.rows)} rows."
            )
        if self.top1.shape != (size,) or not ((self.top1 >= 0) & (self.top1 <= 1)).all() or self.n_images < 1:
            raise InvalidConfigError(
                f"Each arch has an accuracy from 0 to 1 on at least one image, got {self.top1} on {self.n_images}."
            )

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """All of the space."""
        return tuple(int(resolution) for resolution in self.space.resolutions)

    @property
    def quality(self) -> None:
        """None: there was nothing to predict."""

    def predict(self, rows: Rows) -> Values:
        """`(n_archs,)` fractions for `(n_archs, n_slots)` choice indices.

        Raises:
            InvalidArchError: A row lies outside the space.
        """
        return self.top1[[self._place[key] for key in self._keys(rows)]]

    def interval(
        self, rows: Rows, level: float = INTERVAL_LEVEL, *, extra_images: int | None = None
    ) -> tuple[Values, Values]:
        """Where accuracies on all images of this kind lie, or on `extra_images` new ones: the sampling error alone.

        Returns:
            Lower and upper bounds, each `(n_archs,)` fractions in [0, 1].

        Raises:
            InvalidArchError: As `predict`.
            InvalidConfigError: The level is not between 0 and 1, or there are no images.
        """
        if not 0 < level < 1 or (extra_images is not None and extra_images < 1):
            raise InvalidConfigError(
                f"An interval has a level between 0 and 1 and at least one image, got {level} and {extra_images}."
            )
        centre = self.predict(rows)
        # As if one more image were right and one more wrong: without, 100 % of few images would have no error at all.
        share = (centre * self.n_images + 1) / (self.n_images + 2)
        variance = share * (1 - share) * (1 / self.n_images + (1 / extra_images if extra_images else 0))
        reach = NormalDist().inv_cdf(0.5 + level / 2) * np.sqrt(variance)
        return np.clip(centre - reach, 0, 1), np.clip(centre + reach, 0, 1)

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all; an existing one is replaced.

        Raises:
            InvalidConfigError: The path is a folder, or lies in one that does not exist.
        """
        arrays: Arrays = {"rows": self.rows, "top1": self.top1}
        write_file(path, self.space, file_format=FORMAT, content={"n_images": self.n_images}, arrays=arrays)

    @classmethod
    def from_file(cls, space: SearchSpace, content: dict[str, Any], arrays: Arrays) -> EvaluatedAccuracies:
        """Put together what `save` wrote for this space; raises `ValueError` and the like where it is damaged."""
        validate_number("n_images", content["n_images"], 1, inf, whole=True)
        if set(arrays) != {"rows", "top1"} or arrays["top1"].dtype != np.float64:
            raise ValueError(f"it holds the arrays {sorted(arrays)}, not 'rows' and 'top1' in float64")
        return cls(space, arrays["rows"], arrays["top1"], content["n_images"])

    # ------------------------------------------------------------------ private

    @cached_property
    def _place(self) -> dict[bytes, int]:
        return {key: place for place, key in enumerate(self._keys(self.rows))}

    def _keys(self, rows: Rows) -> list[bytes]:
        checked = ArchInputs(self.space).check(np.asarray(rows))
        return [row.tobytes() for row in np.ascontiguousarray(checked, np.int16)]
