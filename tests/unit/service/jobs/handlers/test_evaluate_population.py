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

from service.errors import ConflictError
from service.jobs.handlers.evaluate_population import run
from service.jobs.states import PopulationOrder
from service.labelled_images import load_labelled
from supernet.bundle import write_manifest
from supernet.errors import InvalidDatasetError
from supernet.spaces.presets import load_space

SIZE = 4
MAX_BYTES = 10_000


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
    images = load_labelled(folder, size=SIZE, classes=("dog", "cat"), max_bytes=MAX_BYTES)
    assert images.classes == ("dog", "cat")
    brightness = {label: int(pixels[0, 0, 0]) for label, pixels in zip(images.labels, images.pixels, strict=True)}
    assert brightness == {0: 200, 1: 10}


@pytest.mark.parametrize("classes", [("cat", "wolf"), ("cat", "dog", "wolf"), ("cat",)])
def test_other_classes_are_refused_by_name(folder, classes):
    with pytest.raises(InvalidDatasetError, match=r"2 classes of 'mine', \['cat', 'dog'\]") as caught:
        load_labelled(folder, size=SIZE, classes=classes, max_bytes=MAX_BYTES)
    assert "secret" not in str(caught.value)


def test_a_bundle_whose_classes_are_paths_leads_nowhere(folder, tmp_path):
    (tmp_path / "secret" / "else").mkdir()
    (tmp_path / "secret" / "else" / "1.png").write_bytes(encoded(1))
    with pytest.raises(InvalidDatasetError, match="are not the supernet's"):
        load_labelled(folder, size=SIZE, classes=("cat", "../else"), max_bytes=MAX_BYTES)


def test_a_broken_image_is_named(folder):
    (folder / "dog" / "2.png").write_text("no image")
    with pytest.raises(InvalidDatasetError, match=r"mine/dog/2\.png"):
        load_labelled(folder, size=SIZE, classes=("cat", "dog"), max_bytes=MAX_BYTES)


def test_more_images_than_memory_is_meant_for_are_refused_before_one_is_decoded(folder, write_parquet):
    (folder / "dog" / "2.png").write_text("no image")
    labels = (0, 1, 1)
    parquet = write_parquet(*labels, names=("cat", "dog"))
    most = 3 * SIZE * SIZE * 3
    for place in (folder, parquet):
        with pytest.raises(InvalidDatasetError, match=rf"3 images .* {SIZE}×{SIZE} .* {most} bytes .* {most - 1}"):
            load_labelled(place, size=SIZE, classes=("cat", "dog"), max_bytes=most - 1)
    assert len(load_labelled(parquet, size=SIZE, classes=("cat", "dog"), max_bytes=most)) == 3


def test_a_bundle_that_is_not_the_one_of_the_order_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_text("weights")
    write_manifest(
        tmp_path,
        name="mine",
        space=load_space("cifar_mbv3").with_classes(2),
        classes=("cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training={},
        versions={},
    )
    order = PopulationOrder(
        supernet_id="mine",
        bundle_uri=f"folder:{tmp_path}",
        bundle_sha256="0" * 64,
        images=str(tmp_path),
        archs=20,
        seed=0,
        max_image_bytes=1,
        file=str(tmp_path / "kept.csv"),
    )
    with pytest.raises(ConflictError, match="Order it again") as caught:
        run(order.model_dump(), tmp_path / "out", lambda _share, _stage: None)
    assert caught.value.code == "bundle_changed"


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InvalidDatasetError, match="holds no images"):
        load_labelled(tmp_path, size=SIZE, classes=("cat", "dog"), max_bytes=MAX_BYTES)


def test_parquet_has_to_name_the_classes_in_the_order_of_the_bundle(write_parquet):
    folder = write_parquet(0, 1, 1, names=("cat", "dog"))
    assert load_labelled(folder, size=SIZE, classes=("cat", "dog"), max_bytes=MAX_BYTES).labels.tolist() == [0, 1, 1]
    with pytest.raises(InvalidDatasetError, match="are not the supernet's"):
        load_labelled(folder, size=SIZE, classes=("dog", "cat"), max_bytes=MAX_BYTES)


def test_training_images_are_refused(write_parquet):
    write_parquet(0, 1, names=("cat", "dog"))
    folder = write_parquet(0, 1, names=("cat", "dog"), file="train-0.parquet")
    with pytest.raises(InvalidDatasetError, match=r"training images \(train-0\.parquet\)"):
        load_labelled(folder, size=SIZE, classes=("cat", "dog"), max_bytes=MAX_BYTES)
