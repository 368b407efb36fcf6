"""Proposals: archs that are exactly optimal for additive models of the accuracy. A search starts from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from supernet.search.additive_front import additive_front
from supernet.search.surrogate import fit_surrogate

if TYPE_CHECKING:
    from supernet.search.trials import Trials
    from supernet.spaces.space import Rows

# Share of the evaluations for the archs that models learn from, and how often these are fitted.
_LEARNING, _FITS = 0.1, 2
# Fewer archs teach nothing about that many choices.
_LEAST_ARCHS = 50
# Chance of each slot to be redrawn where models learn from archs around the best ones.
_MUTATION = 0.15


def propose(trials: Trials, rng: np.random.Generator, *, window: tuple[float, float] | None = None) -> None:
    """Fit an additive model at every resolution, evaluate its front, and fit once more around what was found.

    A model is fitted on random archs first, then on archs like the best ones known.

    Args:
        trials: That know an arch.
        rng: Draws the archs that models learn from.
        window: Places on the axis between which fronts are evaluated; where the answer is looked for when None.
    """
    problem = trials.problem
    space, resolutions = problem.space, problem.resolution_indices
    share = int(_LEARNING * trials.left) // (_FITS * len(resolutions))
    if share < _LEAST_ARCHS:
        return
    for number in range(_FITS):
        for index in resolutions:
            if number == 0:
                rows = space.sample_rows(rng, share)
            else:
                low, high = window or trials.window
                parents, _ = trials.archive.draw_pairs(rng, share, low=low, high=high)
                rows = space.mutate_rows(parents, rng, probability=_MUTATION)
            rows[:, 0] = index
            rows, accuracies = trials.add(rows)
            if len(rows) < _LEAST_ARCHS:
                continue
            scores = fit_surrogate(space, rows, accuracies)
            for cost in problem.traced:
                front = additive_front(space, cost, scores, resolution_index=int(index))
                trials.add(_between(trials, front, window or trials.window, share))


def _between(trials: Trials, front: Rows, window: tuple[float, float], most: int) -> Rows:
    """Archs of a front between two places, evenly drawn."""
    low, high = window
    places = trials.problem.places(front)
    near: Rows = front[(places >= low) & (places <= high)]
    drawn: Rows = near[np.unique(np.linspace(0, len(near) - 1, min(most, len(near))).astype(int))]
    return drawn
