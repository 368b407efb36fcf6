"""PSS-Net's pools: whose they are after a resume, when they count as full, and spaces that cannot fill any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from supernet.errors import InvalidBundleError, InvalidConfigError
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import AdditiveCost, blocks_of, macs_cost, params_cost
from supernet.spaces.fixed import space_of_blocks
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.method import Epoch, Phase
from supernet.training.methods.pss_net import PssNet, PssNetSettings

# 16 archs.
SLIM = SearchSpace(
    "slim",
    stages=(
        Stage(BlockKind.CONV, widths=(8, 16, 24, 32), kernel_sizes=(3,), stride=2),
        Stage(BlockKind.CONV, widths=(8, 16, 24, 32), kernel_sizes=(3,)),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(10,), norm=False, bias=True),
    ),
    resolutions=(12,),
)
SETTINGS = PssNetSettings(bins=6, pool_size=10, prior_archs=500, explore=(1e-9, 1e-9))
EPOCH = Epoch(0, Phase("train", 4), 0, 4)


def pss(resources: dict[str, AdditiveCost] | None = None, *, steps: int = 0) -> PssNet:
    method, rng = PssNet(SLIM, 4, SETTINGS, resources=resources or {}), np.random.default_rng(0)
    for step in range(steps):
        passes = method.passes(EPOCH, step, rng)
        method.observe(passes, [1.0, 2.0, 3.0])
    return method


# ---------------------------------------------------------------------- resume


def test_subnets_come_back_into_pools_of_the_same_bins() -> None:
    tables = {"phone": macs_cost(SLIM).scaled(1e-6), "macs": macs_cost(SLIM)}
    method, again = pss(tables, steps=30), pss(tables)
    again.load_state(method.state())
    assert [pool.scores for pool in again.pools] == [pool.scores for pool in method.pools]
    assert any(pool.scores for pool in again.pools)


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({}, "'macs'"),  # the table was forgotten
        ({"board": macs_cost(SLIM).scaled(1e-6)}, "'board'"),
        ({"phone": macs_cost(SLIM).scaled(2e-6)}, "'phone'"),  # measured again
        ({"phone": params_cost(SLIM)}, "'phone'"),
    ],
)
def test_pools_measured_by_something_else_are_refused(resources: dict[str, AdditiveCost], named: str) -> None:
    state = pss({"phone": macs_cost(SLIM).scaled(1e-6)}, steps=10).state()
    other = pss(resources)
    with pytest.raises(InvalidBundleError, match="Resume with the latency tables the run began with") as caught:
        other.load_state(state)
    stored, wanted = str(caught.value).split("that of this run")
    assert "Pool 1 of the checkpoint is of 'phone' from" in stored
    assert f"of {named} from" in wanted
    assert not any(pool.scores for pool in other.pools)


def test_a_missing_or_an_additional_table_is_refused() -> None:
    phone = {"phone": macs_cost(SLIM).scaled(1e-6)}
    both = phone | {"board": macs_cost(SLIM).scaled(3e-6)}
    number = len(pss(phone).pools) + 1
    for began, resumes, message in (
        (both, phone, f"Pool {number} of the checkpoint is of 'board' from .*, that of this run missing"),
        (phone, both, f"Pool {number} of the checkpoint is missing, that of this run of 'board' from"),
    ):
        with pytest.raises(InvalidBundleError, match=message):
            pss(resumes).load_state(pss(began).state())


@pytest.mark.parametrize("broken", ["without bins", "nothing"])
def test_pools_that_do_not_say_what_they_are_measured_by_are_refused(broken: str) -> None:
    method = pss(steps=10)
    state: dict[str, Any] = {"pools": [pool["subnets"] for pool in method.state()["pools"]]}
    with pytest.raises(InvalidBundleError, match=r"an earlier version wrote it\. Start anew in another folder"):
        pss().load_state(state if broken == "without bins" else {})


# ---------------------------------------------------------------------- small spaces


def test_a_bin_with_fewer_archs_than_a_pool_holds_is_exploited() -> None:
    method = pss()
    pool = min(method.pools, key=lambda pool: len(np.unique(pool.known, axis=0)))
    archs = list(dict.fromkeys(SLIM.from_rows(pool.known)))
    assert 1 < len(archs) < SETTINGS.pool_size
    for score, arch in enumerate(archs):
        pool.record(arch, 1000.0 * score, memory=0.9, size=SETTINGS.pool_size)
    # With these scores, exploiting always takes the best.
    rng = np.random.default_rng(0)
    middles = [passes[1].arch for passes in (method.passes(EPOCH, 0, rng) for _ in range(200)) if method._pool is pool]
    assert len(middles) > 10
    assert set(middles) == {archs[-1]}


def test_a_pool_is_not_full_before_its_size_where_its_bin_has_more_archs() -> None:
    method = PssNet(SLIM, 4, replace(SETTINGS, bins=3, pool_size=2))
    (pool,) = method.pools
    first, second = SLIM.from_rows(np.unique(pool.known, axis=0)[:2])
    pool.record(first, -1.0, memory=0.9, size=2)
    assert not pool.is_full(2)
    pool.record(second, -1.0, memory=0.9, size=2)
    assert pool.is_full(2)


def test_a_space_of_one_arch_is_said_to_be_too_small_for_pools() -> None:
    alone = space_of_blocks("alone", blocks_of(SLIM, SLIM.smallest()))
    for bins in (3, 20):
        with pytest.raises(InvalidConfigError, match=f"'alone' has too few archs for pools, 1: none .* of {bins} bins"):
            _ = PssNet(alone, 4, replace(SETTINGS, bins=bins)).pools


def test_more_bins_find_archs_near_the_ends() -> None:
    ends = replace(SLIM, stages=(replace(SLIM.stages[0], widths=(8, 12, 128)), *SLIM.stages[2:]))
    with pytest.raises(InvalidConfigError, match=r"raise 'pss_net\.bins'"):
        _ = PssNet(ends, 4, SETTINGS).pools
    assert len(PssNet(ends, 4, replace(SETTINGS, bins=100)).pools) == 1
