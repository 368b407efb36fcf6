"""BN recalibration of extracted subnets against the reference's `set_running_statistics`."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from benchmarks.reference_differences import FAMILIES, Comparison, Pair, random_images
from supernet.evaluation.statistics import recalibrate_bn
from supernet.network.extract import extract_subnet

# Relative to the spread of a layer's activations; float32 in another order of sums comes to 1e-5.
TOLERANCE = 1e-4

every_family = pytest.mark.parametrize("name", FAMILIES)


def batches_for(pair: Pair) -> list[Tensor]:
    """Of different sizes, since averages are weighted by them."""
    generator = torch.Generator().manual_seed(5)
    return [random_images(size, pair.resolution, generator) for size in (3, 2)]


def norms_of(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def distance(ours: nn.Module, theirs: nn.Module) -> float:
    """Largest difference of means and variances, relative to the spread in their layer."""
    distances = []
    for our, their in zip(norms_of(ours), norms_of(theirs), strict=True):
        variance = their.running_var.mean()
        distances.append((our.running_mean - their.running_mean).abs().max() / variance.sqrt())
        distances.append((our.running_var - their.running_var).abs().max() / variance)
    return float(max(distances))


@every_family
def test_recalibrated_statistics_are_the_references(
    name: str,
    pair_of: Callable[[str], Pair],
    comparison_of: Callable[[str], Comparison],
    reference: Callable[[str], ModuleType],
) -> None:
    pair, compared, batches = pair_of(name), comparison_of(name), batches_for(pair_of(name))
    set_running_statistics = reference("imagenet_classification.elastic_nn.utils").set_running_statistics
    for index in (0, 1, -2):
        pair.network.set_active_subnet(**compared.choices[index])
        theirs = pair.network.get_active_subnet().eval()
        mixed = pair.network.get_active_subnet()
        # It drops the axis of a layer of one channel; none of these networks has one.
        set_running_statistics(theirs, [(images, None) for images in batches])
        ours = extract_subnet(pair.supernet, compared.archs[index])
        assert distance(ours, mixed) == 0
        recalibrate_bn(ours, batches)
        assert distance(ours, theirs) < TOLERANCE
        assert distance(mixed, theirs) > 0.1


def test_other_averages_would_be_seen(pair_of: Callable[[str], Pair]) -> None:
    """Torch counts every batch alike, and its variances are unbiased."""
    pair = pair_of("ofa_mbv3_w1.0")
    batches = batches_for(pair)
    ours = extract_subnet(pair.supernet, pair.space.smallest())
    torchs = extract_subnet(pair.supernet, pair.space.smallest())
    recalibrate_bn(ours, batches)
    update_bn(batches, torchs)
    assert distance(torchs, ours) > 100 * TOLERANCE
