from __future__ import annotations

import numpy as np
import pytest

from supernet.errors import InvalidConfigError
from supernet.search.problem import Constraint, Objective, SearchProblem
from supernet.search.trials import Trials
from supernet.spaces.costs import Values, macs_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows

SPACE = load_space("cifar_mbv3")
ANCHOR = SPACE.to_rows([SPACE.smallest()])


def test_nothing_is_evaluated_twice_and_never_more_than_allowed(rng: np.random.Generator) -> None:
    asked: list[Rows] = []

    def accuracy(rows: Rows) -> Values:
        asked.append(rows)
        return macs_cost(SPACE)(rows)

    trials = Trials(SearchProblem(SPACE, accuracy), 51, ANCHOR)
    rows = SPACE.sample_rows(rng, 30)
    new, accuracies = trials.add(np.concatenate([rows, rows]))
    assert (new == rows).all()
    assert (accuracies == macs_cost(SPACE)(rows)).all()
    assert len(trials.add(rows[::-1])[0]) == 0
    assert len(trials.add(SPACE.sample_rows(rng, 100))[0]) == 20
    assert len(trials.add(SPACE.sample_rows(rng, 100))[0]) == 0
    assert (trials.left, trials.count) == (0, 51)
    assert len(np.unique(np.concatenate(asked), axis=0)) == 51


def test_the_best_within_the_budget_is_the_answer_and_of_equals_the_cheapest(rng: np.random.Generator) -> None:
    rows = np.unique(SPACE.sample_rows(rng, 100), axis=0)
    budget = Constraint("macs", macs_cost(SPACE), float(np.median(macs_cost(SPACE)(rows))))
    problem = SearchProblem(SPACE, lambda rows: (rows[:, 0] > 0).astype(float), (budget,))
    trials = Trials(problem, 101, ANCHOR)
    trials.add(rows)
    within = problem.within(rows)
    accurate = within[within[:, 0] > 0]
    assert (trials.best[0] == accurate[macs_cost(SPACE)(accurate).argmin()]).all()
    result = trials.result(generations=1, seconds=0)
    assert result.accuracy == 1
    assert (result.candidates[0] == trials.best[0]).all()


def test_archs_beyond_a_budget_are_kept_to_go_on_from_but_not_with_an_objective(rng: np.random.Generator) -> None:
    cost = macs_cost(SPACE)
    rows = np.unique(SPACE.sample_rows(rng, 100), axis=0)
    budget = Constraint("budget", cost, float(np.median(cost(rows))))
    for objective, is_kept in ((None, True), (Objective("macs", cost), False)):
        trials = Trials(SearchProblem(SPACE, cost, (budget,), objective=objective), 101, ANCHOR)
        trials.add(rows)
        assert (cost(trials.archive.rows) > budget.maximum).any() == is_kept


def test_with_an_objective_the_cheapest_arch_that_is_accurate_enough_is_the_answer(rng: np.random.Generator) -> None:
    cost = macs_cost(SPACE)
    rows = np.unique(SPACE.sample_rows(rng, 100), axis=0)
    problem = SearchProblem(
        SPACE,
        lambda rows: cost(rows) / 1e9,
        objective=Objective("macs", cost),
        accuracy_min=np.median(cost(rows)) / 1e9,
    )
    trials = Trials(problem, 101, ANCHOR)
    for row in rows:
        trials.add(row[None])
        assert trials.is_accurate_enough == (problem.accuracy(trials.best)[0] >= problem.accuracy_min)
    costs = cost(rows)
    assert cost(trials.best) == costs[costs >= np.median(costs)].min()


@pytest.mark.parametrize("evaluations", [0, -5, True])
def test_a_search_without_evaluations_is_refused(evaluations: int) -> None:
    with pytest.raises(InvalidConfigError, match="at least one evaluation"):
        Trials(SearchProblem(SPACE, lambda rows: np.zeros(len(rows))), evaluations, ANCHOR)


def test_an_accuracy_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="one number per arch"):
        Trials(SearchProblem(SPACE, lambda rows: np.full(len(rows), np.nan)), 5, ANCHOR)
    with pytest.raises(InvalidConfigError, match="one number per arch"):
        Trials(SearchProblem(SPACE, lambda rows: np.zeros((len(rows), 1))), 5, ANCHOR)
