from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from supernet.predictors.inputs import ArchInputs
from supernet.spaces.costs import macs
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace


def distance(space: SearchSpace, first: int, second: int) -> float:
    """Squared distance of two archs that differ in the kernel size of their first block."""
    rows = np.repeat(space.to_rows([space.largest()]), 2, axis=0)
    column = space.positions[2].kernel_slot
    rows[:, column] = first, second
    bits = ArchInputs(space).bits(rows)
    return float(((bits[:, 0] - bits[:, 1]) ** 2).sum())


def test_distant_choices_are_farther_apart_than_neighbouring_ones(space: SearchSpace) -> None:
    assert (distance(space, 0, 1), distance(space, 1, 2), distance(space, 0, 2)) == (1, 1, 2)


def test_different_archs_have_different_bits(space: SearchSpace, rng: np.random.Generator) -> None:
    rows = np.unique(space.sample_rows(rng, 500), axis=0)
    assert len(np.unique(ArchInputs(space).bits(rows), axis=1).T) == len(rows)


def test_slots_with_many_choices_are_one_number() -> None:
    space = load_space("ofa_mbv3_w1.2")  # 17 resolutions
    inputs = ArchInputs(space)
    rows = np.repeat(space.to_rows([space.smallest()]), 17, axis=0)
    rows[:, 0] = np.arange(17)
    assert inputs.n_resolution_bits == 1
    assert inputs.bits(rows)[0] == pytest.approx(np.linspace(0, 1, 17))
    assert inputs.bits(rows).shape == (inputs.n_bits, 17)


def test_a_space_of_one_resolution_has_no_bits_for_it(space: SearchSpace) -> None:
    fixed = replace(space, resolutions=(32,))
    assert ArchInputs(fixed).n_resolution_bits == 0


def test_the_trend_is_the_logarithm_of_the_macs(space: SearchSpace) -> None:
    rows = space.to_rows([space.smallest(), space.largest()])
    expected = [np.log(macs(space, arch)) for arch in (space.smallest(), space.largest())]
    assert ArchInputs(space).trends(rows) == pytest.approx(np.array([expected]))
