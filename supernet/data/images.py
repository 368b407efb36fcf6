"""ImageSet: decoded images with their labels, read from parquet files or from one folder per class."""

from __future__ import annotations

import io
import json
import struct
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from supernet.errors import InvalidDatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Told by content, not by suffix. Others stay closed: for EPS, for example, Pillow would start a program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_CLASSES = 100_000
# How to turn an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageSet:
    """Images in memory.

    Attributes:
        pixels: `(n, size, size, 3)` uint8, RGB.
        labels: `(n,)` int64, indices into `classes`.
        classes: Names, in label order.
        skipped: Where the broken images lie that were left out: the file, of parquet with the row.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

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


def load_parquet(paths: Sequence[Path], *, size: int, skip_broken: bool = False) -> ImageSet:
    """Read encoded images from parquet files with an image column (`{bytes, path}`) and an integer `label`.

    Args:
        paths: Files with the same columns, read in order.
        size: Height and width of the decoded images, pixels.
        skip_broken: Leave out images that cannot be decoded, in place of an error.

    Raises:
        InvalidDatasetError: A file or an image cannot be read, a column is missing, files name their classes
            differently, there is one class or none, or all images of a class are broken.
    """
    import pyarrow
    import pyarrow.parquet

    gathered = _Gathered(skip_broken)
    names: tuple[str, ...] = ()
    for path in paths:
        try:
            table = pyarrow.parquet.read_table(path)
            columns = table.column_names
            image_column = next((name for name in ("img", "image") if name in columns), None)
            if image_column is None or "label" not in columns:
                raise InvalidDatasetError(f"'{path}' needs the columns 'img' or 'image' and 'label'; it has {columns}.")
            kind = table.schema.field("label").type
            found_labels = _labels(table["label"].to_pylist() if _is_whole(kind) else [str(kind)], path)
            images = table[image_column].to_pylist()
        # Damaged files raise decoding errors too.
        except (OSError, pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
            raise InvalidDatasetError(f"'{path}' cannot be read as parquet: {error}") from error
        found_names = _class_names(table.schema.metadata)
        if names and found_names and names != found_names:
            raise InvalidDatasetError(
                f"'{path}' names its classes {list(found_names[:5])} …, the files before {list(names[:5])} …: label "
                "all files alike."
            )
        names = names or found_names
        for row, (label, image) in enumerate(zip(found_labels, images, strict=True)):
            data = image.get("bytes") if isinstance(image, dict) else image
            place = f"{path}, row {row}"
            gathered.add(label, place, partial(_decode, data, size, place))
    classes = names or tuple(str(label) for label in range(max(gathered.found_labels, default=-1) + 1))
    return gathered.checked(classes, str(paths[0].parent))


def load_class_folders(
    folder: Path, *, size: int, classes: tuple[str, ...] = (), skip_broken: bool = False
) -> ImageSet:
    """Read a folder with one sub-folder per class; images may lie deeper.

    Args:
        folder: Its sub-folders' names are the classes.
        size: Height and width of the decoded images, pixels.
        classes: Names in label order, so that a test folder gets the training folder's labels; by default sorted.
        skip_broken: Leave out images that cannot be read or decoded, in place of an error.

    Raises:
        InvalidDatasetError: There is no such folder, an image is broken (named), a class is empty or unknown, there
            is one class or none, or all images of a class are broken.
    """
    _check_folder(folder)
    found = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    classes = classes or found
    if strangers := sorted(set(found) - set(classes)):
        raise InvalidDatasetError(f"'{folder}' holds classes the training images lack: {strangers}.")
    gathered = _Gathered(skip_broken)
    for label, name in enumerate(classes):
        files = _image_files(folder / name)
        if not files and name in found:
            raise InvalidDatasetError(f"Class folder '{folder / name}' has no images ({', '.join(IMAGE_SUFFIXES)}).")
        for path in files:
            gathered.add(label, str(path), partial(_decode_file, path, size))
    return gathered.checked(classes, str(folder))


def count_images(source: Path | Sequence[Path]) -> int:
    """Number of images of a folder, or rows of parquet files, without decoding any: broken ones count.

    Raises:
        InvalidDatasetError: A file cannot be read as parquet.
    """
    if isinstance(source, Path):
        return len(_image_files(source))
    import pyarrow
    import pyarrow.parquet

    count = 0
    for path in source:
        try:
            count += pyarrow.parquet.read_metadata(path).num_rows
        except (OSError, pyarrow.ArrowException) as error:
            raise InvalidDatasetError(f"'{path}' cannot be read as parquet: {error}") from error
    return count


def load_images(folder: Path, *, size: int, most: int, rng: np.random.Generator) -> ImageSet:
    """Read images below a folder in random order, labels unknown (all 0): for calibration.

    Args:
        folder: Any depth of sub-folders.
        size: Height and width of the decoded images, pixels.
        most: How many to read at most.
        rng: Draws which, and their order.

    Raises:
        InvalidDatasetError: There is no such folder, an image is broken, or there is none.
    """
    _check_folder(folder)
    files = _image_files(folder)
    if not files:
        raise InvalidDatasetError(f"'{folder}' has no images ({', '.join(IMAGE_SUFFIXES)}).")
    chosen = [files[index] for index in rng.permutation(len(files))[:most]]
    pixels = np.stack([_decode_file(path, size) for path in chosen])
    return ImageSet(pixels, np.zeros(len(chosen), np.int64), ("unlabelled",))


@dataclass
class _Gathered:
    """Images as they are read. With `skip_broken`, broken ones are remembered: label, place and message."""

    skip_broken: bool
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    broken: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def found_labels(self) -> list[int]:
        """Labels of all images, the broken ones last."""
        return self.labels + [label for label, _, _ in self.broken]

    def add(self, label: int, place: str, decode: Callable[[], NDArray[np.uint8]]) -> None:
        try:
            self.pixels.append(decode())
        except InvalidDatasetError as error:
            if not self.skip_broken:
                raise
            self.broken.append((label, place, str(error)))
        else:
            self.labels.append(label)

    def checked(self, classes: tuple[str, ...], origin: str) -> ImageSet:
        labels = self.found_labels
        if not labels:
            raise InvalidDatasetError(f"'{origin}' holds no images. Expected parquet files or one folder per class.")
        if len(set(labels)) < 2:
            raise InvalidDatasetError(f"'{origin}' holds images of one class only; a classifier needs at least two.")
        if max(labels) >= len(classes):
            raise InvalidDatasetError(f"'{origin}' has the label {max(labels)} but names only {len(classes)} classes.")
        if unprintable := [name for name in classes if not name or not name.isprintable()]:
            raise InvalidDatasetError(
                f"'{origin}' names a class {unprintable[0]!r}; names of classes are printable text."
            )
        kept = set(self.labels)
        for label, _, message in self.broken:
            if label not in kept:
                whose = f"images of the class '{classes[label]}'" if kept else "images"
                raise InvalidDatasetError(f"'{origin}': all {whose} are broken. The first: {message}")
        skipped = tuple(place for _, place, _ in self.broken)
        return ImageSet(np.stack(self.pixels), np.asarray(self.labels, np.int64), classes, skipped)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InvalidDatasetError(f"'{folder}' {what}; expected a folder of images.")


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _is_whole(kind: Any) -> bool:
    """Whether a column of this pyarrow type holds whole numbers; `null` is left for the check of values."""
    from pyarrow import types

    values = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_integer(values) or types.is_boolean(values) or types.is_null(values))


def _labels(values: list[Any], path: Path) -> list[int]:
    if any(not isinstance(label, int) or label < 0 for label in values):
        raise InvalidDatasetError(f"'label' in '{path}' must hold whole numbers from 0.")
    # Without this limit one stray label, such as an id, would become billions of class names.
    if (largest := max(values, default=0)) >= MAX_CLASSES:
        raise InvalidDatasetError(f"'{path}' has the label {largest}; labels count from 0 and end below {MAX_CLASSES}.")
    return values


def _decode(data: Any, size: int, origin: str) -> NDArray[np.uint8]:
    """RGB pixels `(size, size, 3)`: the shorter side is resized to `size`, the centre is cut out."""
    if not data or not isinstance(data, bytes):
        given = "no bytes" if not data else f"'{type(data).__name__}' and no bytes"
        raise InvalidDatasetError(f"{origin}: this image cannot be decoded (it holds {given}). Replace or remove it.")
    try:
        # Pillow's warnings of damaged metadata name no file, and the pixels may well be sound.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            rgb = _upright(_rgb(image), image)
    except (
        *(OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, EOFError, struct.error),
        *(NotImplementedError, MemoryError, Image.DecompressionBombError),
    ) as error:
        raise InvalidDatasetError(
            f"{origin}: this image cannot be decoded ({_reason(error)}). Replace or remove it."
        ) from error
    if rgb.size != (size, size):
        # Cut first: the whole of an image of one row would be resized to billions of pixels.
        width, height = rgb.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(rgb, np.uint8)


def _decode_file(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidDatasetError(f"{path}: this image cannot be read ({error.strerror}).") from error
    return _decode(data, size, str(path))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits per pixel, mode {image.mode}: save it with 8 or 16")
    if image.mode.startswith("I;16"):
        # Pillow would cut values off at 255. It reads 16-bit colours by their high bytes, so grey is read alike.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """The pixels turned as the image's EXIF data say; damaged EXIF data say nothing."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error):
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


def _reason(error: Exception) -> str:
    """Without the address of the buffer that Pillow's own message shows."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """Names stored by the `datasets` library in the schema, if any."""
    try:
        info: Any = json.loads((metadata or {})[b"huggingface"])
        names = info["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
