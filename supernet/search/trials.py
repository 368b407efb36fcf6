"""Trials: the archs a search has asked the accuracy of. Each once, never more than allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.search.problem import SearchResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supernet.search.problem import SearchProblem
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows

# Best archs that are remembered with their accuracy.
_ELITE = 1000


class Trials:
    """What a search knows so far.

    Args:
        problem: The question.
        evaluations: How many distinct archs may be evaluated.

    Raises:
        InvalidConfigError: No evaluation is allowed.
    """

    def __init__(self, problem: SearchProblem, evaluations: int) -> None:
        if isinstance(evaluations, bool) or evaluations < 1:
            raise InvalidConfigError(f"A search needs at least one evaluation, got {evaluations!r}.")
        self.problem = problem
        self.left = evaluations
        self.count = 0
        n_slots = len(problem.space.slots)
        self._rows: Rows = np.zeros((0, n_slots), np.int16)
        self._accuracies: Values = np.zeros(0)
        self._seen: NDArray[np.uint64] = np.zeros(0, np.uint64)
        # A row's key is a sum of odd 64-bit numbers: two of a million rows share one with a chance below 1e-7.
        self._factors = np.random.default_rng(0).integers(0, 2**63, n_slots, np.uint64) * np.uint64(2) + np.uint64(1)

    @property
    def best_accuracy(self) -> float:
        """Of the archs tried; -inf before the first."""
        return float(self._accuracies[0]) if len(self._accuracies) else -np.inf

    def best(self, n_archs: int) -> Rows:
        """Up to `n_archs` of the best archs, the best first."""
        return self._rows[:n_archs]

    def add(self, rows: Rows) -> int:
        """Evaluate rows that are new, in order, until no evaluation is left.

        Args:
            rows: `(n_archs, n_slots)` canonical, within all budgets, at resolutions of the problem.

        Returns:
            How many were evaluated.
        """
        rows = self._new(rows)[: self.left]
        if not len(rows):
            return 0
        accuracies = np.asarray(self.problem.accuracy(rows), np.float64)
        if accuracies.shape != (len(rows),) or np.isnan(accuracies).any():
            raise InvalidConfigError(
                f"The accuracy function must give one number per arch, got shape {accuracies.shape} for {len(rows)} "
                "archs, or NaN."
            )
        self.left -= len(rows)
        self.count += len(rows)
        self._seen = np.sort(np.concatenate([self._seen, self._keys(rows)]))
        accuracies = np.concatenate([self._accuracies, accuracies])
        order = np.argsort(-accuracies, kind="stable")[:_ELITE]
        self._rows = np.concatenate([self._rows, rows])[order]
        self._accuracies = accuracies[order]
        return len(rows)

    def result(self, *, generations: int, seconds: float) -> SearchResult:
        """The best arch with its costs."""
        row = self.best(1)
        names = (limit.name for limit in self.problem.constraints)
        return SearchResult(
            arch=self.problem.space.from_rows(row)[0],
            accuracy=self.best_accuracy,
            costs=dict(zip(names, self.problem.costs(row)[:, 0].tolist(), strict=True)),
            evaluations=self.count,
            generations=generations,
            seconds=seconds,
        )

    def _new(self, rows: Rows) -> Rows:
        """Rows never evaluated, each once, in the order given."""
        keys = self._keys(rows)
        _, first = np.unique(keys, return_index=True)
        first.sort()
        rows, keys = rows[first], keys[first]
        if not len(self._seen):
            return rows
        at = np.minimum(np.searchsorted(self._seen, keys), len(self._seen) - 1)
        new: Rows = rows[self._seen[at] != keys]
        return new

    def _keys(self, rows: Rows) -> NDArray[np.uint64]:
        return rows.astype(np.uint64) @ self._factors
