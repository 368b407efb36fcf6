"""Costs of whole populations equal the sums, or peaks, over the blocks of each arch."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind, BlockSpec
from supernet.spaces.costs import (
    AdditiveCost,
    PeakCost,
    blocks_of,
    macs,
    macs_cost,
    params,
    params_cost,
    peak_memory,
    peak_memory_cost,
)
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

few_examples = settings(max_examples=25, deadline=None)


@few_examples
@given(seed=st.integers(0, 2**32 - 1))
def test_population_costs_are_the_sums_over_blocks(space: SearchSpace, seed: int) -> None:
    rows = space.sample_rows(np.random.default_rng(seed), 3)
    archs = space.from_rows(rows)
    assert macs_cost(space)(rows).tolist() == [macs(space, arch) for arch in archs]
    assert params_cost(space).of(archs).tolist() == [
        sum(spec.params for spec in blocks_of(space, arch)) for arch in archs
    ]


@few_examples
@given(seed=st.integers(0, 2**32 - 1))
def test_population_peaks_are_the_largest_over_blocks(space: SearchSpace, seed: int) -> None:
    rows = space.sample_rows(np.random.default_rng(seed), 3)
    archs = space.from_rows(rows)
    largest = [max(spec.peak_memory_elements for spec in blocks_of(space, arch)) for arch in archs]
    assert peak_memory_cost(space)(rows).tolist() == peak_memory_cost(space).of(archs).tolist() == largest
    assert [peak_memory(space, arch) for arch in archs] == largest
    assert peak_memory_cost(space).scaled(4)(rows).tolist() == [4 * peak for peak in largest]


def test_blocks_that_do_not_run_have_no_peak(tiny_width: SearchSpace) -> None:
    cost = PeakCost(tiny_width, lambda spec: 1.0 if spec.kind is BlockKind.SEPARABLE else -2.0)
    assert cost.of([tiny_width.smallest(), tiny_width.largest()]).tolist() == [-2.0, 1.0]


def test_an_arch_costs_the_same_alone_and_among_others(cifar: SearchSpace, rng: np.random.Generator) -> None:
    prices = rng.random(10**4)
    cost = AdditiveCost(cifar, lambda spec: float(prices[spec.macs % len(prices)]))
    rows = cifar.sample_rows(rng, 300)
    together = cost(rows)
    for n_rows in (1, 2, 3, 7, 100):
        assert np.array_equal(cost(rows[:n_rows]), together[:n_rows])
    assert [cost(row[None])[0] for row in rows] == together.tolist()


def test_a_scaled_cost_leaves_the_first_as_it_was(tiny_width: SearchSpace) -> None:
    archs = [tiny_width.smallest(), tiny_width.largest()]
    for cost in (AdditiveCost(tiny_width, lambda spec: spec.in_size, fixed=0.5), PeakCost(tiny_width, lambda _: 3.0)):
        before = cost.of(archs)
        assert cost.scaled(2).of(archs).tolist() == (2 * before).tolist()
        assert type(cost.scaled(2)) is type(cost)
        assert cost.of(archs).tolist() == before.tolist()


def test_each_distinct_block_is_priced_once(tiny_width: SearchSpace) -> None:
    asked: list[BlockSpec] = []

    def price(spec: BlockSpec) -> float:
        asked.append(spec)
        return 1.0

    cost = AdditiveCost(tiny_width, price, fixed=0.5)
    assert sorted(asked) == list(tiny_width.distinct_blocks())
    smallest, largest = tiny_width.smallest(), tiny_width.largest()
    assert cost.of([smallest, largest]).tolist() == [5.5, 7.5]
    assert cost.of([]).shape == (0,)


def test_costs_at_a_resolution_go_before_the_others(tiny_inverted: SearchSpace) -> None:
    low, *_, high = tiny_inverted.resolutions
    assert low != high
    last = blocks_of(tiny_inverted, tiny_inverted.largest())[-1]
    archs = [replace(tiny_inverted.largest(), resolution=resolution) for resolution in (low, high)]
    plain = AdditiveCost(tiny_inverted, lambda _: 1.0).of(archs)
    special = AdditiveCost(tiny_inverted, lambda _: 1.0, costs_at={high: {last: 0.0}, 999: {last: 7.0}})
    assert (plain - special.of(archs)).tolist() == [0.0, 1.0]


def test_unmeasured_blocks_spread_only_to_the_archs_that_run_them(tiny_width: SearchSpace) -> None:
    for kind in (AdditiveCost, PeakCost):
        cost = kind(tiny_width, lambda spec: np.nan if spec.kind is BlockKind.SEPARABLE else 1.0)
        assert np.isnan(cost.of([tiny_width.smallest(), tiny_width.largest()])).tolist() == [False, True]


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 3, 4)])
def test_rows_of_another_space_are_refused(tiny_inverted: SearchSpace, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArchError, match="'tiny_inverted' have 8 slots"):
        macs_cost(tiny_inverted)(np.zeros(shape, np.int16))


def test_archs_outside_the_space_have_no_costs(cifar: SearchSpace) -> None:
    for cost in (macs, params, peak_memory, blocks_of):
        with pytest.raises(InvalidArchError):
            cost(cifar, Arch(32))


@pytest.mark.shared_data
def test_published_subnets_have_the_published_macs_and_parameters(shared_data: Path) -> None:
    space = load_space("ofa_mbv3_w1.0")
    with (shared_data / "ofa_mbv3_w1.0_measured.csv").open(newline="") as file:
        measured = list(csv.DictReader(file))
    archs = [
        Arch.from_ofa(
            {name: [int(value) for value in line[name].split("-")] for name in ("ks", "e", "d")}
            | {"r": int(line["r"])},
            space,
        )
        for line in measured
    ]
    assert len(archs) == 854
    rows = space.to_rows(archs)
    assert macs_cost(space)(rows).tolist() == [int(line["macs"]) for line in measured]
    assert params_cost(space)(rows).tolist() == [int(line["params"]) for line in measured]
