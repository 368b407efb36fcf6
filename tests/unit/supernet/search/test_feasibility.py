from __future__ import annotations

from time import process_time

import numpy as np
import pytest

from supernet.errors import InfeasibleBudgetError
from supernet.search.feasibility import changes, find_anchor, neighbours, repair, sample_within
from supernet.search.limits import cheapest_arch
from supernet.search.problem import Constraint, SearchProblem
from supernet.spaces.blocks import BlockSpec
from supernet.spaces.costs import AdditiveCost, Values, macs_cost, params_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows

SPACE = load_space("cifar_mbv3")
MACS = macs_cost(SPACE)


def nothing(rows: Rows) -> Values:
    return np.zeros(len(rows))


def opposed() -> tuple[AdditiveCost, AdditiveCost]:
    """Two costs of which each is small where the other is large: kernel size against its opposite."""

    def large(spec: BlockSpec) -> float:
        return float(spec.kernel_size)

    return AdditiveCost(SPACE, large), AdditiveCost(SPACE, lambda spec: 8.0 - spec.kernel_size)


def test_the_anchor_keeps_a_budget_that_only_the_cheapest_arch_keeps(rng: np.random.Generator) -> None:
    arch, least = cheapest_arch(MACS)
    anchor = find_anchor(SearchProblem(SPACE, nothing, (Constraint("macs", MACS, least),)), rng)
    assert SPACE.from_rows(anchor) == [arch]


def test_without_budgets_the_anchor_is_at_an_allowed_resolution(rng: np.random.Generator) -> None:
    anchor = find_anchor(SearchProblem(SPACE, nothing, (), (28,)), rng)
    assert SPACE.from_rows(anchor)[0].resolution == 28


def test_an_impossible_budget_names_what_is_needed(rng: np.random.Generator) -> None:
    table = AdditiveCost(SPACE, lambda spec: 0.2, fixed=0.0123)
    arch, least = cheapest_arch(table)
    problem = SearchProblem(SPACE, nothing, (Constraint("latency_ms", table, 1.0), Constraint("macs", MACS, 1e9)))
    with pytest.raises(InfeasibleBudgetError, match=r"^Latency budget 1 ms cannot be met.* needs 2\.213 ms") as caught:
        find_anchor(problem, rng)
    assert caught.value.binding == "latency_ms"
    assert caught.value.best_achievable == {"latency_ms": least, "macs": MACS.of([arch])[0]}
    assert caught.value.arch == arch


@pytest.mark.parametrize("budget", [1e-300, 5e-324])
def test_a_budget_next_to_nothing_is_impossible_and_shown_as_it_is(budget: float, rng: np.random.Generator) -> None:
    problem = SearchProblem(SPACE, nothing, (Constraint("macs", MACS, budget),))
    with pytest.raises(InfeasibleBudgetError, match=f"^Macs budget {budget} cannot be met"):
        find_anchor(problem, rng)


def test_the_budget_broken_most_is_the_binding_one(rng: np.random.Generator) -> None:
    params = params_cost(SPACE)
    limits = (
        Constraint("macs", MACS, 0.9 * cheapest_arch(MACS)[1]),
        Constraint("params", params, 0.1 * cheapest_arch(params)[1]),
    )
    with pytest.raises(InfeasibleBudgetError) as caught:
        find_anchor(SearchProblem(SPACE, nothing, limits), rng)
    assert caught.value.binding == "params"


def test_budgets_that_pull_apart_are_met_between_their_extremes(rng: np.random.Generator) -> None:
    first, second = opposed()
    middle = SPACE.from_rows(SPACE.sample_rows(rng, 1))
    limits = (
        Constraint("first", first, float(first.of(middle)[0])),
        Constraint("second", second, float(second.of(middle)[0])),
    )
    problem = SearchProblem(SPACE, nothing, limits)
    assert problem.feasible(find_anchor(problem, rng)).all()


def test_budgets_impossible_together_are_refused_with_the_nearest_arch(rng: np.random.Generator) -> None:
    first, second = opposed()
    low = cheapest_arch(first)[1], cheapest_arch(second)[1]
    problem = SearchProblem(SPACE, nothing, (Constraint("first", first, low[0]), Constraint("second", second, low[1])))
    started = process_time()
    with pytest.raises(InfeasibleBudgetError, match="cannot be met together") as caught:
        find_anchor(problem, rng)
    assert process_time() - started < 1  # bounded, not endless
    error = caught.value
    assert error.best_achievable == {"first": first.of([error.arch])[0], "second": second.of([error.arch])[0]}
    rows = SPACE.sample_rows(rng, 2000)
    violations = np.maximum(problem.excesses(rows), 0).sum(axis=0)
    nearest = np.maximum(problem.excesses(SPACE.to_rows([error.arch])), 0).sum()
    assert nearest <= violations.min()


@pytest.mark.parametrize("factor", [1.0, 1.02, 1.5])
def test_repair_returns_canonical_rows_within_budget(factor: float, rng: np.random.Generator) -> None:
    problem = SearchProblem(SPACE, nothing, (Constraint("macs", MACS, factor * cheapest_arch(MACS)[1]),))
    rows = repair(problem, SPACE.sample_rows(rng, 300), find_anchor(problem, rng), rng=rng)
    assert problem.feasible(rows).all()
    assert (SPACE.canonicalize_rows(rows) == rows).all()


def test_samples_keep_budgets_and_resolutions(rng: np.random.Generator) -> None:
    problem = SearchProblem(SPACE, nothing, (Constraint("macs", MACS, 6e6),), (24, 32))
    rows = sample_within(problem, 400, find_anchor(problem, rng), rng=rng)
    assert len(rows) > 100  # many could be repaired, though few random archs are that small
    assert problem.feasible(rows).all()
    assert {arch.resolution for arch in SPACE.from_rows(rows)} == {24, 32}


def test_neighbours_are_every_change_of_one_slot(rng: np.random.Generator) -> None:
    problem = SearchProblem(SPACE, nothing, (), (24, 32))
    row = SPACE.to_rows([SPACE.largest()])
    rows = neighbours(problem, row)
    columns, choices = changes(problem, row)
    # Every block of the largest arch runs: two other choices per slot, one other resolution.
    assert len(rows) == 2 * (len(SPACE.slots) - 1) + 1
    assert (rows[np.arange(len(rows)), columns] == choices).all()
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_budgets_of_several_devices_are_named_by_device(rng: np.random.Generator) -> None:
    large, small = opposed()
    limits = (Constraint("latency_ms@Phone-1", large, 1e-3), Constraint("latency_ms@board", small, 500))
    with pytest.raises(InfeasibleBudgetError, match=r"^Latency on Phone-1 budget 0\.001 ms cannot be met") as caught:
        find_anchor(SearchProblem(SPACE, nothing, limits), rng)
    assert caught.value.binding == "latency_ms@Phone-1"
