"""ImageSet: reading class folders, parquet files and loose images, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from supernet.data.images import ImageSet, load_class_folders, load_images, load_parquet
from supernet.errors import InvalidDatasetError

Write = Callable[..., Path]


# ---------------------------------------------------------------------- class folders


def test_class_folders_become_labels_in_sorted_order(tmp_path: Path, class_folders: Write) -> None:
    images = load_class_folders(class_folders(tmp_path, n=2), size=8)
    assert images.classes == ("blue", "green", "red")
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (images.pixels.shape, images.pixels.dtype) == ((6, 8, 8, 3), np.uint8)
    assert images.pixels[4, 0, 0].tolist() == [250, 0, 0]


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("grey.png", "L", 90, [90, 90, 90]),
        ("alpha.png", "RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("palette.png", "P", 0, [0, 0, 0]),
        ("bits.png", "1", 1, [255, 255, 255]),
        ("image.webp", "RGB", (10, 20, 30), [10, 20, 30]),
        ("image.bmp", "RGB", (10, 20, 30), [10, 20, 30]),
        ("IMAGE.PNG", "RGB", (10, 20, 30), [10, 20, 30]),
    ],
)
def test_every_kind_of_image_becomes_rgb(
    tmp_path: Path, class_folders: Write, write_image: Write, name: str, mode: str, colour: Any, expected: list[int]
) -> None:
    class_folders(tmp_path, ("blue", "green"), n=1)
    write_image(tmp_path / "other" / name, colour, mode=mode)
    images = load_class_folders(tmp_path, size=8)
    assert images.pixels[2].reshape(-1, 3).tolist() == [expected] * 64


def test_jpeg_files_are_read(tmp_path: Path, class_folders: Write, write_image: Write) -> None:
    class_folders(tmp_path, ("blue",), n=1)
    for index, suffix in enumerate((".jpg", ".jpeg", ".JPG")):
        write_image(tmp_path / "grey" / f"{index}{suffix}", (100, 100, 100))
    images = load_class_folders(tmp_path, size=8)
    assert images.labels.tolist() == [0, 1, 1, 1]
    assert np.abs(images.pixels[1:].astype(int) - 100).max() <= 2


def test_images_lie_deeper_and_other_files_are_ignored(
    tmp_path: Path, class_folders: Write, write_image: Write
) -> None:
    class_folders(tmp_path, n=1)
    write_image(tmp_path / "red" / "2024" / "a.png")
    (tmp_path / "red" / "notes.txt").write_text("no image")
    (tmp_path / "red" / "folder.png").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.md").write_text("no class")
    assert load_class_folders(tmp_path, size=8).labels.tolist() == [0, 1, 2, 2]


def test_large_images_are_shrunk_by_the_shorter_side_and_cut_at_the_centre(
    tmp_path: Path, class_folders: Write
) -> None:
    class_folders(tmp_path, ("blue",), n=1)
    (tmp_path / "wide").mkdir()
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    Image.fromarray(pixels).save(tmp_path / "wide" / "a.png")
    wide = load_class_folders(tmp_path, size=10).pixels[1]
    assert (wide[:, 1:-1] == 200).all()
    (tmp_path / "wide" / "b.png").unlink(missing_ok=True)
    Image.fromarray(np.full((3, 2, 3), 50, np.uint8)).save(tmp_path / "wide" / "a.png")
    assert (load_class_folders(tmp_path, size=10).pixels[1] == 50).all()


def test_given_classes_decide_the_labels_and_may_be_absent(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path, ("red", "green"), n=1)
    images = load_class_folders(tmp_path, size=8, classes=("red", "blue", "green"))
    assert images.classes == ("red", "blue", "green")
    assert images.labels.tolist() == [0, 2]


def test_unknown_classes_are_named(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path)
    with pytest.raises(InvalidDatasetError, match=r"classes the training images lack: \['red'\]"):
        load_class_folders(tmp_path, size=8, classes=("blue", "green"))


def test_broken_images_are_named(tmp_path: Path, class_folders: Write) -> None:
    broken = class_folders(tmp_path) / "green" / "1.png"
    os.truncate(broken, broken.stat().st_size // 2)
    with pytest.raises(InvalidDatasetError, match=r"green/1\.png: this image cannot be decoded"):
        load_class_folders(tmp_path, size=8)
    broken.write_bytes(b"")
    with pytest.raises(InvalidDatasetError, match=r"green/1\.png"):
        load_class_folders(tmp_path, size=8)
    broken.write_text("<svg/>")
    with pytest.raises(InvalidDatasetError, match=r"green/1\.png"):
        load_class_folders(tmp_path, size=8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_damaged_bytes_never_raise_anything_else(
    tmp_path: Path, class_folders: Write, write_image: Write, rng: np.random.Generator, suffix: str
) -> None:
    class_folders(tmp_path, ("blue", "green"), n=1)
    path = write_image(tmp_path / "red" / f"a{suffix}")
    whole = path.read_bytes()
    refused = 0
    for _ in range(40):
        data = bytearray(whole[: rng.integers(0, len(whole))])
        for _ in range(int(rng.integers(0, 4))):
            if data:
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            load_class_folders(tmp_path, size=8)
        except InvalidDatasetError as error:
            refused += str(path) in str(error)
    assert refused > 20


def test_empty_classes_are_named(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path)
    (tmp_path / "yellow").mkdir()
    with pytest.raises(InvalidDatasetError, match=r"yellow' has no images \(\.jpg"):
        load_class_folders(tmp_path, size=8)


def test_one_class_or_none_is_refused(tmp_path: Path, class_folders: Write) -> None:
    with pytest.raises(InvalidDatasetError, match="holds no images"):
        load_class_folders(tmp_path, size=8)
    class_folders(tmp_path, ("red",))
    with pytest.raises(InvalidDatasetError, match="one class only"):
        load_class_folders(tmp_path, size=8)


# ---------------------------------------------------------------------- loose images


def test_loose_images_are_found_at_every_depth(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "b.png", (1, 1, 1))
    write_image(tmp_path / "a" / "c.png", (2, 2, 2))
    (tmp_path / "folder.png").mkdir()
    images = load_images(tmp_path, size=8, most=100, rng=np.random.default_rng(0))
    assert sorted(images.pixels[:, 0, 0, 0].tolist()) == [1, 2]
    assert images.labels.tolist() == [0, 0]


def test_no_more_loose_images_are_read_than_asked_for(tmp_path: Path, write_image: Write) -> None:
    for shade in range(6):
        write_image(tmp_path / f"{shade}.png", (shade, 0, 0))
    images = load_images(tmp_path, size=8, most=4, rng=np.random.default_rng(0))
    assert len(set(images.pixels[:, 0, 0, 0].tolist())) == 4


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="has no images"):
        load_images(tmp_path, size=8, most=100, rng=np.random.default_rng(0))


# ---------------------------------------------------------------------- parquet


def test_parquet_files_are_read_in_order(tmp_path: Path, write_parquet: Write) -> None:
    paths = [write_parquet(tmp_path / "a.parquet", [1, 0]), write_parquet(tmp_path / "b.parquet", [3])]
    images = load_parquet(paths, size=8)
    assert images.labels.tolist() == [1, 0, 3]
    assert images.pixels[:, 0, 0, 0].tolist() == [10, 0, 30]
    assert images.classes == ("0", "1", "2", "3")


def test_class_names_of_the_schema_are_kept(tmp_path: Path, write_parquet: Write) -> None:
    info = {"info": {"features": {"label": {"names": ["cat", "dog", "owl"]}}}}
    path = write_parquet(tmp_path / "a.parquet", [1, 0], metadata=json.dumps(info).encode())
    assert load_parquet([path], size=8).classes == ("cat", "dog", "owl")
    path = write_parquet(tmp_path / "a.parquet", [1, 0], metadata=b"no json")
    assert load_parquet([path], size=8).classes == ("0", "1")


def test_images_may_be_plain_bytes_in_a_column_image(tmp_path: Path, write_image: Write) -> None:
    data = write_image(tmp_path / "a.png", (7, 7, 7)).read_bytes()
    pq.write_table(pa.table({"image": [data, data], "label": [0, 1]}), tmp_path / "a.parquet")
    assert (load_parquet([tmp_path / "a.parquet"], size=8).pixels == 7).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, -1]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [0, None]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [None, None]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": ["a", "b"]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [0.5, 1.5]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [[0], [1]]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [0, 2**40]}, r"label 1099511627776"),
        ({"label": [1, 1]}, "one class only"),
        ({"img": [None, None]}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": [{"path": "x.png"}] * 2}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": [b"", b""]}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": ["x.png", "y.png"]}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": [3, 4]}, r"a\.parquet, row 0: this image cannot be decoded"),
    ],
)
def test_parquet_files_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, write_parquet: Write, columns: dict[str, Any], message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1], **columns)
    with pytest.raises(InvalidDatasetError, match=message):
        load_parquet([path], size=8)


@pytest.mark.parametrize("columns", [{"picture": [b""], "label": [0]}, {"img": [b""], "target": [0]}, {"text": ["a"]}])
def test_missing_columns_are_named(tmp_path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InvalidDatasetError, match=r"needs the columns 'img' or 'image' and 'label'; it has \['"):
        load_parquet([tmp_path / "a.parquet"], size=8)


def test_parquet_files_without_rows_are_refused(tmp_path: Path) -> None:
    table = pa.table({"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InvalidDatasetError, match="holds no images"):
        load_parquet([tmp_path / "a.parquet"], size=8)


def test_truncated_parquet_files_are_named(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1])
    whole = path.read_bytes()
    for data in (whole[:-20], whole[: len(whole) // 2], b"", b"PAR1", whole[:100] + b"\0" * 60 + whole[160:]):
        path.write_bytes(data)
        with pytest.raises(InvalidDatasetError, match=r"a\.parquet"):
            load_parquet([path], size=8)


def test_labels_beyond_the_named_classes_are_refused(tmp_path: Path, write_parquet: Write) -> None:
    info = json.dumps({"info": {"features": {"label": {"names": ["cat", "dog"]}}}}).encode()
    path = write_parquet(tmp_path / "a.parquet", [0, 2], metadata=info)
    with pytest.raises(InvalidDatasetError, match="has the label 2 but names only 2 classes"):
        load_parquet([path], size=8)


# ---------------------------------------------------------------------- ImageSet


def test_taking_images_keeps_order_and_classes(rng: np.random.Generator) -> None:
    images = ImageSet(rng.integers(0, 9, (5, 2, 2, 3)).astype(np.uint8), np.arange(5) % 2, ("a", "b"))
    taken = images.take(np.array([3, 0]))
    assert len(taken) == 2
    assert taken.classes == images.classes
    np.testing.assert_array_equal(taken.pixels, images.pixels[[3, 0]])
    assert taken.labels.tolist() == [1, 0]
