"""Archive: of the archs a search tried, the best few at every step of an axis, such as a latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows

# A step, as a natural logarithm: 0.25 %.
_STEP = 0.0025
# Steps: an arch that many steps dearer than a more accurate one is forgotten.
_REACH = 40


class Archive:
    """Archs in order of their steps, within a step the most accurate first.

    A search draws parents from it. Archs a little beyond a budget stay in it, since one change may bring them within:
    without them the answers at 50,000 evaluations were worse.

    Args:
        n_slots: Of the space.
        per_step: How many archs of a step are kept. Around one budget, one alone let populations settle too early and
            twenty took evaluations from the best; a whole front has so many steps that two are enough. Those that
            nothing beats stay beside them.

    Attributes:
        rows: `(n_archs, n_slots)` canonical.
        places: `(n_archs,)` on the axis, positive.
        accuracies: `(n_archs,)`
    """

    def __init__(self, n_slots: int, *, per_step: int = 8) -> None:
        self._per_step = per_step
        self.rows: Rows = np.zeros((0, n_slots), np.int16)
        self.places: Values = np.zeros(0)
        self.accuracies: Values = np.zeros(0)
        self._steps: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, rows: Rows, places: Values, accuracies: Values) -> None:
        """Take in archs, and forget what they leave behind.

        Args:
            rows: `(n_archs, n_slots)` canonical, none of them added before.
            places: `(n_archs,)` on the axis, positive and finite.
            accuracies: `(n_archs,)`, no NaN.
        """
        rows = np.concatenate([self.rows, rows])
        places, accuracies = np.concatenate([self.places, places]), np.concatenate([self.accuracies, accuracies])
        steps = np.floor(np.log(places) / _STEP).astype(np.int64)
        order = np.lexsort((-accuracies, steps))
        steps = steps[order]
        first = np.searchsorted(steps, steps)
        kept = np.arange(len(steps)) - first < self._per_step
        kept |= _unbeaten(places[order], accuracies[order])
        # The highest accuracy of all archs at least `_REACH` steps cheaper.
        highest = np.concatenate([[-np.inf], np.maximum.accumulate(accuracies[order])])
        kept &= accuracies[order] > highest[np.searchsorted(steps, steps - _REACH, side="right")]
        order = order[kept]
        self.rows, self.places, self.accuracies, self._steps = (
            rows[order],
            places[order],
            accuracies[order],
            steps[kept],
        )

    @property
    def unbeaten(self) -> NDArray[np.bool_]:
        """`(n_archs,)`: more accurate than every other one that costs as much or less."""
        return _unbeaten(self.places, self.accuracies)

    def between(self, low: float, high: float) -> slice:
        """Indices of the archs whose steps lie between two places."""
        bounds = np.floor(np.log(np.maximum([low, high], 1e-300)) / _STEP)
        start, _ = np.searchsorted(self._steps, bounds, side="left")
        _, stop = np.searchsorted(self._steps, bounds, side="right")
        return slice(int(start), int(stop))

    def draw_pairs(
        self, rng: np.random.Generator, n_pairs: int, *, low: float, high: float, most: int | None = None
    ) -> tuple[Rows, Rows]:
        """Draw archs between two places, each with a mate that is no further than an arch remembers.

        Args:
            rng: Draws evenly.
            n_pairs: At least one arch has been added.
            low: A place on the axis.
            high: Another one; where nothing lies between, all archs are drawn from.
            most: Draw from so many of the most accurate ones alone; from all when None.

        Returns:
            Two arrays `(n_pairs, n_slots)`.
        """
        between = self.between(low, high)
        if between.start == between.stop:
            between = slice(0, len(self.rows))
        offered = np.arange(between.start, between.stop)
        if most is not None and len(offered) > most:
            offered = np.sort(offered[np.argsort(-self.accuracies[offered], kind="stable")[:most]])
        steps = self._steps[offered]
        chosen = rng.integers(0, len(offered), n_pairs)
        nearest = np.searchsorted(steps, steps[chosen] - _REACH, side="left")
        furthest = np.searchsorted(steps, steps[chosen] + _REACH, side="right")
        return self.rows[offered[chosen]], self.rows[offered[rng.integers(nearest, furthest)]]


def _unbeaten(places: Values, accuracies: Values) -> NDArray[np.bool_]:
    """Which archs are more accurate than every one that costs as much or less; of equals the first."""
    order = np.lexsort((-accuracies, places))
    before = np.concatenate([[-np.inf], np.maximum.accumulate(accuracies[order])[:-1]])
    unbeaten = np.zeros(len(places), bool)
    unbeaten[order] = accuracies[order] > before
    return unbeaten
