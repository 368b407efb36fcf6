"""Predictor: what every accuracy predictor offers, and how answers state what it says of an arch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from supernet.errors import InvalidArchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from supernet.spaces.arch import Arch
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

INTERVAL_LEVEL = 0.9
# Intervals given to users hold for a test set of this size, that of CIFAR-10.
TEST_IMAGES = 10_000


@dataclass(frozen=True, slots=True)
class PredictorQuality:
    """How well a predictor did on archs left out of the fit, in ten random folds; see `PredictorReport`.

    Attributes:
        n_archs: Distinct archs it was fitted on.
        n_images: Images each accuracy was evaluated on; None where nobody knows.
    """

    n_archs: int
    rmse_pp: float
    kendall_tau: float
    bias_pp: float
    coverage_90: float
    width_90_pp: float
    n_images: int | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


class Predictor(Protocol):
    """Predicts top-1 accuracies of one search space."""

    @property
    def space(self) -> SearchSpace:
        """The space it was fitted for."""

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The only resolutions it predicts for, ascending, pixels."""

    @property
    def quality(self) -> PredictorQuality | None:
        """How well it does; None where nobody knows."""

    def predict(self, rows: Rows) -> Values:
        """`(n_archs,)` fractions for `(n_archs, n_slots)` choice indices.

        Raises:
            InvalidArchError: A row lies outside the space or has a resolution the predictor does not know.
        """

    def interval(
        self, rows: Rows, level: float = INTERVAL_LEVEL, *, extra_images: int | None = None
    ) -> tuple[Values, Values] | None:
        """Lower and upper bounds, each `(n_archs,)` fractions; None where nobody knows how far off it is."""

    def save(self, path: Path) -> None:
        """Write one file that `load_predictor` reads."""


def describe_accuracy(predictor: Predictor, arch: Arch) -> dict[str, Any] | None:
    """`{predicted, low, high, level}` of one arch as answers and manifests give it, fractions.

    The interval holds for the accuracy seen on a test set of `TEST_IMAGES` images: the predictor's own, widened by the
    sampling error of such a set. All three of its values are None where the predictor has no interval.
    None where the predictor does not know the resolution.
    """
    if arch.resolution not in predictor.resolutions:
        return None
    return describe_accuracies(predictor, predictor.space.to_rows([arch]))[0]


def describe_accuracies(predictor: Predictor, rows: Rows) -> list[dict[str, Any]]:
    """`describe_accuracy` of archs `(n_archs, n_slots)` at resolutions that the predictor knows."""
    predicted = predictor.predict(rows).tolist()
    interval = predictor.interval(rows, INTERVAL_LEVEL, extra_images=TEST_IMAGES)
    if interval is None:
        return [{"predicted": accuracy, "low": None, "high": None, "level": None} for accuracy in predicted]
    return [
        {"predicted": accuracy, "low": low, "high": high, "level": INTERVAL_LEVEL}
        for accuracy, low, high in zip(predicted, *(bound.tolist() for bound in interval), strict=True)
    ]


def validate_resolutions(space: SearchSpace, rows: Rows, known: Sequence[int]) -> None:
    """Refuse archs at resolutions a predictor does not know.

    Args:
        space: Of the rows.
        rows: `(n_archs, n_slots)` choice indices, within the space.
        known: Resolutions, pixels.

    Raises:
        InvalidArchError: Names the first such resolution.
    """
    wrong = ~np.isin(space.resolutions, known)[rows[:, 0]]
    if wrong.any():
        raise InvalidArchError(
            f"This predictor never saw resolution {space.resolutions[rows[wrong][0, 0]]}; it knows {list(known)}. "
            "Search among these, or fit a predictor on archs of the others too."
        )
