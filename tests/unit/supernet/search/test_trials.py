from __future__ import annotations

import numpy as np
import pytest

from supernet.errors import InvalidConfigError
from supernet.search.problem import SearchProblem
from supernet.search.trials import Trials
from supernet.spaces.costs import Values, macs_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows

SPACE = load_space("cifar_mbv3")


def test_nothing_is_evaluated_twice_and_never_more_than_allowed(rng: np.random.Generator) -> None:
    asked: list[Rows] = []

    def accuracy(rows: Rows) -> Values:
        asked.append(rows)
        return macs_cost(SPACE)(rows)

    trials = Trials(SearchProblem(SPACE, accuracy), 50)
    rows = SPACE.sample_rows(rng, 30)
    assert trials.add(np.concatenate([rows, rows])) == 30
    assert trials.add(rows[::-1]) == 0
    assert trials.add(SPACE.sample_rows(rng, 100)) == 20
    assert trials.add(SPACE.sample_rows(rng, 100)) == 0
    assert (trials.left, trials.count) == (0, 50)
    assert len(np.unique(np.concatenate(asked), axis=0)) == 50


def test_the_best_come_first_and_of_equals_the_earliest(rng: np.random.Generator) -> None:
    trials = Trials(SearchProblem(SPACE, lambda rows: (rows[:, 0] > 0).astype(float)), 100)
    rows = np.unique(SPACE.sample_rows(rng, 100), axis=0)
    trials.add(rows)
    assert (trials.best(1)[0] == rows[rows[:, 0] > 0][0]).all()
    assert trials.best_accuracy == 1


@pytest.mark.parametrize("evaluations", [0, -5, True])
def test_a_search_without_evaluations_is_refused(evaluations: int) -> None:
    with pytest.raises(InvalidConfigError, match="at least one evaluation"):
        Trials(SearchProblem(SPACE, lambda rows: np.zeros(len(rows))), evaluations)


def test_an_accuracy_that_is_no_number_is_refused(rng: np.random.Generator) -> None:
    rows = SPACE.sample_rows(rng, 3)
    with pytest.raises(InvalidConfigError, match="one number per arch"):
        Trials(SearchProblem(SPACE, lambda rows: np.full(len(rows), np.nan)), 5).add(rows)
    with pytest.raises(InvalidConfigError, match="one number per arch"):
        Trials(SearchProblem(SPACE, lambda rows: np.zeros((len(rows), 1))), 5).add(rows)
