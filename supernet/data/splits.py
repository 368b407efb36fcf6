"""Splits: what a supernet learns from, what it is judged by while we choose, and what published numbers come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from supernet.data.images import ImageSet, load_class_folders, load_parquet
from supernet.errors import InvalidDatasetError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Splits:
    """Training, validation and, where the source has one, test images; no image is in two of them.

    Attributes:
        skipped: Where the broken images of all three lie that were left out: the file, of parquet with the row.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet | None
    skipped: tuple[str, ...] = ()


def load_splits(path: Path, *, size: int, validation_images: int, seed: int, skip_broken: bool = False) -> Splits:
    """Read a data set: a folder of parquet files, `train/` with `val/` or `test/`, or one folder per class.

    Parquet files are told apart by `train`, `val` or `test` at the start of their names. Without validation images
    of its own, a source gives up some of its training images, drawn with `seed`.

    Args:
        path: The folder, or one parquet file of training images.
        size: Height and width images are decoded to, pixels: the largest resolution of the space.
        validation_images: How many to hold out of training; ignored where the source brings them.
        seed: Of the draw.
        skip_broken: Leave out broken images and name them in `Splits.skipped`, in place of an error.

    Raises:
        InvalidDatasetError: Nothing usable at `path`, a broken image (with `skip_broken`, a class of them), or fewer
            than twice `validation_images` to hold out from.
    """
    if not path.exists():
        raise InvalidDatasetError(f"No data set at '{path}': there is no such file or folder.")
    load = _load_parquet if _parquet_files(path) else _load_folders
    train, validation, test = load(path, size, skip_broken=skip_broken)
    skipped = tuple(place for images in (train, validation, test) if images for place in images.skipped)
    if validation is not None:
        return Splits(train, validation, test, skipped)
    if not 0 < validation_images <= len(train) // 2:
        raise InvalidDatasetError(
            f"Cannot hold out {validation_images} validation images of {len(train)}: set 'validation_images' to 1 to "
            f"{len(train) // 2}, or bring images of your own in 'val/'."
        )
    order = np.random.default_rng(seed).permutation(len(train))
    held_out, kept = np.sort(order[:validation_images]), np.sort(order[validation_images:])
    return Splits(train.take(kept), train.take(held_out), test, skipped)


def _parquet_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet"))


def _load_parquet(path: Path, size: int, *, skip_broken: bool) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
    files = _parquet_files(path)
    by_split = {split: [file for file in files if file.name.startswith(split)] for split in ("train", "val", "test")}
    train = by_split["train"] or [file for file in files if file not in by_split["val"] + by_split["test"]]
    if not train:
        raise InvalidDatasetError(f"'{path}' has no training images: name a parquet file 'train…'.")
    load = partial(load_parquet, size=size, skip_broken=skip_broken)
    images = load(train)
    return images, _load_same_classes(by_split["val"], images, load), _load_same_classes(by_split["test"], images, load)


def _load_same_classes(files: list[Path], train: ImageSet, load: Callable[[list[Path]], ImageSet]) -> ImageSet | None:
    """Another split of parquet files, labelled as the training images; it may lack the last classes."""
    if not files:
        return None
    images = load(files)
    if images.classes != train.classes[: len(images.classes)]:
        raise InvalidDatasetError(
            f"The {len(images.classes)} classes of '{files[0]}', {list(images.classes[:5])} …, are not those of the "
            f"training images, {list(train.classes[:5])} …: label both alike."
        )
    return replace(images, classes=train.classes)


def _load_folders(path: Path, size: int, *, skip_broken: bool) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
    if path.is_file():
        raise InvalidDatasetError(f"'{path}' is a file; expected parquet, or a folder with one sub-folder per class.")
    root = path / "train" if (path / "train").is_dir() else path
    load = partial(load_class_folders, size=size, skip_broken=skip_broken)
    train = load(root)
    others: dict[str, ImageSet | None] = {"val": None, "test": None}
    for split in others:
        if root != path and (path / split).is_dir():
            others[split] = load(path / split, classes=train.classes)
    return train, others["val"], others["test"]
