"""A run shrunk to seconds that still goes through all its parts: two steps of every phase, on few images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from supernet.data.images import ImageSet
from supernet.data.splits import Splits
from supernet.training.methods.registry import build_method

if TYPE_CHECKING:
    from supernet.spaces.space import SearchSpace
    from supernet.training.config import TrainConfig

STEPS_PER_PHASE = 2
IMAGES_PER_PART = 4
VALIDATION_IMAGES = 48


def shrink_config(config: TrainConfig, space: SearchSpace, *, ranks: int) -> TrainConfig:
    """The same run with one epoch per phase and the smallest batches its processes can share."""
    epochs = len(build_method(config, space).phases())
    return replace(
        config,
        epochs=epochs,
        warmup_epochs=0.0,
        level_epochs=0.0,
        batch_size=IMAGES_PER_PART * config.accumulate * ranks,
        validation_images=min(VALIDATION_IMAGES, config.validation_images),
    )


def shrink_splits(splits: Splits, config: TrainConfig) -> Splits:
    """As many images as a shrunk config takes."""
    train, validation = STEPS_PER_PHASE * config.batch_size, config.validation_images
    return Splits(_first(splits.train, train), _first(splits.validation, validation), None)


def paint_splits(config: TrainConfig, space: SearchSpace) -> Splits:
    """Images of noise, for trying a run without any; labels go round the space's classes."""
    rng = np.random.default_rng(config.seed)
    size = max(space.resolutions)
    names = tuple(f"class {number}" for number in range(space.classes))

    def paint(count: int) -> ImageSet:
        pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return ImageSet(pixels, np.arange(count) % space.classes, names)

    return Splits(paint(STEPS_PER_PHASE * config.batch_size), paint(config.validation_images), None)


def _first(images: ImageSet, count: int) -> ImageSet:
    return images.take(np.arange(min(count, len(images))))
