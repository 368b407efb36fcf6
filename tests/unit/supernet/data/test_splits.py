"""Splits: no image is learnt from and judged by at once."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from supernet.data.images import ImageSet
from supernet.data.splits import Splits, load_splits
from supernet.errors import InvalidDatasetError

Write = Callable[..., Path]


def load(path: Path, validation_images: int = 4, seed: int = 0, *, skip_broken: bool = False) -> Splits:
    return load_splits(path, size=8, validation_images=validation_images, seed=seed, skip_broken=skip_broken)


def values(images: ImageSet | None) -> list[int]:
    """The grey value that tells an image of these tests from the others."""
    assert images is not None
    return sorted(images.pixels[:, 0, 0, 0].tolist())


@pytest.fixture
def numbered(tmp_path: Path, write_image: Write) -> Path:
    """Twenty images in two classes, each of its own grey."""
    for value in range(20):
        write_image(tmp_path / "data" / "ab"[value % 2] / f"{value:02}.png", (value,) * 3)
    return tmp_path / "data"


def test_held_out_images_are_disjoint_from_the_kept_ones(numbered: Path) -> None:
    splits = load(numbered, validation_images=6)
    assert splits.test is None
    assert (len(splits.train), len(splits.validation)) == (14, 6)
    assert sorted(values(splits.train) + values(splits.validation)) == list(range(20))
    for images in (splits.train, splits.validation):
        assert (images.pixels[:, 0, 0, 0] % 2 == images.labels).all()
        assert images.classes == ("a", "b")


def test_the_draw_follows_from_the_seed(numbered: Path) -> None:
    assert values(load(numbered, seed=1).validation) == values(load(numbered, seed=1).validation)
    assert values(load(numbered, seed=1).validation) != values(load(numbered, seed=2).validation)


@pytest.mark.parametrize("validation_images", [0, -1, 11, 20, 1000])
def test_impossible_numbers_of_held_out_images_are_refused(numbered: Path, validation_images: int) -> None:
    with pytest.raises(InvalidDatasetError, match="of 20: set 'validation_images' to 1 to 10"):
        load(numbered, validation_images=validation_images)


def test_folders_named_train_val_and_test_are_the_splits(tmp_path: Path, class_folders: Write) -> None:
    for name, n in (("train", 4), ("val", 3), ("test", 2)):
        class_folders(tmp_path / name, n=n)
    splits = load(tmp_path, validation_images=10**6)
    assert splits.test is not None
    assert [len(images) for images in (splits.train, splits.validation, splits.test)] == [12, 9, 6]
    shutil.rmtree(tmp_path / "val")
    splits = load(tmp_path, validation_images=5)
    assert splits.test is not None
    assert [len(images) for images in (splits.train, splits.validation, splits.test)] == [7, 5, 6]


def test_a_test_folder_may_lack_a_class_but_not_bring_one(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test", ("blue", "red"))
    test = load(tmp_path).test
    assert test is not None
    assert test.classes == ("blue", "green", "red")
    assert sorted(set(test.labels.tolist())) == [0, 2]
    class_folders(tmp_path / "test", ("yellow",))
    with pytest.raises(InvalidDatasetError, match=r"test' holds classes the training images lack: \['yellow'\]"):
        load(tmp_path)


def test_parquet_files_are_told_apart_by_their_names(tmp_path: Path, write_parquet: Write) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [0, 1, 2])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [3, 4, 5])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [1, 2])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [4, 5, 0])
    splits = load(tmp_path)
    assert values(splits.train) == [0, 10, 20, 30, 40, 50]
    assert values(splits.validation) == [10, 20]
    assert values(splits.test) == [0, 40, 50]


def test_one_parquet_file_is_a_training_set(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "images.parquet", list(range(10)))
    for place in (path, tmp_path):
        splits = load(place)
        assert sorted(values(splits.train) + values(splits.validation)) == [10 * label for label in range(10)]
        assert splits.test is None


def test_every_split_has_the_classes_of_the_training_images(tmp_path: Path, write_parquet: Write) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2, 3])
    write_parquet(tmp_path / "val.parquet", [0, 1])
    assert load(tmp_path).validation.classes == ("0", "1", "2", "3")


def test_a_parquet_file_with_an_unknown_class_is_refused(tmp_path: Path, write_parquet: Write) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1])
    write_parquet(tmp_path / "test.parquet", [0, 1, 2])
    with pytest.raises(InvalidDatasetError, match="test"):
        load(tmp_path, validation_images=1)


def test_a_parquet_file_with_other_names_for_the_labels_is_refused(tmp_path: Path, write_parquet: Write) -> None:
    def names(*classes: str) -> bytes:
        return json.dumps({"info": {"features": {"label": {"names": classes}}}}).encode()

    write_parquet(tmp_path / "train.parquet", [0, 1, 0, 1], metadata=names("cat", "dog"))
    write_parquet(tmp_path / "val.parquet", [0, 1], metadata=names("dog", "cat"))
    with pytest.raises(InvalidDatasetError, match="val"):
        load(tmp_path)


def test_missing_paths_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match=r"No data set at '.*nowhere'"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no images")
    with pytest.raises(InvalidDatasetError, match=r"notes\.txt' is a file; expected parquet"):
        load(tmp_path / "notes.txt")
    with pytest.raises(InvalidDatasetError, match="holds no images"):
        load(tmp_path)


def test_a_set_of_test_images_alone_is_refused(tmp_path: Path, write_parquet: Write) -> None:
    write_parquet(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(InvalidDatasetError, match="name a parquet file 'train…'"):
        load(tmp_path)


# ---------------------------------------------------------------------- images people bring


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


KINDS = {
    "RGB": (120, 120, 120),
    "RGBA": (120, 120, 120, 40),
    "L": 120,
    "LA": (120, 40),
    "I;16": 120 * 257,
    "CMYK": (135, 135, 135, 0),
    "1": 255,
}


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("PNG", mode) for mode in ("RGB", "RGBA", "L", "LA", "I;16", "1", "P")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA", "L")),
    ],
)
def test_images_of_every_mode_and_shape_become_rgb_squares(tmp_path: Path, form: str, mode: str) -> None:
    suffix = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[form]
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for width, height in ((8, 8), (3, 2), (1, 30), (64, 17), (90, 90)):
            if mode == "P":
                image = Image.new("RGB", (width, height), KINDS["RGB"]).quantize(4)
            else:
                image = Image.new(mode, (width, height), KINDS[mode])
            (tmp_path / name / f"{width}x{height}{suffix}").write_bytes(encoded(image, form))
    splits = load(tmp_path, validation_images=5)
    for images in (splits.train, splits.validation):
        assert images.pixels.shape == (5, 8, 8, 3)
        assert np.abs(images.pixels.astype(int) - (255 if mode == "1" else 120)).max() <= (2 if form == "JPEG" else 0)


@pytest.mark.parametrize("n_classes", [2, 37])
@pytest.mark.parametrize("layout", ["folders", "img", "image", "image of plain bytes"])
def test_any_number_of_classes_is_labelled_in_order(tmp_path: Path, layout: str, n_classes: int) -> None:
    greys = np.repeat(np.arange(n_classes), 3)
    images = [encoded(Image.new("L", (20, 12), int(grey)), "PNG") for grey in greys]
    if layout == "folders":
        for index, (grey, data) in enumerate(zip(greys, images, strict=True)):
            path = tmp_path / f"{grey:02}" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    else:
        column: list[Any] = images if layout.endswith("bytes") else [{"bytes": data, "path": None} for data in images]
        pq.write_table(pa.table({layout.partition(" ")[0]: column, "label": greys}), tmp_path / "images.parquet")
    splits = load(tmp_path, validation_images=n_classes)
    assert splits.train.classes == tuple(
        f"{grey:02}" if layout == "folders" else str(grey) for grey in range(n_classes)
    )
    for part, n in ((splits.train, 2 * n_classes), (splits.validation, n_classes)):
        assert part.pixels[:, 0, 0, 0].tolist() == part.labels.tolist()
        assert len(part) == n


@pytest.fixture
def truncate(rng: np.random.Generator) -> Callable[[str], bytes]:
    """An image of noise that ends in the middle."""

    def build(form: str) -> bytes:
        data = encoded(Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)), form)
        return data[: len(data) // 2]

    return build


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_truncated_images_are_named_or_skipped(numbered: Path, truncate: Callable[[str], bytes], form: str) -> None:
    broken = [numbered / "a" / "10.png", numbered / "b" / "05.png"]
    for path in broken:
        path.write_bytes(truncate(form))
    with pytest.raises(InvalidDatasetError, match=r"a/10\.png: this image cannot be decoded"):
        load(numbered)
    splits = load(numbered, skip_broken=True)
    assert splits.skipped == tuple(map(str, broken))
    assert sorted(values(splits.train) + values(splits.validation)) == sorted(set(range(20)) - {5, 10})


def test_broken_images_of_all_splits_are_skipped(
    tmp_path: Path, class_folders: Write, truncate: Callable[[str], bytes]
) -> None:
    broken = []
    for name in ("train", "val", "test"):
        class_folders(tmp_path / name, n=3)
        broken.append(tmp_path / name / "green" / "1.png")
        broken[-1].write_bytes(truncate("JPEG"))
    splits = load(tmp_path, skip_broken=True)
    assert splits.test is not None
    assert splits.skipped == tuple(map(str, broken))
    assert [len(images) for images in (splits.train, splits.validation, splits.test)] == [8, 8, 8]


def test_broken_rows_of_all_parquet_files_are_skipped(tmp_path: Path, write_parquet: Write) -> None:
    for name in ("train", "val", "test"):
        path = write_parquet(tmp_path / f"{name}.parquet", [0, 1, 1])
        rows = pq.read_table(path)["img"].to_pylist()
        write_parquet(path, [0, 1, 1], img=[*rows[:2], {"bytes": b"", "path": None}])
    splits = load(tmp_path, skip_broken=True)
    assert splits.test is not None
    assert splits.skipped == tuple(str(tmp_path / f"{name}.parquet, row 2") for name in ("train", "val", "test"))
    assert [len(images) for images in (splits.train, splits.validation, splits.test)] == [2, 2, 2]


def test_a_split_of_broken_images_is_refused(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path / "train")
    for file in class_folders(tmp_path / "val").glob("*/*"):
        file.write_bytes(b"")
    with pytest.raises(InvalidDatasetError, match=r"val': all images are broken\. The first: .*val/blue/0\.png"):
        load(tmp_path, skip_broken=True)


def test_only_images_that_can_be_read_count_as_held_out(numbered: Path) -> None:
    for value in range(4, 20):
        (numbered / "ab"[value % 2] / f"{value:02}.png").write_bytes(b"")
    with pytest.raises(InvalidDatasetError, match="Cannot hold out 3 validation images of 4"):
        load(numbered, validation_images=3, skip_broken=True)


@pytest.mark.shared_data
def test_the_copy_of_cifar10_is_read(shared_data: Path) -> None:
    from supernet.data.images import load_parquet

    images = load_parquet([shared_data / "cifar10" / "test-00000-of-00001.parquet"], size=32)
    assert images.pixels.shape == (10_000, 32, 32, 3)
    assert np.bincount(images.labels).tolist() == [1000] * 10
    mean, _ = images.normalisation()
    np.testing.assert_allclose(mean, (0.494, 0.485, 0.450), atol=0.005)
