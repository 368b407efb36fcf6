"""The predictor of a space from evaluated archs, of the kind its size allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernet.predictors.accuracy import LEAST_ARCHS, AccuracyPredictor
from supernet.predictors.evaluated import EvaluatedAccuracies

if TYPE_CHECKING:
    import numpy as np

    from supernet.predictors.predictor import Predictor
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace


def fit_predictor(
    space: SearchSpace, rows: Rows, top1: Values, *, n_images: int, rng: np.random.Generator
) -> Predictor:
    """Fit on evaluated archs; of a space with fewer than a fit needs, all are evaluated and nothing is predicted.

    Arguments and errors are those of `AccuracyPredictor.fit`, or of `EvaluatedAccuracies` for a small space.
    """
    if space.size() < LEAST_ARCHS:
        return EvaluatedAccuracies(space, rows, top1, n_images)
    return AccuracyPredictor.fit(space, rows, top1, n_images=n_images, rng=rng)
