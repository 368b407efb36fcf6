"""sample_in_bucket: archs of the cost that was asked for, or a word that there are none."""

from __future__ import annotations

import numpy as np
import pytest

from supernet.errors import InvalidConfigError
from supernet.spaces.buckets import sample_in_bucket
from supernet.spaces.costs import macs_cost
from supernet.spaces.presets import load_space

SPACE = load_space("cifar_mbv3")
MACS = macs_cost(SPACE)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.98])
def test_every_arch_is_a_different_one_of_the_bucket(share: float) -> None:
    least, most = MACS.of([SPACE.smallest(), SPACE.largest()])
    centre, half = least + share * (most - least), 0.02 * (most - least)
    rows = sample_in_bucket(
        SPACE, MACS, low=centre - half, high=centre + half, n_archs=100, rng=np.random.default_rng(0)
    )
    assert len(np.unique(rows, axis=0)) == 100
    assert (abs(MACS(rows) - centre) <= half).all()
    assert np.array_equal(SPACE.canonicalize_rows(rows), rows)
    again = sample_in_bucket(
        SPACE, MACS, low=centre - half, high=centre + half, n_archs=100, rng=np.random.default_rng(0)
    )
    assert np.array_equal(rows, again)


def test_uniform_draws_are_taken_as_they_come_where_they_suffice() -> None:
    rows = sample_in_bucket(SPACE, MACS, low=0, high=np.inf, n_archs=1000, rng=np.random.default_rng(1))
    # Four standard deviations of a share of 1,000.
    resolutions = np.bincount(rows[:, 0], minlength=len(SPACE.resolutions)) / 1000
    assert abs(resolutions - 1 / len(SPACE.resolutions)).max() < 0.06


@pytest.mark.parametrize(("low", "high"), [(1, 2), (1e12, 2e12), (3e6, 2e6)])
def test_a_bucket_out_of_reach_ends_with_a_clear_error(low: float, high: float) -> None:
    with pytest.raises(InvalidConfigError, match="Only 0 of 5 archs of 'cifar_mbv3' were found that cost"):
        sample_in_bucket(SPACE, MACS, low=low, high=high, n_archs=5, rng=np.random.default_rng(0))
