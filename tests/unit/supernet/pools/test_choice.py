"""Of a pool's five best subnets the one that real images judge best is chosen, with the statistics it then had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from supernet.data.batches import Normalisation, evaluation_batches, image_batches
from supernet.data.images import ImageSet
from supernet.evaluation.accuracy import AccuracyResult, evaluate_accuracy
from supernet.evaluation.statistics import measure_statistics, recalibrate_bn
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.pools.choice import CANDIDATES, choose_pools
from supernet.pools.storage import PoolChoice
from supernet.spaces.arch import Arch
from supernet.spaces.space import SearchSpace
from supernet.training.methods.pss_net import Pool

NORMALISATION = Normalisation((0.5, 0.45, 0.4), (0.2, 0.2, 0.25))


def draw_images(n: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 12, 12, 3), dtype=np.uint8)
    return ImageSet(pixels, rng.integers(0, 4, n), ("a", "b", "c", "d"))


RECALIBRATION, VALIDATION = draw_images(40, 1), draw_images(120, 2)


def draw_pool(space: SearchSpace, scores: list[float], *, resource: str = "macs", seed: int = 0) -> Pool:
    rows = np.unique(space.sample_rows(np.random.default_rng(seed), 50), axis=0)[: len(scores)]
    return Pool(resource, 1.0, 2.0, rows, dict(zip(space.from_rows(rows), scores, strict=True)))


def choose(supernet: Supernet, *pools: Pool, **options: Any) -> list[PoolChoice]:
    return choose_pools(
        supernet, pools, recalibration=RECALIBRATION, validation=VALIDATION, normalisation=NORMALISATION, **options
    )


def recalibrated_accuracy(supernet: Supernet, arch: Arch) -> AccuracyResult:
    subnet = extract_subnet(supernet, arch)
    recalibrate_bn(subnet, image_batches(RECALIBRATION, NORMALISATION, resolution=arch.resolution))
    return evaluate_accuracy(
        subnet, evaluation_batches(VALIDATION, NORMALISATION, resolution=arch.resolution, batch_size=50)
    )


def test_the_choice_is_the_most_accurate_of_the_five_best_scores(supernet: Supernet, space: SearchSpace) -> None:
    drawn = draw_pool(space, [0.0] * 9).scores
    results = {arch: recalibrated_accuracy(supernet, arch) for arch in drawn}
    first, second, *others = sorted(results, key=lambda arch: results[arch].correct, reverse=True)
    assert results[first].correct > results[second].correct > results[others[0]].correct
    # Training liked the best one too little and the second best neither first nor last of five.
    ranked = [*others[: CANDIDATES - 2], second, others[-1], first]
    pool = Pool("macs", 1.0, 2.0, space.to_rows(ranked), {arch: -float(rank) for rank, arch in enumerate(ranked)})

    (choice,) = choose(supernet, pool)
    assert choice.arch == second
    assert (choice.top1, choice.images) == (results[second].top1, len(VALIDATION))
    assert (choice.resource, choice.low, choice.high) == ("macs", 1.0, 2.0)


def test_the_statistics_are_those_of_the_chosen_subnet(supernet: Supernet, space: SearchSpace) -> None:
    (choice,) = choose(supernet, draw_pool(space, [-1.0, -2.0]))
    batches = image_batches(RECALIBRATION, NORMALISATION, resolution=choice.arch.resolution)
    measured = measure_statistics(extract_subnet(supernet, choice.arch), batches).values()
    assert choice.statistics.dtype == np.float32
    np.testing.assert_array_equal(choice.statistics[0], torch.cat([mean for mean, _ in measured]))
    np.testing.assert_array_equal(choice.statistics[1], torch.cat([variance for _, variance in measured]))


def test_the_supernet_stays_as_it_is(supernet: Supernet, space: SearchSpace) -> None:
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    choose(supernet, draw_pool(space, [-1.0, -2.0]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_pools_keep_their_order_and_empty_ones_are_left_out(supernet: Supernet, space: SearchSpace) -> None:
    pools = [draw_pool(space, [-1.0], resource=name) for name in ("slow", "fast")]
    seen: list[tuple[int, int]] = []
    chosen = choose(
        supernet, pools[0], draw_pool(space, []), pools[1], report=lambda done, total: seen.append((done, total))
    )
    assert [choice.resource for choice in chosen] == ["slow", "fast"]
    assert seen == [(1, 2), (2, 2)]
    assert choose(supernet) == []


def test_a_subnet_in_several_pools_is_evaluated_once(
    supernet: Supernet, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[Arch] = []

    def extract(supernet: Supernet, arch: Arch) -> Any:
        evaluated.append(arch)
        return extract_subnet(supernet, arch)

    monkeypatch.setattr("supernet.evaluation.population.extract_subnet", extract)
    pools = [draw_pool(space, [-1.0, -2.0, -3.0], resource=name) for name in ("macs", "phone")]
    first, second = choose(supernet, *pools)
    assert (first.arch, first.top1) == (second.arch, second.top1)
    assert len(evaluated) == 3
