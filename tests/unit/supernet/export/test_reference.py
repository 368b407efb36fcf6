from __future__ import annotations

import numpy as np
import pytest

from supernet.export.reference import decode_logits, encode_logits, reference_images


def test_images_are_the_same_for_ever() -> None:
    images = reference_images(0, images=2, resolution=4, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    assert images.shape == (2, 3, 4, 4)
    assert images.dtype == np.float32
    # PCG64 of seed 0, the bytes of its first word from the lowest.
    assert images.ravel()[:8].round().astype(int).tolist() == [95, 130, 194, 217, 207, 235, 15, 163]


def test_images_are_normalised_per_channel() -> None:
    plain = reference_images(1, images=64, resolution=8, mean=(0.0, 0.0), std=(1.0, 1.0))
    normalised = reference_images(1, images=64, resolution=8, mean=(0.5, 0.25), std=(0.5, 2.0))
    np.testing.assert_allclose(normalised[:, 0], (plain[:, 0] - 0.5) / 0.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normalised[:, 1], (plain[:, 1] - 0.25) / 2, rtol=1e-5, atol=1e-6)
    assert plain.min() == 0
    assert plain.max() == 1


def test_logits_survive_as_text(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((4, 10)).astype(np.float32)
    np.testing.assert_array_equal(decode_logits(encode_logits(logits), images=4, classes=10), logits)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no base64!", "base64"),
        (encode_logits(np.zeros((1, 3), np.float32)), "12 bytes"),
        (encode_logits(np.full((2, 3), np.nan, np.float32)), "finite"),
    ],
)
def test_other_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_logits(text, images=2, classes=3)
