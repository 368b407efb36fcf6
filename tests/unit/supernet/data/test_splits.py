"""Splits: no image is learnt from and judged by at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from supernet.data.images import ImageSet
from supernet.data.splits import Splits, load_splits
from supernet.errors import InvalidDatasetError

Write = Callable[..., Path]


def load(path: Path, validation_images: int = 4, seed: int = 0) -> Splits:
    return load_splits(path, size=8, validation_images=validation_images, seed=seed)


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


@pytest.mark.shared_data
def test_the_copy_of_cifar10_is_read(shared_data: Path) -> None:
    from supernet.data.images import load_parquet

    images = load_parquet([shared_data / "cifar10" / "test-00000-of-00001.parquet"], size=32)
    assert images.pixels.shape == (10_000, 32, 32, 3)
    assert np.bincount(images.labels).tolist() == [1000] * 10
    mean, _ = images.normalisation()
    np.testing.assert_allclose(mean, (0.494, 0.485, 0.450), atol=0.005)
