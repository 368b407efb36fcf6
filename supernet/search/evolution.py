"""Evolution: the most accurate arch within budgets, from populations kept as arrays."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from supernet.search.feasibility import at_resolutions, changes, find_anchor, neighbours, repair, sample_within
from supernet.search.trials import Trials

if TYPE_CHECKING:
    from supernet.search.problem import SearchProblem, SearchResult
    from supernet.spaces.space import Rows

_GENERATIONS = 30
_SMALLEST, _LARGEST = 24, 800
# Chance of each slot to be redrawn, generation by generation: wide and narrow steps in turn.
_MUTATION = (0.1, 0.05, 0.02)
# Generations in a row with so small a share of new archs that what the budgets leave counts as exhausted.
_DRY, _POOR = 8, 0.1
# Parents whose neighbours are tried where mutants are hardly ever new.
_SURROUNDED = 8
# Share of the evaluations kept for the neighbourhood of the best arch.
_POLISH = 0.2
_POLISH_BATCH = 400


def evolve(problem: SearchProblem, *, evaluations: int = 10_000, seed: int = 0) -> SearchResult:
    """Search by evolution, then step by step around the best arch.

    Args:
        problem: The question.
        evaluations: Upper limit of distinct archs whose accuracy is asked; budgets are checked before.
        seed: The same seed gives the same result, `seconds` apart.

    Raises:
        InfeasibleBudgetError: No arch keeps all budgets; told at once for a single one.
        InvalidConfigError: No evaluation is allowed, or the accuracy function gives NaN.

    Source: Cai et al. 2020 (arXiv 1908.09791), evolutionary search: parents are the best quarter, half of the children
    mutants, half crossovers. Differs: archs beyond a budget are mixed with a cheap arch a few times instead of redrawn
    for ever, nothing is evaluated twice, mutation rates vary, and the end is a local search.
    """
    started = perf_counter()
    rng = np.random.default_rng(seed)
    trials = Trials(problem, evaluations)
    anchor = find_anchor(problem, rng)
    size = int(np.clip(evaluations // _GENERATIONS, _SMALLEST, _LARGEST))
    trials.add(anchor)
    trials.add(problem.within(neighbours(problem, anchor))[:size])
    trials.add(sample_within(problem, size, anchor, rng=rng))
    generations, dry, polish_at = 1, 0, int(_POLISH * evaluations)
    while trials.left and dry < _DRY:
        if trials.left <= polish_at:
            polish_at = -1
            _polish(trials, rng)
        parents = trials.best(max(4, size // 4) * (1 + dry))
        children = _children(problem, parents, size, generation=generations, rng=rng)
        n_new = trials.add(repair(problem, children, anchor, rng=rng, attempts=2))
        if n_new < _POOR * size:
            n_new += trials.add(_around(problem, parents, rng))
        dry = dry + 1 if n_new < _POOR * size else 0
        generations += 1
    if trials.left:
        _polish(trials, rng)
    return trials.result(generations=generations, seconds=perf_counter() - started)


def _children(problem: SearchProblem, parents: Rows, size: int, *, generation: int, rng: np.random.Generator) -> Rows:
    """`(size, n_slots)`: mutants and crossovers of random parents, budgets not regarded."""
    space, probability = problem.space, _MUTATION[generation % len(_MUTATION)]
    first, second, alone = (parents[rng.integers(0, len(parents), size // 2)] for _ in range(3))
    mutants = space.mutate_rows(alone, rng, probability=probability)
    return at_resolutions(problem, np.concatenate([mutants, space.crossover_rows(first, second, rng)]), rng=rng)


def _around(problem: SearchProblem, parents: Rows, rng: np.random.Generator) -> Rows:
    """The neighbours of a few random parents, within budgets."""
    centres = parents[rng.choice(len(parents), min(_SURROUNDED, len(parents)), replace=False)]
    return problem.within(np.concatenate([neighbours(problem, centre[None]) for centre in centres]))


def _polish(trials: Trials, rng: np.random.Generator) -> None:
    """Climb: archs one slot away from the best come first, then random ones two slots away; a better one starts over.

    Ends where the evaluations do, or when about as many pairs of changes were drawn as there are. Pairs matter because
    the best arch uses up its budget: one slot may grow only where another shrinks.
    """
    problem = trials.problem
    while trials.left:
        best, before = trials.best(1), trials.best_accuracy
        trials.add(problem.within(neighbours(problem, best)))
        columns, choices = changes(problem, best)
        drawn = 0
        while trials.left and trials.best_accuracy <= before:
            if drawn >= len(columns) ** 2 // 2:
                return
            rows = np.repeat(best, _POLISH_BATCH, axis=0)
            for picked in rng.integers(0, len(columns), (2, _POLISH_BATCH)):
                rows[np.arange(_POLISH_BATCH), columns[picked]] = choices[picked]
            trials.add(problem.within(problem.space.canonicalize_rows(rows)))
            drawn += _POLISH_BATCH
