"""ImageSet: decoded images with their labels, read from parquet files or from one folder per class."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from supernet.errors import InvalidDatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class ImageSet:
    """Images in memory.

    Attributes:
        pixels: `(n, size, size, 3)` uint8, RGB.
        labels: `(n,)` int64, indices into `classes`.
        classes: Names, in label order.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    def take(self, indices: NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order."""
        return ImageSet(self.pixels[indices], self.labels[indices], self.classes)

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of pixels in [0, 1]."""
        # By the histogram: exact, and needs no float copy of the images.
        counts = np.stack([np.bincount(self.pixels[..., c].ravel(), minlength=256) for c in range(3)])
        values = np.arange(256) / 255
        mean = (counts * values).sum(1) / counts.sum(1)
        variance = (counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1)
        return tuple(round(float(m), 6) for m in mean), tuple(round(float(max(v, 1e-8) ** 0.5), 6) for v in variance)


def load_parquet(paths: Sequence[Path], *, size: int) -> ImageSet:
    """Read encoded images from parquet files with an image column (`{bytes, path}`) and an integer `label`.

    Args:
        paths: Files with the same columns, read in order.
        size: Height and width of the decoded images, pixels.

    Raises:
        InvalidDatasetError: A file or an image cannot be read, a column is missing, or there is one class or none.
    """
    import pyarrow.parquet

    pixels: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    names: tuple[str, ...] = ()
    for path in paths:
        try:
            table = pyarrow.parquet.read_table(path)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise InvalidDatasetError(f"'{path}' cannot be read as parquet: {error}") from error
        image_column = next((name for name in ("img", "image") if name in table.column_names), None)
        if image_column is None or "label" not in table.column_names:
            raise InvalidDatasetError(
                f"'{path}' needs the columns 'img' or 'image' and 'label'; it has {table.column_names}."
            )
        names = names or _class_names(table.schema.metadata)
        labels += _labels(table["label"].to_pylist(), path)
        for row, image in enumerate(table[image_column].to_pylist()):
            data = image.get("bytes") if isinstance(image, dict) else image
            pixels.append(_decode(data, size, f"{path}, row {row}"))
    classes = names or tuple(str(label) for label in range(max(labels, default=-1) + 1))
    return _checked(pixels, labels, classes, str(paths[0].parent))


def load_class_folders(folder: Path, *, size: int, classes: tuple[str, ...] = ()) -> ImageSet:
    """Read a folder with one sub-folder per class; images may lie deeper.

    Args:
        folder: Its sub-folders' names are the classes.
        size: Height and width of the decoded images, pixels.
        classes: Names in label order, so that a test folder gets the training folder's labels; by default sorted.

    Raises:
        InvalidDatasetError: An image is broken (named), a class is empty or unknown, or there is one class or none.
    """
    found = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    classes = classes or found
    if strangers := sorted(set(found) - set(classes)):
        raise InvalidDatasetError(f"'{folder}' holds classes the training images lack: {strangers}.")
    pixels: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _image_files(folder / name)
        if not files and name in found:
            raise InvalidDatasetError(f"Class folder '{folder / name}' has no images ({', '.join(IMAGE_SUFFIXES)}).")
        for path in files:
            pixels.append(_decode(path.read_bytes(), size, str(path)))
            labels.append(label)
    return _checked(pixels, labels, classes, str(folder))


def load_images(folder: Path, *, size: int, most: int, rng: np.random.Generator) -> ImageSet:
    """Read images below a folder in random order, labels unknown (all 0): for calibration.

    Args:
        folder: Any depth of sub-folders.
        size: Height and width of the decoded images, pixels.
        most: How many to read at most.
        rng: Draws which, and their order.

    Raises:
        InvalidDatasetError: An image is broken, or there is none.
    """
    files = _image_files(folder)
    if not files:
        raise InvalidDatasetError(f"'{folder}' has no images ({', '.join(IMAGE_SUFFIXES)}).")
    chosen = [files[index] for index in rng.permutation(len(files))[:most]]
    pixels = np.stack([_decode(path.read_bytes(), size, str(path)) for path in chosen])
    return ImageSet(pixels, np.zeros(len(chosen), np.int64), ("unlabelled",))


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _labels(values: list[Any], path: Path) -> list[int]:
    if any(not isinstance(label, int) or label < 0 for label in values):
        raise InvalidDatasetError(f"'label' in '{path}' must hold whole numbers from 0.")
    # Without this limit one stray label, such as an id, would become billions of class names.
    if (largest := max(values, default=0)) >= MAX_CLASSES:
        raise InvalidDatasetError(f"'{path}' has the label {largest}; labels count from 0 and end below {MAX_CLASSES}.")
    return values


def _decode(data: Any, size: int, origin: str) -> NDArray[np.uint8]:
    """RGB pixels `(size, size, 3)`: the shorter side is resized to `size`, the centre is cut out."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise InvalidDatasetError(f"{origin}: this image cannot be decoded ({error}). Replace or remove it.") from error
    if rgb.size != (size, size):
        scale = size / min(rgb.size)
        width, height = (max(size, round(side * scale)) for side in rgb.size)
        left, top = (width - size) // 2, (height - size) // 2
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(rgb, np.uint8)


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """Names stored by the `datasets` library in the schema, if any."""
    try:
        info: Any = json.loads((metadata or {})[b"huggingface"])
        return tuple(info["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _checked(pixels: list[NDArray[np.uint8]], labels: list[int], classes: tuple[str, ...], origin: str) -> ImageSet:
    if not pixels:
        raise InvalidDatasetError(f"'{origin}' holds no images. Expected parquet files or one folder per class.")
    if len(set(labels)) < 2:
        raise InvalidDatasetError(f"'{origin}' holds images of one class only; a classifier needs at least two.")
    if max(labels) >= len(classes):
        raise InvalidDatasetError(f"'{origin}' has the label {max(labels)} but names only {len(classes)} classes.")
    return ImageSet(np.stack(pixels), np.asarray(labels, np.int64), classes)
