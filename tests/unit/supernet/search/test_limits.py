"""The dynamic programme against pricing every arch."""

from __future__ import annotations

from itertools import product
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.errors import InvalidConfigError
from supernet.search.limits import cheapest_arch, cheapest_values, dearest_arch
from supernet.spaces.blocks import BlockKind, BlockSpec
from supernet.spaces.costs import AdditiveCost, macs_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows, SearchSpace
from supernet.spaces.stage import Stage

MOST_ROWS = 6000


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces of a few stages with every kind of coupling: elastic widths, kept widths, stages that can be skipped."""
    stages = []
    for _ in range(draw(st.integers(1, 3))):
        widths = draw(st.sampled_from([(8,), (8, 16), (8, 16, 24)]))
        kind = draw(st.sampled_from([BlockKind.CONV, BlockKind.INVERTED]))
        depths = draw(st.sampled_from([(1,), (1, 2), (2, 3)]))
        ratios = draw(st.sampled_from([(2,), (1, 2)])) if kind is BlockKind.INVERTED else (1,)
        stages.append(
            Stage(kind, widths=widths, depths=depths, expand_ratios=ratios, stride=draw(st.sampled_from([1, 2])))
        )
        if draw(st.booleans()):
            stages.append(Stage(BlockKind.SEPARABLE, depths=(0, 1, 2), kernel_sizes=(3, 5), shortcut=True))
    stages.append(Stage(BlockKind.LINEAR, widths=(3,), norm=False, bias=True))
    return SearchSpace("tiny", tuple(stages), draw(st.sampled_from([(8,), (8, 12)])))


def every_row(space: SearchSpace) -> Rows:
    counts = [range(len(slot.choices)) for slot in space.slots]
    return space.canonicalize_rows(np.array(list(product(*counts)), np.int16))


def random_cost(space: SearchSpace, seed: int, *, missing: float = 0.0, whole: bool = False) -> AdditiveCost:
    rng = np.random.default_rng(seed)

    def cost_of(spec: BlockSpec) -> float:
        value = float(rng.integers(1, 4)) if whole else float(rng.random())
        return np.inf if rng.random() < missing else value

    return AdditiveCost(space, cost_of, fixed=0.5)


def is_small(space: SearchSpace) -> bool:
    return float(np.prod([len(slot.choices) for slot in space.slots], dtype=float)) <= MOST_ROWS


@settings(max_examples=60, deadline=None)
@given(spaces().filter(is_small), st.integers(0, 10_000), st.sampled_from([0.0, 0.2]))
def test_limits_are_those_of_pricing_every_arch(space: SearchSpace, seed: int, missing: float) -> None:
    cost = random_cost(space, seed, missing=missing)
    prices = cost(every_row(space))
    arch, least = cheapest_arch(cost)
    assert space.canonicalize(arch) == arch
    assert least == pytest.approx(prices.min())
    if np.isfinite(prices).any():
        assert dearest_arch(cost)[1] == pytest.approx(prices[np.isfinite(prices)].max())


@settings(max_examples=30, deadline=None)
@given(spaces().filter(is_small), st.integers(0, 10_000))
def test_ties_go_to_the_smallest_resolution(space: SearchSpace, seed: int) -> None:
    cost = random_cost(space, seed, whole=True)
    rows = every_row(space)
    prices = cost(rows)
    assert cheapest_arch(cost)[0].resolution == space.resolutions[rows[prices == prices.min(), 0].min()]


def test_equal_costs_give_the_smallest_arch() -> None:
    space = load_space("cifar_mbv3")
    assert cheapest_arch(AdditiveCost(space, lambda spec: 1.0))[0] == space.smallest()


def test_macs_limits_are_the_smallest_and_the_largest_arch() -> None:
    space = load_space("cifar_mbv3")
    assert cheapest_arch(macs_cost(space))[0] == space.smallest()
    assert dearest_arch(macs_cost(space))[0] == space.largest()


def test_only_the_given_resolutions_count() -> None:
    space = load_space("cifar_mbv3")
    assert cheapest_arch(macs_cost(space), (28, 32))[0].resolution == 28
    assert dearest_arch(macs_cost(space), (24,))[0].resolution == 24
    with pytest.raises(InvalidConfigError, match="none of"):
        cheapest_arch(macs_cost(space), (99,))


def test_a_resolution_without_costs_is_avoided_and_shown_as_infinite() -> None:
    space = load_space("cifar_mbv3")
    cost = AdditiveCost(space, lambda spec: np.inf if spec.in_chs == 3 and spec.in_size == 24 else spec.macs)
    assert cheapest_arch(cost)[0].resolution == 28
    assert dearest_arch(cost)[0] == space.largest()
    assert np.isinf(cheapest_values(cost)).tolist() == [True, False, False]
    assert cheapest_arch(cost, (24,))[1] == np.inf


@pytest.mark.parametrize(("name", "most_ms"), [("cifar_mbv3", 5), ("ofa_mbv3_w1.0", 50)])
def test_limits_answer_in_milliseconds(name: str, most_ms: float) -> None:
    cost = macs_cost(load_space(name))
    seconds = []
    for _ in range(5):
        started = process_time()
        cheapest_arch(cost)
        seconds.append(process_time() - started)
    assert min(seconds) * 1000 < most_ms
