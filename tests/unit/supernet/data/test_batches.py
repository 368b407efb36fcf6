"""Batches: normalisation, resizing, augmentation, passes over the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.data.batches import (
    Normalisation,
    crop_and_flip,
    evaluation_batches,
    image_batches,
    resize_batch,
    training_batches,
)
from supernet.data.images import ImageSet

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def numbered_images(n: int, size: int = 4) -> ImageSet:
    """Each image has one value of its own, its label the same."""
    pixels = np.broadcast_to(np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None], (n, size, size, 3)).copy()
    return ImageSet(pixels, np.arange(1, n + 1), tuple(map(str, range(n + 1))))


# ---------------------------------------------------------------------- normalisation


def test_normalised_pixels_have_mean_0_and_deviation_1(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (20, 6, 6, 3)).astype(np.uint8) // np.array([1, 2, 4], np.uint8)
    images = ImageSet(pixels, np.zeros(20, np.int64), ("a",))
    mean, std = images.normalisation()
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(std, (pixels / 255).std((0, 1, 2)), atol=1e-6)
    x = Normalisation(mean, std).apply(pixels)
    assert (x.shape, x.dtype) == ((20, 3, 6, 6), torch.float32)
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = (pixels.transpose(0, 3, 1, 2) / 255 - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)


def test_a_constant_channel_has_a_deviation_to_divide_by() -> None:
    images = ImageSet(np.full((2, 4, 4, 3), 7, np.uint8), np.zeros(2, np.int64), ("a",))
    mean, std = images.normalisation()
    assert np.isfinite(Normalisation(mean, std).apply(images.pixels).numpy()).all()
    assert min(std) > 0


# ---------------------------------------------------------------------- resizing


@pytest.mark.parametrize("resolution", [12, 24, 31, 40])
def test_resizing_is_close_to_pillow(rng: np.random.Generator, resolution: int) -> None:
    pixels = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    resized = resize_batch(PLAIN.apply(pixels), resolution) * 255
    assert resized.shape == (3, 3, resolution, resolution)
    for image, ours in zip(pixels, resized, strict=True):
        pillow = Image.fromarray(image).resize((resolution, resolution), Image.Resampling.BILINEAR)
        # Pillow rounds to whole levels twice, once per axis.
        assert np.abs(ours.numpy().transpose(1, 2, 0) - np.asarray(pillow, np.float32)).max() <= 1.01


def test_images_of_the_right_size_are_not_touched(rng: np.random.Generator) -> None:
    x = PLAIN.apply(rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8))
    assert resize_batch(x, 8) is x


# ---------------------------------------------------------------------- augmentation


def test_crops_are_shifted_windows_some_of_them_mirrored(rng: np.random.Generator) -> None:
    size, pad = 16, 2
    pixels = rng.integers(1, 256, (200, size, size, 3)).astype(np.uint8)
    original = pixels.copy()
    out = crop_and_flip(pixels, rng)
    np.testing.assert_array_equal(pixels, original)
    assert (out.shape, out.dtype) == (pixels.shape, np.uint8)
    padded = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    seen: set[tuple[int, int, bool]] = set()
    for image, source in zip(out, padded, strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            for mirrored in (False, True)
            if np.array_equal(image[:, ::-1] if mirrored else image, source[top : top + size, left : left + size])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(2 * pad + 1))
    assert {mirrored for _, _, mirrored in seen} == {False, True}


def test_crops_show_nothing_but_the_image(rng: np.random.Generator) -> None:
    bright = rng.integers(200, 256, (50, 32, 32, 3)).astype(np.uint8)
    out = crop_and_flip(bright, rng)
    assert out.min() >= 200
    assert out.mean() == pytest.approx(bright.mean(), abs=1)


def test_small_images_are_only_mirrored(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (8, 7, 7, 3)).astype(np.uint8)
    for image, source in zip(crop_and_flip(pixels, rng), pixels, strict=True):
        assert np.array_equal(image, source) or np.array_equal(image, source[:, ::-1])


def test_augmentation_follows_from_the_generator(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (16, 16, 16, 3)).astype(np.uint8)
    first, second, other = (crop_and_flip(pixels, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


# ---------------------------------------------------------------------- passes


@pytest.mark.parametrize(("n", "batch_size", "n_batches"), [(10, 3, 3), (9, 3, 3), (3, 3, 1), (2, 3, 0)])
def test_a_training_pass_shows_each_image_at_most_once(n: int, batch_size: int, n_batches: int) -> None:
    batches = list(training_batches(numbered_images(n), PLAIN, batch_size=batch_size, rng=np.random.default_rng(0)))
    assert len(batches) == n_batches
    seen = [int(label) for _, labels in batches for label in labels]
    assert len(seen) == len(set(seen)) == n_batches * batch_size
    for x, labels in batches:
        assert (x.shape, labels.dtype) == ((batch_size, 3, 4, 4), torch.int64)
        np.testing.assert_allclose(x.amax((1, 2, 3)).numpy() * 255, labels.numpy(), rtol=1e-6)


def test_training_passes_differ_between_and_repeat_within_seeds() -> None:
    def order(seed: int) -> list[int]:
        batches = training_batches(numbered_images(12), PLAIN, batch_size=4, rng=np.random.default_rng(seed))
        return [int(label) for _, labels in batches for label in labels]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_an_evaluation_pass_shows_every_image_once_in_order() -> None:
    images = numbered_images(7)
    batches = list(evaluation_batches(images, PLAIN, resolution=6, batch_size=3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == images.labels.tolist()
    for x, labels in batches:
        assert x.shape == (len(labels), 3, 6, 6)
        np.testing.assert_allclose(x.mean((1, 2, 3)).numpy() * 255, labels.numpy(), rtol=1e-5)


@pytest.mark.parametrize(("count", "sizes"), [(250, [250]), (251, [250]), (252, [250, 2]), (1, [1])])
def test_no_batch_for_statistics_is_a_single_image_left_over(count: int, sizes: list[int]) -> None:
    pixels = np.zeros((count, 4, 4, 3), np.uint8)
    images = ImageSet(pixels, np.zeros(count, np.int64), ("a",))
    assert [len(batch) for batch in image_batches(images, PLAIN, resolution=4)] == sizes
