"""Random search: the baseline every other searcher has to beat."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from supernet.search.feasibility import find_anchor, sample_within
from supernet.search.trials import Trials

if TYPE_CHECKING:
    from supernet.search.problem import SearchProblem, SearchResult

_BATCH = 1000
# Batches in a row with so small a share of new archs that what the budgets leave counts as exhausted.
_DRY, _POOR = 10, 0.01


def search_randomly(problem: SearchProblem, *, evaluations: int = 10_000, seed: int = 0) -> SearchResult:
    """Evaluate archs drawn at random within the budgets.

    Arguments, result and errors are those of `evolve`.
    """
    started = perf_counter()
    rng = np.random.default_rng(seed)
    anchor = find_anchor(problem, rng)
    trials = Trials(problem, evaluations, anchor)
    batches = dry = 0
    while trials.left and dry < _DRY:
        batches += 1
        n_drawn = min(_BATCH, 2 * trials.left)
        n_new = len(trials.add(sample_within(problem, n_drawn, anchor, rng=rng))[0])
        dry = dry + 1 if n_new < _POOR * n_drawn else 0
    return trials.result(generations=batches, seconds=perf_counter() - started)
