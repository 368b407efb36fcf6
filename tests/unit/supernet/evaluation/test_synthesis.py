"""Synthesised images: they come near to what they are made to match, and the same seed gives the same ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.data.batches import Normalisation
from supernet.evaluation.calibration import pixel_batches
from supernet.evaluation.statistics import Statistics, measure_statistics
from supernet.evaluation.synthesis import PatchStatistics, SynthesisSettings, synthesise_images
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.spaces.arch import Arch
from supernet.spaces.space import SearchSpace


def real_batches(resolution: int) -> list[Tensor]:
    """Smooth, and brighter in the first channel."""
    images = torch.randn(256, 3, resolution, resolution, generator=torch.Generator().manual_seed(resolution))
    smooth = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    return list((1.5 * smooth + torch.tensor([0.6, 0.0, -0.3]).view(1, 3, 1, 1)).split(128))


@pytest.fixture
def anchors(supernet: Supernet, space: SearchSpace) -> list[tuple[Arch, Statistics]]:
    archs = [space.largest(), space.smallest()]
    return [(arch, measure_statistics(extract_subnet(supernet, arch), real_batches(arch.resolution))) for arch in archs]


def synthesise(
    supernet: Supernet,
    anchors: list[tuple[Arch, Statistics]],
    normalisation: Normalisation,
    *,
    steps: int,
    seed: int = 0,
) -> NDArray[np.uint8]:
    return synthesise_images(
        supernet,
        anchors,
        PatchStatistics.of(real_batches(12)),
        normalisation=normalisation,
        settings=SynthesisSettings(images=128, steps=steps),
        generator=torch.Generator().manual_seed(seed),
    )


def distance(found: Statistics, real: Statistics) -> float:
    return float(sum(((found[name][0] - real[name][0]) ** 2 / real[name][1]).mean() for name in real))


def test_images_come_nearer_to_the_statistics_of_subnets_that_are_no_anchors(
    supernet: Supernet, space: SearchSpace, normalisation: Normalisation, anchors: list[tuple[Arch, Statistics]]
) -> None:
    before, after = (synthesise(supernet, anchors, normalisation, steps=steps) for steps in (1, 120))
    assert after.shape == (128, 12, 12, 3)
    assert after.dtype == np.uint8
    for arch in (Arch(12, (2,), (3, 5), (2, 1)), Arch(8, (2,), (5, 3), (1, 2))):
        subnet = extract_subnet(supernet, arch)
        real = measure_statistics(subnet, real_batches(arch.resolution))
        first, last = (
            distance(measure_statistics(subnet, pixel_batches(images, normalisation, arch.resolution)), real)
            for images in (before, after)
        )
        assert last < first / 3


def test_patches_come_near_to_those_of_the_data_set(
    supernet: Supernet, normalisation: Normalisation, anchors: list[tuple[Arch, Statistics]]
) -> None:
    images = synthesise(supernet, anchors, normalisation, steps=120)
    found = PatchStatistics.of(pixel_batches(images, normalisation, 12))
    real = PatchStatistics.of(real_batches(12))
    assert (found.mean - real.mean).abs().max() < 0.15
    assert float((found.covariance - real.covariance).norm() / real.covariance.norm()) < 0.3


def test_equal_seeds_give_equal_images_and_the_supernet_stays_as_it_was(
    supernet: Supernet, normalisation: Normalisation, anchors: list[tuple[Arch, Statistics]]
) -> None:
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    first, same, other = (synthesise(supernet, anchors, normalisation, steps=3, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert all(torch.equal(tensor, state[name]) for name, tensor in supernet.state_dict().items())
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_patch_statistics_are_the_moments_of_all_patches() -> None:
    batches = [torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    patches = torch.cat([torch.nn.functional.unfold(batch, 3).transpose(1, 2).flatten(0, 1) for batch in batches])
    found = PatchStatistics.of(batches)
    torch.testing.assert_close(found.mean, patches.mean(0))
    torch.testing.assert_close(found.covariance, patches.T.cov(correction=0))
