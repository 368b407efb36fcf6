from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernet.errors import InvalidConfigError
from supernet.search.problem import Constraint, Objective, SearchProblem
from supernet.spaces.costs import AdditiveCost, Values, macs_cost, params_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows

SPACE = load_space("cifar_mbv3")


def nothing(rows: Rows) -> Values:
    return np.zeros(len(rows))


@pytest.mark.parametrize("maximum", [0, -1, math.nan, math.inf, -math.inf, True, "5", None])
def test_a_budget_that_is_no_positive_number_is_refused(maximum: float) -> None:
    with pytest.raises(InvalidConfigError, match="'macs' must be a positive number"):
        Constraint("macs", macs_cost(SPACE), maximum)


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_every_positive_finite_budget_is_accepted(maximum: float) -> None:
    assert Constraint("macs", macs_cost(SPACE), maximum).maximum == maximum


def test_names_are_unique() -> None:
    twice = (Constraint("macs", macs_cost(SPACE), 1e7), Constraint("macs", macs_cost(SPACE), 2e7))
    with pytest.raises(InvalidConfigError, match="unique names"):
        SearchProblem(SPACE, nothing, twice)


def test_costs_of_another_space_are_refused() -> None:
    other = SPACE.with_classes(7)
    with pytest.raises(InvalidConfigError, match="belong to space"):
        SearchProblem(SPACE, nothing, (Constraint("macs", macs_cost(other), 1e7),))


def test_only_resolutions_that_all_know_are_searched() -> None:
    table = AdditiveCost(SPACE, lambda spec: math.inf if spec.in_chs == 3 and spec.in_size == 24 else 0.1)
    problem = SearchProblem(SPACE, nothing, (Constraint("latency_ms", table, 9.0),), (20, 24, 32))
    assert problem.searched_resolutions == (32,)
    assert SearchProblem(SPACE, nothing).searched_resolutions == SPACE.resolutions


@pytest.mark.parametrize("resolutions", [(), (20,), (24,)])
def test_no_common_resolution_is_refused(resolutions: tuple[int, ...]) -> None:
    table = AdditiveCost(SPACE, lambda spec: math.inf if spec.in_chs == 3 and spec.in_size == 24 else 0.1)
    with pytest.raises(InvalidConfigError, match="No resolution is left"):
        SearchProblem(SPACE, nothing, (Constraint("latency_ms", table, 9.0),), resolutions)


def test_within_keeps_archs_exactly_at_the_budget(rng: np.random.Generator) -> None:
    rows = SPACE.sample_rows(rng, 50)
    macs, params = macs_cost(SPACE)(rows), params_cost(SPACE)(rows)
    constraints = (Constraint("macs", macs_cost(SPACE), macs[7]), Constraint("params", params_cost(SPACE), params[7]))
    kept = SearchProblem(SPACE, nothing, constraints).within(rows)
    assert len(kept) == ((macs <= macs[7]) & (params <= params[7])).sum()
    assert (kept == rows[7]).all(axis=1).any()


def test_fronts_are_traced_over_each_sum_and_over_all_together(rng: np.random.Generator) -> None:
    limits = (Constraint("macs", macs_cost(SPACE), 8e6), Constraint("params", params_cost(SPACE), 700_000))
    rows = SPACE.sample_rows(rng, 50)
    first, second, together = SearchProblem(SPACE, nothing, limits).traced
    assert (first(rows) == macs_cost(SPACE)(rows)).all()
    assert (second(rows) == params_cost(SPACE)(rows)).all()
    assert together(rows) == pytest.approx(first(rows) / 8e6 + second(rows) / 700_000)
    objective = Objective("params", params_cost(SPACE))
    (only,) = SearchProblem(SPACE, nothing, limits[:1], objective=objective).traced
    assert (only(rows) == params_cost(SPACE)(rows)).all()
