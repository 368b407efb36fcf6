"""Files of the reference to a bundle: what it holds, what it says of its origin, what stays of a failure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.bundle import Bundle, hash_file, open_bundle
from supernet.deployment import build_deployment
from supernet.errors import (
    FingerprintMismatchError,
    InvalidBundleError,
    InvalidCheckpointError,
    InvalidConfigError,
    InvalidDatasetError,
    MissingPartError,
)
from supernet.network.checkpoint import load_supernet
from supernet.network.elastic_net import Supernet
from supernet.ofa.importing import import_bundle
from supernet.ofa.weights import reference_names
from supernet.predictors.accuracy import AccuracyPredictor
from supernet.spaces.costs import blocks_of
from supernet.spaces.fixed import space_of_blocks
from supernet.spaces.space import SearchSpace

State = dict[str, torch.Tensor]


@pytest.fixture
def file(checkpoint: State, tmp_path: Path) -> Path:
    path = tmp_path / "supernet.pth"
    torch.save({"state_dict": checkpoint}, path)
    return path


@pytest.fixture
def predictor(mbv3: Supernet, tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = np.unique(mbv3.space.sample_rows(rng, 60), axis=0)
    path = tmp_path / "predictor.safetensors"
    AccuracyPredictor.fit(mbv3.space, rows, rng.uniform(0.5, 0.7, len(rows)), n_images=100, rng=rng).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (50, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_a_checkpoint_becomes_a_bundle_with_its_origin(mbv3: Supernet, file: Path, tmp_path: Path) -> None:
    bundle = import_bundle(tmp_path / "bundle", mbv3.space, checkpoint=file)
    assert set(bundle.manifest.parts) == {"weights"}
    assert bundle.manifest.classes == tuple(map(str, range(10)))
    assert bundle.manifest.mean == (0.485, 0.456, 0.406)
    assert bundle.manifest.training == {
        "method": "imported",
        "checkpoint": "supernet.pth",
        "checkpoint_sha256": hash_file(file),
        "keys": len(torch.load(file, weights_only=True)["state_dict"]),
        "kernel_matrices": True,
    }
    loaded = load_supernet(bundle.path).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in mbv3.state_dict().items())
    assert not bundle.is_deployable
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_images_make_a_bundle_deployable_and_stay_in_it(
    mbv3: Supernet, file: Path, pictures: Path, predictor: Path, tmp_path: Path
) -> None:
    bundle = import_bundle(
        tmp_path / "bundle", mbv3.space, checkpoint=file, predictor=predictor, calibration=pictures, name="mine"
    )
    assert bundle.manifest.name == "mine"
    assert set(bundle.manifest.parts) == {"weights", "predictor", "calibration"}
    assert bundle.is_deployable
    manifest = build_deployment(bundle.path, mbv3.space.smallest(), tmp_path / "out")
    assert manifest["bn_recalibration"] == {"source": "images", "images": 4}
    assert manifest["accuracy"]["predicted"] > 0


def test_without_weights_a_bundle_can_be_searched_but_not_deployed(
    mbv3: Supernet, predictor: Path, tmp_path: Path
) -> None:
    bundle = import_bundle(tmp_path / "bundle", mbv3.space, predictor=predictor)
    assert set(bundle.manifest.parts) == {"predictor"}
    with pytest.raises(MissingPartError, match="has no weights"):
        build_deployment(bundle.path, mbv3.space.smallest(), tmp_path / "out")


def test_class_names_replace_the_numbers(mbv3: Supernet, file: Path, tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(10)]
    bundle = import_bundle(tmp_path / "bundle", mbv3.space.with_classes(1000), checkpoint=file, classes=names)
    assert bundle.manifest.classes == tuple(names)
    assert bundle.space.classes == 10


def assert_nothing_stays(tmp_path: Path, before: set[Path]) -> None:
    assert set(tmp_path.rglob("*")) == before


def test_another_number_of_classes_is_refused_with_the_way_out(mbv3: Supernet, file: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InvalidCheckpointError, match=r"has 10 classes, 'tiny_mbv3' has 1000. Name them with --classes"):
        import_bundle(tmp_path / "bundle", mbv3.space.with_classes(1000), checkpoint=file)
    assert_nothing_stays(tmp_path, before)


def test_a_broken_part_leaves_nothing_behind(
    mbv3: Supernet, file: Path, predictor: Path, pictures: Path, tmp_path: Path
) -> None:
    half, junk = tmp_path / "half.pth", tmp_path / "junk"
    half.write_bytes(file.read_bytes()[:2000])
    junk.mkdir()
    (junk / "x.png").write_bytes(b"no image")
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "bundle"
    with pytest.raises(InvalidCheckpointError, match="incomplete"):
        import_bundle(out, mbv3.space, checkpoint=half)
    with pytest.raises(InvalidDatasetError):
        import_bundle(out, mbv3.space, checkpoint=file, calibration=junk)
    with pytest.raises(InvalidBundleError):
        import_bundle(out, mbv3.space, checkpoint=file, predictor=file)
    with pytest.raises(FingerprintMismatchError):
        import_bundle(out, mbv3.space.with_classes(7), predictor=predictor)
    with pytest.raises(InvalidConfigError, match="needs weights, a predictor or both"):
        import_bundle(out, mbv3.space)
    with pytest.raises(InvalidConfigError, match="holds something already"):
        import_bundle(pictures, mbv3.space, checkpoint=file)
    assert_nothing_stays(tmp_path, before)


def test_a_net_of_one_arch_keeps_the_statistics_of_its_weights(mbv3: Supernet, tmp_path: Path) -> None:
    # As a specialised net: its space has one arch, whose statistics no other arch has mixed with.
    arch = mbv3.space.smallest()
    space = space_of_blocks("alone", blocks_of(mbv3.space, arch))
    bundle = _one_arch_bundle(space, tmp_path)
    assert bundle.is_deployable
    manifest = build_deployment(bundle.path, space.smallest(), tmp_path / "out")
    assert manifest["bn_recalibration"] == {"source": "weights", "images": 0}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["arch_id"] == space.smallest().arch_id


def _one_arch_bundle(space: SearchSpace, tmp_path: Path) -> Bundle:
    state = Supernet(space, torch.Generator().manual_seed(0)).state_dict()
    names = reference_names(space, state)
    path = tmp_path / "init"
    torch.save({names[ours]: tensor for ours, tensor in state.items()}, path)
    import_bundle(tmp_path / "bundle", space, checkpoint=path)
    return open_bundle(tmp_path / "bundle")
