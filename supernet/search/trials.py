"""Trials: the archs a search has asked the accuracy of. Each once, never more than allowed."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.search.archive import Archive
from supernet.search.feasibility import not_accurate_enough
from supernet.search.problem import SearchResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supernet.search.problem import SearchProblem
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows


# Shares of the budget, or of what the answer so far costs. Narrower and wider windows, and such that narrow with time,
# found less with tens of thousands of evaluations; with a few thousand a wide one found more.
_BELOW, _BEYOND = 0.95, 1.01
_FEW, _BELOW_WITH_FEW = 8000, 0.5
# Keys that are sorted with each new one; more than a part of the old ones join these.
_MOST_LATE = 10_000
# Share of the evaluations after which an accuracy is looked for around the cheapest arch that has it.
_EVERYWHERE = 0.15


class Trials:
    """What a search knows so far.

    Args:
        problem: The question.
        evaluations: How many distinct archs may be evaluated.
        anchor: `(1, n_slots)` within all budgets, tried first.
        per_step: Of the archive.

    Attributes:
        problem: The question.
        archive: Archs to go on from, along `SearchProblem.places`. With an objective they keep all budgets.
        left: Evaluations that are left.
        count: Archs that were evaluated.
        best: `(1, n_slots)` the answer so far.
        improvements: How often the answer changed.

    Raises:
        InvalidConfigError: No evaluation is allowed.
    """

    def __init__(self, problem: SearchProblem, evaluations: int, anchor: Rows, *, per_step: int = 8) -> None:
        if isinstance(evaluations, bool) or evaluations < 1:
            raise InvalidConfigError(f"A search needs at least one evaluation, got {evaluations!r}.")
        n_slots = len(problem.space.slots)
        self.problem = problem
        self.archive = Archive(n_slots, per_step=per_step)
        self.left = evaluations
        self.count = 0
        self.best = anchor
        self.improvements = 0
        self._below = _BELOW if evaluations >= _FEW else _BELOW_WITH_FEW
        self._rank: tuple[float, ...] = (-inf,)
        self._accuracy = -inf
        # Keys in order: many of old, few of late, so that not all are sorted each time.
        self._old: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._late: NDArray[np.uint64] = np.zeros(0, np.uint64)
        # A row's key is a sum of odd 64-bit numbers: two of a million rows share one with a chance below 1e-7.
        self._factors = np.random.default_rng(0).integers(0, 2**63, n_slots, np.uint64) * np.uint64(2) + np.uint64(1)
        self.add(anchor)

    @property
    def is_accurate_enough(self) -> bool:
        """Whether the answer so far has the least accuracy asked for."""
        return self._accuracy >= (self.problem.accuracy_min or -inf)

    @property
    def window(self) -> tuple[float, float]:
        """Between which places on the axis it is worth to look: around the budget, or around the answer so far."""
        problem, place = self.problem, float(self.problem.places(self.best)[0])
        if problem.objective is None and problem.constraints:
            return self._below * min(1.0, place), _BEYOND
        if problem.objective is not None and self.count < _EVERYWHERE * (self.count + self.left):
            return 0, inf
        if problem.objective is None or not self.is_accurate_enough:
            # Up to the most accurate archs, wherever they are.
            return self._below * place, inf
        return self._below * place, _BEYOND * place

    def add(self, rows: Rows) -> tuple[Rows, Values]:
        """Evaluate rows that are new, in order, until no evaluation is left.

        Args:
            rows: `(n_archs, n_slots)` canonical, at resolutions of the problem; budgets are not regarded.

        Returns:
            Those that were evaluated, and their accuracies.
        """
        rows = self._new(rows)[: self.left]
        if not len(rows):
            return rows, np.zeros(0)
        accuracies = np.asarray(self.problem.accuracy(rows), np.float64)
        if accuracies.shape != (len(rows),) or np.isnan(accuracies).any():
            raise InvalidConfigError(
                f"The accuracy function must give one number per arch, got shape {accuracies.shape} for {len(rows)} "
                "archs, or NaN."
            )
        self.left -= len(rows)
        self.count += len(rows)
        places, feasible = self.problem.places(rows), self.problem.feasible(rows)
        self._note_best(rows[feasible], places[feasible], accuracies[feasible])
        known = np.isfinite(places)
        if self.problem.objective is not None:
            known &= feasible
        self.archive.add(rows[known], places[known], accuracies[known])
        return rows, accuracies

    def result(self, *, generations: int, seconds: float) -> SearchResult:
        """The answer with its costs.

        Raises:
            InfeasibleBudgetError: Nothing was found that is accurate enough.
        """
        problem, accuracy = self.problem, float(self._accuracy)
        if not self.is_accurate_enough:
            raise not_accurate_enough(problem, self.best, accuracy)
        return SearchResult(
            arch=problem.space.from_rows(self.best)[0],
            accuracy=accuracy,
            costs=problem.named_costs(self.best),
            evaluations=self.count,
            generations=generations,
            seconds=seconds,
            candidates=self._candidates(),
        )

    def _candidates(self) -> Rows:
        problem, archive = self.problem, self.archive
        kept = (
            problem.feasible(archive.rows) & archive.unbeaten & (archive.accuracies >= (problem.accuracy_min or -inf))
        )
        # Along what nothing beats, cost and accuracy rise together.
        order = np.argsort(archive.places[kept], kind="stable")
        rows: Rows = archive.rows[kept][order if problem.objective is not None else order[::-1]]
        return rows

    def _note_best(self, rows: Rows, places: Values, accuracies: Values) -> None:
        """Of equally accurate archs the cheapest counts, of equally good ones the first."""
        if not len(rows):
            return
        if self.problem.objective is None:
            ranks = [accuracies, -places]
        else:
            # First up to the least accuracy, then down with the objective.
            ranks = [np.minimum(accuracies, self.problem.accuracy_min or -inf), -places, accuracies]
        index = int(np.lexsort([-values for values in reversed(ranks)])[0])
        rank = tuple(float(values[index]) for values in ranks)
        if rank > self._rank:
            self.best, self._rank, self._accuracy = rows[index : index + 1], rank, float(accuracies[index])
            self.improvements += 1

    def _new(self, rows: Rows) -> Rows:
        """Rows never evaluated, each once, in the order given."""
        keys = rows.astype(np.uint64) @ self._factors
        _, first = np.unique(keys, return_index=True)
        first.sort()
        for seen in (self._old, self._late):
            if len(seen):
                at = np.minimum(np.searchsorted(seen, keys[first]), len(seen) - 1)
                first = first[seen[at] != keys[first]]
        first = first[: self.left]
        self._late = np.sort(np.concatenate([self._late, keys[first]]))
        if len(self._late) > max(_MOST_LATE, len(self._old) // 8):
            self._old, self._late = np.sort(np.concatenate([self._old, self._late])), self._late[:0]
        new: Rows = rows[first]
        return new
