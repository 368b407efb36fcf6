"""The front of two additive sums, beside every arch of small spaces."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from supernet.search.additive_front import additive_front
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import AdditiveCost, Values
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows, SearchSpace
from supernet.spaces.stage import Stage

TAIL = Stage(BlockKind.LINEAR, widths=(3,), norm=False)
SPACES = [
    SearchSpace(
        "blocks",
        (
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2),
            Stage(BlockKind.INVERTED, widths=(16,), depths=(1, 2, 3), kernel_sizes=(3, 5), expand_ratios=(2, 4)),
            Stage(BlockKind.INVERTED, widths=(24,), depths=(2, 3), kernel_sizes=(3,), expand_ratios=(2, 3), stride=2),
            TAIL,
        ),
        (16, 24),
    ),
    SearchSpace(
        "widths",
        (
            Stage(BlockKind.CONV, widths=(8, 12, 16), kernel_sizes=(3,), stride=2),
            Stage(BlockKind.INVERTED, widths=(16, 24), depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(2,)),
            Stage(BlockKind.SEPARABLE, widths=(16, 24, 32), kernel_sizes=(3,), stride=2),
            TAIL,
        ),
        (16,),
    ),
]


def every_row(space: SearchSpace, resolution_index: int) -> Rows:
    choices = [range(len(slot.choices)) for slot in space.slots]
    choices[0] = range(resolution_index, resolution_index + 1)
    return np.unique(space.canonicalize_rows(np.array(list(product(*choices)), np.int16)), axis=0)


def random_tables(space: SearchSpace, rng: np.random.Generator, *, whole: bool) -> AdditiveCost:
    cost = AdditiveCost(space, lambda spec: 0.0)
    draw = (lambda shape: rng.integers(0, 9, shape).astype(float)) if whole else (lambda shape: rng.normal(size=shape))
    cost.tables = [draw(table.shape) for table in cost.tables]
    return cost


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("seed", range(5))
def test_front_of_whole_costs_is_that_of_all_archs(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, score = random_tables(space, rng, whole=True), random_tables(space, rng, whole=False)
    for resolution_index in range(len(space.resolutions)):
        rows = every_row(space, resolution_index)
        costs, scores = cost(rows), score(rows)
        front = additive_front(space, cost, score.tables, resolution_index=resolution_index, parts=int(costs.max()))
        assert (front[:, 0] == resolution_index).all()
        found = dict(zip(cost(front).tolist(), score(front).tolist(), strict=True))
        wanted: dict[float, float] = {}
        highest = -np.inf
        for spent in np.unique(costs):
            if (best := scores[costs == spent].max()) > highest:
                wanted[float(spent)] = highest = best
        assert found == pytest.approx(wanted, abs=1e-9)


def test_front_of_a_large_space_is_no_worse_than_draws() -> None:
    space, rng = load_space("cifar_mbv3"), np.random.default_rng(3)
    cost, score = random_tables(space, rng, whole=False), random_tables(space, rng, whole=False)
    cost.tables = [np.abs(table) for table in cost.tables]
    front = additive_front(space, cost, score.tables, resolution_index=1)
    costs, scores = cost(front), score(front)
    drawn = space.sample_rows(rng, 20_000)
    drawn[:, 0] = 1
    # Rounding moves an arch by less than a part per block.
    slack = len(space.positions) * costs.max() / 4096
    best = np.array([scores[costs <= limit + slack].max(initial=-np.inf) for limit in cost(drawn)])
    assert (best >= score(drawn) - 1e-9).all()


def test_resolution_without_costs_has_no_front() -> None:
    space = SPACES[0]
    cost = AdditiveCost(space, lambda spec: 1.0)
    cost.tables[1][1] = np.inf
    nothing: list[Values] = [np.zeros(table.shape) for table in cost.tables]
    assert not len(additive_front(space, cost, nothing, resolution_index=1))
    assert len(additive_front(space, cost, nothing, resolution_index=0))
