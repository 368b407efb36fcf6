"""Reference images that every machine makes again from a seed, and their logits as text in a manifest.

numpy promises the raw stream of a bit generator for all versions, the distributions of a `Generator` it does not.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray


def reference_images(
    seed: int, *, images: int, resolution: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """Noise with every 8-bit value equally likely, normalised as a deployment's images are.

    Args:
        seed: Not negative.
        images: How many.
        resolution: Height and width, pixels.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.

    Returns:
        `(images, channels, resolution, resolution)`; the same values on every machine.
    """
    shape = (images, len(mean), resolution, resolution)
    count = int(np.prod(shape))
    words = np.random.PCG64(seed).random_raw((count + 7) // 8).astype("<u8")
    pixels = words.view(np.uint8)[:count].reshape(shape) / 255.0
    normalised: NDArray[np.float32] = (
        (pixels - np.array(mean).reshape(-1, 1, 1)) / np.array(std).reshape(-1, 1, 1)
    ).astype(np.float32)
    return normalised


def encode_logits(logits: NDArray[np.float32]) -> str:
    """Base64 of the little-endian float32 values, row by row."""
    return base64.b64encode(np.ascontiguousarray(logits, "<f4").tobytes()).decode("ascii")


def decode_logits(text: str, *, images: int, classes: int) -> NDArray[np.float32]:
    """Read what `encode_logits` wrote.

    Returns:
        `(images, classes)`.

    Raises:
        ValueError: The text is no base64, or holds another number of values or one that is not finite.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the logits are no base64: {error}") from error
    if len(content) != 4 * images * classes:
        raise ValueError(
            f"the logits have {len(content)} bytes, {images} × {classes} float32 take {4 * images * classes}"
        )
    logits: NDArray[np.float32] = np.frombuffer(content, "<f4").astype(np.float32).reshape(images, classes)
    if not np.isfinite(logits).all():
        raise ValueError("the logits hold a value that is not finite")
    return logits
