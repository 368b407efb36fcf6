from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from supernet.errors import InfeasibleBudgetError, InvalidConfigError
from supernet.search.front import Front, trace_front
from supernet.search.problem import Constraint, Objective, SearchProblem
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import Values, macs_cost, params_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows, SearchSpace
from supernet.spaces.stage import Stage

SPACE = load_space("cifar_mbv3")
TINY = SearchSpace(
    "tiny",
    (
        Stage(BlockKind.CONV, widths=(8, 16), kernel_sizes=(3,), stride=2),
        Stage(BlockKind.INVERTED, widths=(16,), depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(2, 4)),
        Stage(BlockKind.LINEAR, widths=(3,), norm=False),
    ),
    (8, 12, 16),
)


def every_row(space: SearchSpace) -> Rows:
    counts = [len(slot.choices) for slot in space.slots]
    everything = np.stack(np.unravel_index(np.arange(np.prod(counts)), counts), axis=1).astype(np.int16)
    return np.unique(space.canonicalize_rows(everything), axis=0)


def rugged(space: SearchSpace) -> Callable[[Rows], Values]:
    """An accuracy that grows with size, with a preference for every pair of neighbouring slots."""
    paired = np.random.default_rng(3).normal(size=(len(space.slots), 32, 32))
    columns = np.arange(len(space.slots))

    def accuracy(rows: Rows) -> Values:
        together = paired[columns[1:], rows[:, 1:], rows[:, :-1]].sum(axis=1)
        return 0.5 + 0.05 * np.log(macs_cost(space)(rows) / 1e7) + 0.002 * together

    return accuracy


def trace(space: SearchSpace, *constraints: Constraint, **options: Any) -> Front:
    problem = SearchProblem(space, rugged(space), constraints)
    return trace_front(problem, Objective("macs", macs_cost(space)), **options)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limited", [False, True])
def test_the_front_of_a_tiny_space_is_that_of_all_its_archs(seed: int, limited: bool) -> None:
    limits = (Constraint("params", params_cost(TINY), 2000),) if limited else ()
    rows = SearchProblem(TINY, rugged(TINY), limits).within(every_row(TINY))
    whole = Front.of(rows, macs_cost(TINY)(rows), rugged(TINY)(rows))
    traced = trace(TINY, *limits, evaluations=5000, seed=seed)
    assert len(rows) < len(every_row(TINY)) or not limited
    assert (traced.costs.tolist(), traced.accuracies.tolist()) == (whole.costs.tolist(), whole.accuracies.tolist())


def test_a_front_rises_keeps_its_evaluations_and_knows_its_archs() -> None:
    asked = []

    def counted(rows: Rows) -> Values:
        asked.append(len(rows))
        return rugged(SPACE)(rows)

    front = trace_front(SearchProblem(SPACE, counted), Objective("macs", macs_cost(SPACE)), evaluations=6000, seed=1)
    assert sum(asked) == 6000
    assert (np.diff(front.costs) > 0).all()
    assert (np.diff(front.accuracies) > 0).all()
    assert (front.costs == macs_cost(SPACE)(front.rows)).all()
    assert (front.accuracies == rugged(SPACE)(front.rows)).all()
    again = trace(SPACE, evaluations=6000, seed=1)
    assert (again.rows == front.rows).all()


def test_a_front_is_no_worse_than_random_archs(rng: np.random.Generator) -> None:
    front = trace(SPACE, evaluations=10_000)
    rows = SPACE.sample_rows(rng, 10_000)
    costs, accuracies = macs_cost(SPACE)(rows), rugged(SPACE)(rows)
    for cost, accuracy in zip(costs, accuracies, strict=True):
        index = front.most_accurate(cost)
        assert index is not None
        assert front.accuracies[index] >= accuracy


def test_a_front_that_starts_from_an_older_one_is_no_worse() -> None:
    older = trace(SPACE, evaluations=5000)
    front = trace(SPACE, evaluations=1000, seed=1, start=older.rows)
    for cost, accuracy in zip(older.costs, older.accuracies, strict=True):
        index = front.most_accurate(cost)
        assert index is not None
        assert front.accuracies[index] >= accuracy


def test_what_lies_within_a_budget_or_is_accurate_enough() -> None:
    front = Front(np.arange(3, dtype=np.int16)[:, None], np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.6, 0.7]))
    assert [front.most_accurate(cost) for cost in (0.9, 1.0, 3.9, 9.0)] == [None, 0, 1, 2]
    assert [front.cheapest(accuracy) for accuracy in (0.1, 0.5, 0.55, 0.7, 0.71)] == [0, 0, 1, 2, None]


def test_impossible_constraints_and_no_evaluations_are_refused() -> None:
    with pytest.raises(InfeasibleBudgetError):
        trace(SPACE, Constraint("params", params_cost(SPACE), 1))
    with pytest.raises(InvalidConfigError, match="at least one evaluation"):
        trace(SPACE, evaluations=0)
