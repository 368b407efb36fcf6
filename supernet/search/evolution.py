"""Evolution: the most accurate arch within budgets, from populations kept as arrays."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from supernet.search.feasibility import at_resolutions, changes, find_anchor, neighbours, sample_within
from supernet.search.proposals import propose
from supernet.search.trials import Trials

if TYPE_CHECKING:
    from supernet.search.problem import SearchProblem, SearchResult
    from supernet.spaces.space import Rows

# Fewer and larger generations where the search starts from good archs: each takes time of its own.
_GENERATIONS, _WARM_GENERATIONS = 50, 15
_SMALLEST, _LARGEST = 24, 1000
# Few evaluations reach further from few parents, many from many.
_LEAST_PARENTS, _EVALUATIONS_PER_PARENT = 8, 50
# Chance of each slot to be redrawn, generation by generation: wide and narrow steps in turn.
_MUTATION = (0.1, 0.05, 0.02)
# Generations in a row with so small a share of new archs that what the budgets leave counts as exhausted.
_DRY, _POOR = 8, 0.1
# Parents whose neighbours are tried where children are hardly ever new.
_SURROUNDED = 8
# Share of the evaluations kept for the neighbourhood of the best arch.
_POLISH = 0.1
_POLISH_BATCH = 400


def evolve(
    problem: SearchProblem, *, evaluations: int = 10_000, seed: int = 0, start: Rows | None = None
) -> SearchResult:
    """Search by evolution along the edge of the budgets, then step by step around the best arch.

    It starts from archs that are exactly optimal for additive models of the accuracy; see `propose`.

    Args:
        problem: The question.
        evaluations: Upper limit of distinct archs whose accuracy is asked, those a little beyond a budget included.
        seed: The same seed gives the same result, `seconds` apart.
        start: `(n_archs, n_slots)` canonical archs to begin with, such as an older answer.

    Raises:
        InfeasibleBudgetError: No arch keeps all budgets, told at once for a single one; or none was found that is
            accurate enough.
        InvalidConfigError: No evaluation is allowed, or the accuracy function gives NaN.

    Source: Cai et al. 2020 (arXiv 1908.09791), evolutionary search: half of the children mutants, half crossovers.
    Differs: parents are the best of every small step around the budget, those a little beyond it included, not the
    best quarter of all; nothing is evaluated twice, mutation rates vary, and the end is a local search.
    """
    started = perf_counter()
    rng = np.random.default_rng(seed)
    anchor = find_anchor(problem, rng)
    trials = Trials(problem, evaluations, anchor)
    if start is not None:
        trials.add(_nearest(problem, start, evaluations // 2))
    generations = _GENERATIONS if start is None else _WARM_GENERATIONS
    size = int(np.clip(evaluations // generations, _SMALLEST, _LARGEST))
    trials.add(problem.within(neighbours(problem, anchor))[:size])
    trials.add(sample_within(problem, size, anchor, rng=rng))
    propose(trials, rng)
    n_parents = max(_LEAST_PARENTS, evaluations // _EVALUATIONS_PER_PARENT)
    generations, dry, polish_at = 1, 0, int(_POLISH * evaluations)
    while trials.left and dry < _DRY:
        if trials.left <= polish_at:
            polish_at = -1
            _polish(trials, rng)
        children = breed(trials, rng, size, generation=generations, window=trials.window, n_parents=n_parents)
        n_new = len(trials.add(children)[0])
        if n_new < _POOR * size:
            n_new += len(trials.add(_around(trials, rng))[0])
        dry = dry + 1 if n_new < _POOR * size else 0
        generations += 1
    if trials.left:
        _polish(trials, rng)
    return trials.result(generations=generations, seconds=perf_counter() - started)


def _nearest(problem: SearchProblem, rows: Rows, most: int) -> Rows:
    """So many of those that keep all budgets: the ones that use them up first; with an objective evenly over it."""
    rows = problem.within(rows[np.isin(rows[:, 0], problem.resolution_indices)])
    nearest: Rows = rows[np.argsort(-problem.places(rows), kind="stable")]
    if problem.objective is None or len(nearest) <= most:
        return nearest[:most]
    # Nobody knows yet where on it the least accuracy lies.
    drawn: Rows = nearest[np.linspace(0, len(nearest) - 1, most).astype(int)]
    return drawn


def breed(
    trials: Trials,
    rng: np.random.Generator,
    n_children: int,
    *,
    generation: int,
    window: tuple[float, float],
    n_parents: int | None = None,
) -> Rows:
    """Mutants and crossovers, half of each, of archs in a window of the archive; those that fall outside are left out.

    Args:
        trials: Whose archive holds an arch.
        rng: Draws parents, mates and changes.
        n_children: Before some are left out.
        generation: Decides how much mutants differ.
        window: Places on the axis.
        n_parents: How many archs of the window, the most accurate ones, are drawn from; all when None.

    Returns:
        `(n_archs, n_slots)` canonical rows; budgets are not regarded beyond the window.
    """
    problem, half = trials.problem, n_children // 2
    low, high = window
    parents, mates = trials.archive.draw_pairs(rng, n_children, low=low, high=high, most=n_parents)
    mutants = problem.space.mutate_rows(parents[:half], rng, probability=_MUTATION[generation % len(_MUTATION)])
    crossed = problem.space.crossover_rows(parents[half:], mates[half:], rng)
    children = at_resolutions(problem, np.concatenate([mutants, crossed]), rng=rng)
    places = problem.places(children)
    return children[(places >= low) & (places <= high)]


def _around(trials: Trials, rng: np.random.Generator) -> Rows:
    """The neighbours of a few archs of the archive, within budgets."""
    low, high = trials.window
    centres, _ = trials.archive.draw_pairs(rng, _SURROUNDED, low=low, high=high)
    problem = trials.problem
    return problem.within(np.concatenate([neighbours(problem, centre[None]) for centre in centres]))


def _polish(trials: Trials, rng: np.random.Generator) -> None:
    """Climb: archs one slot away from the best come first, then random ones two slots away; a better one starts over.

    Ends where the evaluations do, or when about as many pairs of changes were drawn as there are. Pairs matter because
    the best arch uses up its budget: one slot may grow only where another shrinks.
    """
    problem = trials.problem
    while trials.left:
        best, before = trials.best, trials.improvements
        trials.add(problem.within(neighbours(problem, best)))
        columns, choices = changes(problem, best)
        drawn = 0
        while trials.left and trials.improvements == before:
            if drawn >= len(columns) ** 2 // 2:
                return
            rows = np.repeat(best, _POLISH_BATCH, axis=0)
            for picked in rng.integers(0, len(columns), (2, _POLISH_BATCH)):
                rows[np.arange(_POLISH_BATCH), columns[picked]] = choices[picked]
            trials.add(problem.within(problem.space.canonicalize_rows(rows)))
            drawn += _POLISH_BATCH
