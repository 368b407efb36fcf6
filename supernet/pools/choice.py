"""The final choice per pool: of the subnets training liked best, the one that is best with statistics of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from supernet.data.batches import image_batches
from supernet.evaluation.population import evaluate_arch
from supernet.evaluation.statistics import apply_statistics, measure_statistics
from supernet.pools.storage import PoolChoice
from supernet.spaces.norms import norm_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from supernet.data.batches import Normalisation
    from supernet.data.images import ImageSet
    from supernet.evaluation.accuracy import AccuracyResult
    from supernet.evaluation.statistics import Statistics
    from supernet.network.elastic_net import Supernet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace
    from supernet.training.methods.pss_net import Pool

CANDIDATES = 5


def choose_pools(
    supernet: Supernet,
    pools: Sequence[Pool],
    *,
    recalibration: ImageSet,
    validation: ImageSet,
    normalisation: Normalisation,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[PoolChoice]:
    """Recalibrate and evaluate the best subnets of every pool, and keep the most accurate one of each.

    Args:
        supernet: Trained; stays as it is.
        pools: As training left them; those without a subnet are left out.
        recalibration: Images that give the BN statistics.
        validation: Images that judge. An accuracy that was the highest of several on them is a little too high.
        normalisation: Of both.
        report: Called with the number of pools done and in all.

    Returns:
        One choice per pool, in order; of equal subnets the one training scored higher.

    Source: Chen et al. 2021 (arXiv 2109.05432): the best of the five subnets with the highest scores.
    """
    # Pools of several resources hold the same archs.
    measured: dict[Arch, Statistics] = {}
    results: dict[Arch, AccuracyResult] = {}

    def recalibrate(subnet: nn.Module, arch: Arch) -> None:
        batches = image_batches(recalibration, normalisation, resolution=arch.resolution)
        measured[arch] = measure_statistics(subnet, batches)
        apply_statistics(subnet, measured[arch])

    def correct(arch: Arch) -> int:
        if arch not in results:
            results[arch] = evaluate_arch(
                supernet, arch, recalibrate=recalibrate, images=validation, normalisation=normalisation
            )
        return results[arch].correct

    choices = []
    filled = [pool for pool in pools if pool.scores]
    for done, pool in enumerate(filled, start=1):
        arch = max(pool.best(CANDIDATES), key=correct)
        result, statistics = results[arch], measured[arch].values()
        means, variances = (torch.cat(kind).cpu().numpy() for kind in zip(*statistics, strict=True))
        choices.append(
            PoolChoice(
                pool.resource,
                pool.low,
                pool.high,
                arch,
                result.top1,
                result.total,
                statistics=np.stack([means, variances]),
            )
        )
        report(done, len(filled))
    return choices


def statistics_of(space: SearchSpace, choice: PoolChoice) -> Statistics:
    """The BN statistics of a choice by the layers of its extracted subnet."""
    layers = norm_layers(space, choice.arch)
    channels = [found.layer.out_chs for found in layers]
    means, variances = (torch.split(torch.from_numpy(flat), channels) for flat in choice.statistics)
    return {found.name: pair for found, pair in zip(layers, zip(means, variances, strict=True), strict=True)}
