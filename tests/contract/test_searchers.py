"""One suite for every searcher: budgets, limits, seeds, impossible questions, and what is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from supernet.errors import InfeasibleBudgetError
from supernet.search.evolution import evolve
from supernet.search.front import trace_front
from supernet.search.limits import cheapest_arch
from supernet.search.problem import Constraint, Objective, SearchProblem, SearchResult
from supernet.search.random_search import search_randomly
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import Values, blocks_of, macs_cost, params_cost, peak_memory_cost
from supernet.spaces.fixed import space_of_blocks
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows, SearchSpace
from supernet.spaces.stage import Stage

Searcher = Callable[..., SearchResult]
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


def rugged(space: SearchSpace, seed: int = 3) -> Callable[[Rows], Values]:
    """An accuracy that grows with size, with a preference for every choice and every pair of neighbouring slots."""
    rng = np.random.default_rng(seed)
    single = rng.normal(size=(len(space.slots), 32))
    paired = rng.normal(size=(len(space.slots), 32, 32))
    columns = np.arange(len(space.slots))

    def accuracy(rows: Rows) -> Values:
        alone = single[columns, rows].sum(axis=1)
        together = paired[columns[1:], rows[:, 1:], rows[:, :-1]].sum(axis=1)
        return 0.5 + 0.05 * np.log(macs_cost(space)(rows) / 1e7) + 0.002 * (alone + together)

    return accuracy


def problem_at(space: SearchSpace, fraction: float) -> SearchProblem:
    """A MAC budget at this fraction of the way from the smallest to the largest arch."""
    cost = macs_cost(space)
    low, high = cost.of([space.smallest(), space.largest()])
    return SearchProblem(space, rugged(space), (Constraint("macs", cost, low + fraction * (high - low)),))


def every_row(space: SearchSpace) -> Rows:
    counts = [len(slot.choices) for slot in space.slots]
    everything = np.stack(np.unravel_index(np.arange(np.prod(counts)), counts), axis=1).astype(np.int16)
    return np.unique(space.canonicalize_rows(everything), axis=0)


@pytest.fixture(params=[evolve, search_randomly])
def search(request: pytest.FixtureRequest) -> Searcher:
    searcher: Searcher = request.param
    return searcher


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("evaluations", [1, 37, 600])
def test_budgets_are_kept_and_evaluations_are_limited(search: Searcher, fraction: float, evaluations: int) -> None:
    asked: list[Rows] = []
    problem = problem_at(SPACE, fraction)

    def counted(rows: Rows) -> Values:
        asked.append(rows)
        return problem.accuracy(rows)

    result = search(replace(problem, accuracy=counted), evaluations=evaluations, seed=1)
    rows = np.concatenate(asked)
    assert result.evaluations == len(rows) <= evaluations
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert SPACE.canonicalize(result.arch) == result.arch
    assert problem.feasible(SPACE.to_rows([result.arch])).all()
    assert result.costs == {"macs": macs_cost(SPACE).of([result.arch])[0]}
    assert result.accuracy == problem.accuracy(SPACE.to_rows([result.arch]))[0]
    assert result.accuracy == problem.accuracy(problem.within(rows)).max()


def test_evaluations_are_used_up_in_a_large_space(search: Searcher) -> None:
    assert search(problem_at(SPACE, 0.3), evaluations=3000).evaluations == 3000


def test_the_same_seed_gives_the_same_result(search: Searcher) -> None:
    problem = problem_at(SPACE, 0.2)
    first, second, other = (search(problem, evaluations=500, seed=seed) for seed in (5, 5, 6))
    assert replace(first, seconds=0) == replace(second, seconds=0)
    assert other.arch != first.arch


def test_only_allowed_resolutions_are_returned(search: Searcher) -> None:
    problem = replace(problem_at(SPACE, 0.5), resolutions=(24, 28))
    assert search(problem, evaluations=500).arch.resolution in (24, 28)


def test_several_budgets_are_kept_together(search: Searcher) -> None:
    limits = (Constraint("macs", macs_cost(SPACE), 8e6), Constraint("params", params_cost(SPACE), 700_000))
    result = search(SearchProblem(SPACE, rugged(SPACE), limits), evaluations=1000)
    assert result.costs["macs"] <= 8e6
    assert result.costs["params"] <= 700_000


def test_no_budget_at_all_is_a_question_too(search: Searcher) -> None:
    assert search(SearchProblem(SPACE, rugged(SPACE)), evaluations=300).costs == {}


def test_an_impossible_budget_is_refused_with_the_nearest_possible(search: Searcher) -> None:
    def never(rows: Rows) -> Values:
        raise AssertionError("no accuracy is needed to know that a budget is impossible")

    arch, least = cheapest_arch(macs_cost(SPACE))
    problem = SearchProblem(SPACE, never, (Constraint("macs", macs_cost(SPACE), 0.99 * least),))
    with pytest.raises(InfeasibleBudgetError, match="Raise the budget") as caught:
        search(problem, evaluations=100)
    assert (caught.value.binding, caught.value.best_achievable, caught.value.arch) == ("macs", {"macs": least}, arch)


@pytest.mark.parametrize("fraction", [0.15, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_of_a_tiny_space_is_found(search: Searcher, fraction: float, seed: int) -> None:
    problem = problem_at(TINY, fraction)
    rows = problem.within(every_row(TINY))
    result = search(problem, evaluations=5000, seed=seed)
    assert result.accuracy == problem.accuracy(rows).max()
    assert result.evaluations <= TINY.size()


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("other", ["nothing", "macs", "objective"])
def test_a_budget_of_a_peak_is_kept_exactly(search: Searcher, quantile: float, other: str) -> None:
    rows, peak, accuracy = every_row(TINY), peak_memory_cost(TINY), rugged(TINY)
    limits = [Constraint("peak_memory_bytes", peak, float(np.quantile(peak(rows), quantile, method="lower")))]
    if other == "macs":
        limits.append(Constraint("macs", macs_cost(TINY), float(np.quantile(macs_cost(TINY)(rows), 0.6))))
    objective = Objective("macs", macs_cost(TINY)) if other == "objective" else None
    problem = SearchProblem(TINY, accuracy, tuple(limits), objective=objective)
    if objective is not None:
        least = float(np.quantile(accuracy(problem.within(rows)), 0.5))
        problem = replace(problem, accuracy_min=least)
    rows = problem.within(rows)
    result = search(problem, evaluations=5000, seed=0)
    assert result.costs["peak_memory_bytes"] == peak.of([result.arch])[0] <= limits[0].maximum
    if objective is None:
        assert result.accuracy == accuracy(rows).max()
    else:
        assert result.costs["macs"] == macs_cost(TINY)(rows[accuracy(rows) >= least]).min()


def test_an_impossible_peak_is_refused_with_the_lowest_one(search: Searcher) -> None:
    peak, rows = peak_memory_cost(TINY), every_row(TINY)
    problem = SearchProblem(TINY, rugged(TINY), (Constraint("peak_memory_bytes", peak, peak(rows).min() - 1),))
    with pytest.raises(InfeasibleBudgetError, match=r"^Peak memory budget") as caught:
        search(problem, evaluations=100)
    assert caught.value.best_achievable == {"peak_memory_bytes": peak(rows).min()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [None, 0.5])
def test_the_cheapest_accurate_arch_of_a_tiny_space_is_found(search: Searcher, budget: float | None, seed: int) -> None:
    cost, accuracy, rows = macs_cost(TINY), rugged(TINY), every_row(TINY)
    limits = () if budget is None else problem_at(TINY, budget).constraints
    least = float(np.quantile(accuracy(rows), 0.8))
    problem = SearchProblem(
        TINY, accuracy, tuple(replace(limit, name="budget") for limit in limits), None, Objective("macs", cost), least
    )
    rows = problem.within(rows)
    result = search(problem, evaluations=5000, seed=seed)
    assert result.accuracy >= least
    assert result.costs["macs"] == cost(rows[accuracy(rows) >= least]).min()


def test_a_lower_accuracy_is_met_at_a_lower_cost(search: Searcher) -> None:
    accuracy, cost = rugged(SPACE), macs_cost(SPACE)
    best = search(problem_at(SPACE, 0.2), evaluations=2000).accuracy
    found = [
        search(SearchProblem(SPACE, accuracy, objective=Objective("macs", cost), accuracy_min=least), evaluations=2000)
        for least in (best - 0.06, best - 0.03, best)
    ]
    spent = [result.costs["macs"] for result in found]
    assert spent == sorted(spent)
    assert spent[0] < spent[-1]


@pytest.mark.parametrize("objective", [None, Objective("macs", macs_cost(SPACE))])
def test_an_accuracy_out_of_reach_is_refused_with_the_most_accurate_arch(
    search: Searcher, objective: Objective | None
) -> None:
    budget = Constraint("params", params_cost(SPACE), 700_000)
    problem = SearchProblem(SPACE, rugged(SPACE), (budget,), objective=objective, accuracy_min=0.99)
    with pytest.raises(InfeasibleBudgetError, match="raise a budget") as caught:
        search(problem, evaluations=600)
    error = caught.value
    assert error.binding == "accuracy_min"
    assert error.best_achievable["accuracy"] == problem.accuracy(SPACE.to_rows([error.arch]))[0] < 0.99
    assert error.best_achievable["params"] <= 700_000


def test_a_search_is_never_worse_than_what_it_starts_from() -> None:
    problem = problem_at(SPACE, 0.3)
    good = SPACE.to_rows([evolve(problem, evaluations=3000, seed=4).arch])
    assert evolve(problem, evaluations=30, seed=1, start=good).accuracy >= problem.accuracy(good)[0]


def test_a_short_search_begins_near_the_cheapest_start_that_is_accurate_enough() -> None:
    """Half of its evaluations do not suffice for all it may start from, most of which is dearer than the answer."""
    problem = SearchProblem(SPACE, rugged(SPACE), objective=Objective("macs", macs_cost(SPACE)))
    front = trace_front(problem, Objective("macs", macs_cost(SPACE)), evaluations=20_000)
    assert len(front.rows) > 100
    accuracies = problem.accuracy(front.rows)
    for quantile in (0.1, 0.3, 0.6):
        least = float(np.quantile(accuracies, quantile))
        known = float(front.costs[accuracies >= least].min())
        found = evolve(replace(problem, accuracy_min=least), evaluations=100, start=front.rows)
        assert found.costs["macs"] <= 1.05 * known


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.4])
def test_evolution_beats_random_search(fraction: float) -> None:
    problem = problem_at(SPACE, fraction)
    evolved, drawn = (
        np.mean([searcher(problem, evaluations=1500, seed=seed).accuracy for seed in range(3)])
        for searcher in (evolve, search_randomly)
    )
    assert evolved > drawn


def test_a_space_of_one_arch_has_one_answer(search: Searcher) -> None:
    blocks = blocks_of(TINY, TINY.smallest())
    alone = space_of_blocks("alone", blocks)
    result = search(problem_at(alone, 1.0), evaluations=100, seed=0)
    assert (result.arch, result.evaluations) == (alone.smallest(), 1)


@pytest.mark.parametrize("objective", [None, Objective("macs", macs_cost(SPACE))])
def test_candidates_keep_the_budgets_and_begin_with_the_answer(search: Searcher, objective: Objective | None) -> None:
    problem = replace(problem_at(SPACE, 0.3), objective=objective, accuracy_min=0.5 if objective else None)
    if objective:
        limits = (Constraint("params", params_cost(SPACE), 900_000),)
        problem = replace(problem, constraints=limits)
    result = search(problem, evaluations=2000)
    rows = result.candidates
    assert SPACE.from_rows(rows[:1]) == [result.arch]
    assert problem.feasible(rows).all()
    places, accuracies = problem.places(rows), problem.accuracy(rows)
    direction = 1 if objective else -1
    assert (direction * np.diff(places) > 0).all()
    assert (direction * np.diff(accuracies) > 0).all()
    assert len(rows) > 3
