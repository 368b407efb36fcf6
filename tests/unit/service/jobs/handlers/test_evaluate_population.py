"""Images of a population: labelled as the bundle is, and nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from service.jobs.handlers.evaluate_population import load_labelled
from supernet.errors import InvalidDatasetError

SIZE = 4


def encoded(brightness: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), brightness, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Dark cats and bright dogs."""
    folder = tmp_path / "secret" / "mine"
    for name, brightness in (("cat", 10), ("dog", 200)):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(encoded(brightness))
    return folder


@pytest.fixture
def write_parquet(tmp_path: Path):
    def write(*labels: int, names: tuple[str, ...], file: str = "test-0.parquet") -> Path:
        folder = tmp_path / "secret" / "parquet"
        folder.mkdir(parents=True, exist_ok=True)
        table = pyarrow.table({"img": [{"bytes": encoded(label)} for label in labels], "label": list(labels)})
        features = {"info": {"features": {"label": {"names": list(names)}}}}
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), folder / file)
        return folder

    return write


def test_labels_are_those_of_the_bundle_whatever_their_order(folder):
    images = load_labelled(folder, size=SIZE, classes=("dog", "cat"))
    assert images.classes == ("dog", "cat")
    brightness = {label: int(pixels[0, 0, 0]) for label, pixels in zip(images.labels, images.pixels, strict=True)}
    assert brightness == {0: 200, 1: 10}


@pytest.mark.parametrize("classes", [("cat", "wolf"), ("cat", "dog", "wolf"), ("cat",)])
def test_other_classes_are_refused_by_name(folder, classes):
    with pytest.raises(InvalidDatasetError, match=r"2 classes of 'mine', \['cat', 'dog'\]") as caught:
        load_labelled(folder, size=SIZE, classes=classes)
    assert "secret" not in str(caught.value)


def test_a_bundle_whose_classes_are_paths_leads_nowhere(folder, tmp_path):
    (tmp_path / "secret" / "else").mkdir()
    (tmp_path / "secret" / "else" / "1.png").write_bytes(encoded(1))
    with pytest.raises(InvalidDatasetError, match="are not the supernet's"):
        load_labelled(folder, size=SIZE, classes=("cat", "../else"))


def test_a_broken_image_is_named_without_the_place_of_its_folder(folder):
    (folder / "dog" / "2.png").write_text("no image")
    with pytest.raises(InvalidDatasetError, match=r"mine/dog/2\.png") as caught:
        load_labelled(folder, size=SIZE, classes=("cat", "dog"))
    assert "secret" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InvalidDatasetError, match="holds no images"):
        load_labelled(tmp_path, size=SIZE, classes=("cat", "dog"))


def test_parquet_has_to_name_the_classes_in_the_order_of_the_bundle(write_parquet):
    folder = write_parquet(0, 1, 1, names=("cat", "dog"))
    assert load_labelled(folder, size=SIZE, classes=("cat", "dog")).labels.tolist() == [0, 1, 1]
    with pytest.raises(InvalidDatasetError, match="are not the supernet's"):
        load_labelled(folder, size=SIZE, classes=("dog", "cat"))


def test_training_images_are_refused(write_parquet):
    write_parquet(0, 1, names=("cat", "dog"))
    folder = write_parquet(0, 1, names=("cat", "dog"), file="train-0.parquet")
    with pytest.raises(InvalidDatasetError, match=r"training images \(train-0\.parquet\)"):
        load_labelled(folder, size=SIZE, classes=("cat", "dog"))
