"""Builders of small data sets on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write one image of one colour; the suffix chooses the format."""

    def write(path: Path, colour: Any = (250, 0, 0), *, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if path.suffix == ".webp" else {}
        Image.new(mode, size, colour).save(path, **options)
        return path

    return write


@pytest.fixture
def class_folders(write_image: Callable[..., Path]) -> Callable[..., Path]:
    """A folder with one sub-folder per colour, `n` images each."""

    def build(folder: Path, names: Sequence[str] = ("blue", "green", "red"), *, n: int = 4) -> Path:
        for name in names:
            for index in range(n):
                write_image(folder / name / f"{index}.png", COLOURS.get(name, (9, 9, 9)))
        return folder

    return build


def png(value: int, size: int = 8) -> bytes:
    """A grey image of one value."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Write a parquet file of grey images, the value of each ten times its label."""

    def write(path: Path, labels: Sequence[Any], *, metadata: bytes | None = None, **columns: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = [{"bytes": png(10 * (label if isinstance(label, int) else 0) % 256), "path": None} for label in labels]
        table = pa.table({"img": grey, "label": list(labels)} | columns)
        if metadata is not None:
            table = table.replace_schema_metadata({b"huggingface": metadata})
        pq.write_table(table, path)
        return path

    return write
