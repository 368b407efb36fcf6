"""The whole Pareto front of a device: the most accurate arch for every amount of a cost, traced once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from supernet.search.evolution import breed
from supernet.search.feasibility import find_anchor
from supernet.search.proposals import propose
from supernet.search.trials import Trials

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernet.search.problem import Objective, SearchProblem
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows

_BATCH = 4000
_PER_STEP = 2
# Rounds in a row with so small a share of new archs that the space counts as exhausted.
_DRY, _POOR = 8, 0.01


@dataclass(frozen=True, eq=False)
class Front:
    """Archs that no other one known beats in cost and accuracy at once.

    Attributes:
        rows: `(n_archs, n_slots)` canonical.
        costs: `(n_archs,)` ascending.
        accuracies: `(n_archs,)` ascending too, fractions.
    """

    rows: Rows
    costs: Values
    accuracies: Values

    @classmethod
    def of(cls, rows: Rows, costs: Values, accuracies: Values) -> Front:
        """Those of some archs that none of the others beats; of equals the first."""
        order = np.lexsort((-accuracies, costs))
        before = np.concatenate([[-np.inf], np.maximum.accumulate(accuracies[order])[:-1]])
        kept = order[accuracies[order] > before]
        return cls(rows[kept], costs[kept], accuracies[kept])

    def most_accurate(self, maximum: float) -> int | None:
        """Index of the most accurate arch that costs at most this; None where every one costs more."""
        index = int(np.searchsorted(self.costs, maximum, side="right")) - 1
        return index if index >= 0 else None

    def cheapest(self, accuracy_min: float) -> int | None:
        """Index of the cheapest arch at least this accurate; None where none is."""
        index = int(np.searchsorted(self.accuracies, accuracy_min, side="left"))
        return index if index < len(self.rows) else None


def trace_front(
    problem: SearchProblem,
    objective: Objective,
    *,
    evaluations: int = 500_000,
    seed: int = 0,
    start: Rows | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Front:
    """Trace the front of accuracy over an objective: what `evolve` does around one budget, along all of them.

    Args:
        problem: Archs of the front keep its constraints and have its resolutions.
        objective: What the front is traced over.
        evaluations: Upper limit of distinct archs whose accuracy is asked.
        seed: The same seed gives the same front.
        start: `(n_archs, n_slots)` canonical archs to begin with, such as an older front.
        on_progress: Called now and then with the share that is done.

    Raises:
        InfeasibleBudgetError: No arch keeps the constraints.
        InvalidConfigError: No evaluation is allowed, or the accuracy function gives NaN.
    """
    problem = replace(problem, objective=objective, accuracy_min=None)
    rng = np.random.default_rng(seed)
    trials = Trials(problem, evaluations, find_anchor(problem, rng), per_step=_PER_STEP)
    if start is not None:
        trials.add(start[np.isin(start[:, 0], problem.resolution_indices)])
    propose(trials, rng, window=(0, inf))
    generation, dry = 1, 0
    while trials.left and dry < _DRY:
        children = breed(trials, rng, _BATCH, generation=generation, window=(0, inf))
        n_new = len(trials.add(children)[0])
        dry = dry + 1 if n_new < _POOR * _BATCH else 0
        generation += 1
        if on_progress:
            on_progress(trials.count / evaluations)
    return Front.of(trials.archive.rows, trials.archive.places, trials.archive.accuracies)
