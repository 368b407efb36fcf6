from __future__ import annotations

import numpy as np
import pytest

from supernet.predictors.accuracy import AccuracyPredictor
from supernet.spaces.costs import Values, macs_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows, SearchSpace


def synthetic_top1(space: SearchSpace, rows: Rows) -> Values:
    """Saturating in MACs, with a preference for every choice."""
    rng = np.random.default_rng(8)
    preference = np.zeros(len(rows))
    for column, slot in enumerate(space.slots):
        preference += rng.normal(scale=0.02, size=len(slot.choices))[rows[:, column]]
    return 1 - 0.12 * np.exp(-preference - 0.4 * np.log(macs_cost(space)(rows) / 1e7))


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return load_space("cifar_mbv3")


@pytest.fixture(scope="session")
def rows(space: SearchSpace) -> Rows:
    return space.sample_rows(np.random.default_rng(1), 400)


@pytest.fixture(scope="session")
def top1(space: SearchSpace, rows: Rows) -> Values:
    noise = np.random.default_rng(2).normal(scale=0.0005, size=len(rows))
    return synthetic_top1(space, rows) + noise


@pytest.fixture(scope="session")
def predictor(space: SearchSpace, rows: Rows, top1: Values) -> AccuracyPredictor:
    """Fitted on the first 150 archs."""
    return AccuracyPredictor.fit(space, rows[:150], top1[:150], n_images=5000, rng=np.random.default_rng(3))
