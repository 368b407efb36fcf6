"""Noise images: the same everywhere for the same seed, where any images will do."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from supernet.data.batches import Normalisation

BATCH_SIZE = 128
BATCHES = 4


def noise_batches(normalisation: Normalisation, resolution: int, *, seed: int) -> Iterator[Tensor]:
    """Gaussian images with the data set's mean and spread per channel, rounded to whole pixels.

    Yields:
        `(BATCH_SIZE, 3, resolution, resolution)` normalised; the same for the same seed and resolution everywhere.
    """
    shape = (BATCH_SIZE, resolution, resolution, len(normalisation.mean))
    generator = np.random.PCG64([seed, resolution])
    for _ in range(BATCHES):
        # The sum of a word's eight bytes is close to Gaussian, and numpy promises the raw words for all its versions.
        words = generator.random_raw(int(np.prod(shape))).astype("<u8")
        sums = words.view(np.uint8).reshape(*shape, 8).sum(-1, dtype=np.int64)
        deviates = (sums - 8 * 127.5) / sqrt(8 * (256**2 - 1) / 12)
        values = np.asarray(normalisation.mean) + np.asarray(normalisation.std) * deviates
        yield normalisation.apply(np.clip(np.rint(255 * values), 0, 255).astype(np.uint8))
