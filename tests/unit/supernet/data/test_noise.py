"""Noise images: reproducible, whole pixels, independent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from supernet.data.batches import Normalisation
from supernet.data.noise import BATCH_SIZE, BATCHES, noise_batches


@pytest.fixture
def normalisation() -> Normalisation:
    return Normalisation((0.5, 0.45, 0.4), (0.2, 0.2, 0.25))


def test_noise_is_the_same_for_the_same_seed_and_resolution_only(normalisation: Normalisation) -> None:
    def noise(resolution: int, seed: int) -> Tensor:
        return torch.cat(list(noise_batches(normalisation, resolution, seed=seed)))

    assert torch.equal(noise(8, 1), noise(8, 1))
    assert not torch.equal(noise(8, 1), noise(8, 2))
    assert not torch.equal(noise(8, 1)[:, :, :4, :4], noise(12, 1)[:, :, :4, :4])


def test_noise_stays_what_it_was(normalisation: Normalisation) -> None:
    """Parity in a manifest was measured on these images."""
    first = next(iter(noise_batches(normalisation, 8, seed=1)))
    pixels = np.rint(255 * (first[0, :, 0, :4].double().numpy() * [[0.2], [0.2], [0.25]] + [[0.5], [0.45], [0.4]]))
    assert pixels.tolist() == GOLDEN


GOLDEN = [[201, 28, 92, 175], [206, 197, 146, 106], [28, 92, 97, 146]]


def test_noise_has_whole_8_bit_values_and_the_spread_of_the_data_set(normalisation: Normalisation) -> None:
    batches = list(noise_batches(normalisation, 12, seed=4))
    images = torch.cat(batches)
    assert images.shape == (BATCHES * BATCH_SIZE, 3, 12, 12)
    assert images.dtype == torch.float32
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (normalisation.mean, normalisation.std))
    values = 255 * (images * std + mean)
    assert (values - values.round()).abs().max() < 1e-3
    assert values.min() > -0.5
    assert values.max() < 255.5
    # 74,000 numbers per channel: a standard error of 0.004. Values cut off at 0 and 255 narrow the spread a little.
    assert images.mean((0, 2, 3)).abs().max() < 0.03
    assert (images.std((0, 2, 3)) - 1).abs().max() < 0.08


def test_noise_of_different_pixels_channels_and_images_is_independent(normalisation: Normalisation) -> None:
    images = torch.cat(list(noise_batches(normalisation, 12, seed=4))).double()
    for other in (images.roll(1, 3), images.roll(1, 2), images.roll(1, 1), images.roll(1, 0)):
        # 220,000 products: six standard errors.
        assert abs(float((images * other).mean())) < 0.013
