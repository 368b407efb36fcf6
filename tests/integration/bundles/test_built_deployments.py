"""From a bundle to deployments."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from supernet.bundle import MANIFEST, PARTS, Bundle, hash_file, write_manifest
from supernet.data.batches import Normalisation, evaluation_batches, resize_batch
from supernet.data.images import ImageSet
from supernet.data.splits import Splits
from supernet.deployment import build_deployment
from supernet.errors import InvalidArchError, InvalidConfigError, InvalidDatasetError, MissingPartError
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.calibration import load_calibration, recalibrate_from_anchors
from supernet.evaluation.population import evaluate_arch, recalibrate_with
from supernet.evaluation.statistics import recalibrate_bn
from supernet.export.manifest import Accuracy, BnRecalibration, Latency
from supernet.export.verify import verify_deployment
from supernet.network.checkpoint import load_supernet, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.pools.storage import load_pools
from supernet.predictors.accuracy import AccuracyPredictor
from supernet.predictors.loading import load_predictor
from supernet.spaces.arch import Arch
from supernet.spaces.space import SearchSpace


@pytest.fixture(scope="session")
def deployments(space: SearchSpace, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[Arch, Path]:
    """Of the largest and the smallest arch."""
    folder = tmp_path_factory.mktemp("deployments")
    made = {space.largest(): folder / "largest", space.smallest(): folder / "smallest"}
    for arch, out in made.items():
        build_deployment(bundle.path, arch, out)
    return made


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle of its own for tests that change it."""
    return Path(shutil.copytree(bundle.path, tmp_path / "bundle"))


@dataclass
class Captured:
    """What `build_deployment` hands to the export, in place of an export."""

    subnet: Subnet
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.facts


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> list[Captured]:
    """Deployments stop short of the export, which takes nearly all of their time."""
    captured: list[Captured] = []

    def capture(folder: Path, subnet: Subnet, **facts: Any) -> Captured:
        captured.append(Captured(subnet, facts))
        return captured[-1]

    monkeypatch.setattr("supernet.deployment.write_deployment", capture)
    return captured


def rewrite(folder: Path) -> Bundle:
    """The manifest anew, over the parts that are left."""
    old = json.loads((folder / MANIFEST).read_text())
    return write_manifest(
        folder,
        name=old["name"],
        space=SearchSpace.from_dict(old["space"]),
        classes=tuple(old["classes"]),
        normalisation=(tuple(old["normalisation"]["mean"]), tuple(old["normalisation"]["std"])),
        training={},
        versions={},
    )


def torch_accuracy(subnet: Subnet, arch: Arch, images: ImageSet, normalisation: Normalisation) -> float:
    batches = evaluation_batches(images, normalisation, resolution=arch.resolution, batch_size=250)
    return evaluate_accuracy(subnet, batches).top1


def onnx_predictions(folder: Path, arch: Arch, images: ImageSet, normalisation: Normalisation) -> NDArray[np.int64]:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    batches = evaluation_batches(images, normalisation, resolution=arch.resolution, batch_size=250)
    logits = [session.run(None, {"images": batch.contiguous().numpy()})[0] for batch, _ in batches]
    return np.concatenate(logits).argmax(1)


def test_deployments_verify_and_say_what_they_are(deployments: dict[Arch, Path], bundle: Bundle) -> None:
    for arch, folder in deployments.items():
        report = verify_deployment(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert report.arch_id == arch.arch_id == manifest["arch_id"]
        assert manifest["classes"] == list(bundle.manifest.classes)
        assert manifest["bn_recalibration"] == {"source": "anchors", "images": 256}
        assert manifest["supernet"] == {"name": "tiny", "weights_sha256": hash_file(bundle.weights_path)}
        assert manifest["preprocessing"]["mean"] == list(bundle.manifest.mean)
        assert manifest["parity"]["top1_agreement"] >= 0.999
        assert manifest["parity"]["max_abs_diff"] <= 1e-4
        assert manifest["latency_ms"] is None


def test_a_pools_subnet_is_deployed_as_it_was_evaluated(
    space: SearchSpace, pooled: list[Arch], normalisation: Normalisation, bundle: Bundle, splits: Splits, tmp_path: Path
) -> None:
    manifest = build_deployment(bundle.path, pooled[1], tmp_path)
    assert manifest["bn_recalibration"] == {"source": "pool", "images": 0}
    choice = load_pools(bundle.pools_path, space)[1]
    assert manifest["accuracy"]["evaluated"] == choice.top1
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    name = manifest["model"]["input"]["name"]
    batches = evaluation_batches(
        splits.validation, normalisation, resolution=choice.arch.resolution, batch_size=choice.images
    )
    hits = sum(
        int((session.run(None, {name: images.numpy()})[0].argmax(1) == labels.numpy()).sum())
        for images, labels in batches
    )
    assert hits / choice.images == pytest.approx(choice.top1, abs=1 / choice.images)


def test_the_predicted_accuracy_is_the_predictors(
    space: SearchSpace, deployments: dict[Arch, Path], bundle: Bundle
) -> None:
    predictor = load_predictor(bundle.predictor_path, space)
    for arch, folder in deployments.items():
        accuracy = json.loads((folder / "manifest.json").read_text())["accuracy"]
        (low,), (high,) = predictor.interval(space.to_rows([arch]), level=0.9, extra_images=10_000)
        assert accuracy["predicted"] == pytest.approx(predictor.predict(space.to_rows([arch]))[0])
        assert (accuracy["low"], accuracy["high"]) == pytest.approx((low, high))


def test_onnx_classifies_test_images_as_torch_and_nearly_as_with_real_images(
    space: SearchSpace, normalisation: Normalisation, deployments: dict[Arch, Path], bundle: Bundle, splits: Splits
) -> None:
    assert splits.test is not None
    supernet = load_supernet(bundle.path)
    calibration = load_calibration(bundle.calibration_path, space)
    for arch, folder in deployments.items():
        subnet = extract_subnet(supernet, arch)
        recalibrate_from_anchors(subnet, arch, calibration)
        from_anchors = torch_accuracy(subnet, arch, splits.test, normalisation)
        found = onnx_predictions(folder, arch, splits.test, normalisation)
        # One image of 1,000 may sit on the edge between two classes.
        assert abs(float((found == splits.test.labels).mean()) - from_anchors) <= 0.001

        images = evaluation_batches(splits.train, normalisation, resolution=arch.resolution, batch_size=250)
        recalibrate_bn(subnet, (batch for batch, _ in images))
        from_images = torch_accuracy(subnet, arch, splits.test, normalisation)
        # Chance is 0.25. Both archs are anchors, so nothing but half precision and the mix of anchors stands between.
        assert from_images > 0.6
        assert abs(from_anchors - from_images) < 0.02


def test_anchors_serve_archs_that_are_none(
    space: SearchSpace, normalisation: Normalisation, bundle: Bundle, splits: Splits
) -> None:
    assert splits.test is not None
    supernet = load_supernet(bundle.path)
    calibration = load_calibration(bundle.calibration_path, space)
    anchors = {anchor.arch for anchor in calibration.anchors}
    archs = [arch for arch in space.from_rows(space.sample_rows(np.random.default_rng(8), 20)) if arch not in anchors]
    gaps = []
    for arch in archs[:6]:
        subnet = extract_subnet(supernet, arch)
        recalibrate_from_anchors(subnet, arch, calibration)
        from_anchors = torch_accuracy(subnet, arch, splits.test, normalisation)
        recalibrate = recalibrate_with(splits.train, normalisation)
        result = evaluate_arch(supernet, arch, recalibrate=recalibrate, images=splits.test, normalisation=normalisation)
        gaps.append(result.top1 - from_anchors)
    assert max(gaps) < 0.05


def test_the_same_inputs_give_the_same_model(
    space: SearchSpace, deployments: dict[Arch, Path], copied: Path, tmp_path: Path
) -> None:
    """From another folder with the same bundle, which is loaded anew."""
    arch = space.smallest()
    build_deployment(copied, arch, tmp_path / "again")
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (deployments[arch] / "model.onnx").read_bytes()


def test_a_changed_bundle_is_not_taken_from_memory(
    space: SearchSpace, untrained: Supernet, copied: Path, no_export: list[Captured], tmp_path: Path
) -> None:
    build_deployment(copied, space.smallest(), tmp_path / "before")
    save_tensors(copied / PARTS["weights"], untrained.state_dict(), space)
    rewrite(copied)
    build_deployment(copied, space.smallest(), tmp_path / "after")
    before, after = (captured.subnet.state_dict()["blocks.0.layers.conv.conv.weight"] for captured in no_export)
    assert not torch.equal(before, after)


def test_the_supernet_in_memory_is_never_changed(
    space: SearchSpace, bundle: Bundle, no_export: list[Captured], tmp_path: Path
) -> None:
    for arch in (space.largest(), space.smallest(), space.largest()):
        build_deployment(bundle.path, arch, tmp_path / "deployment")
    first, _, again = (captured.subnet.state_dict() for captured in no_export)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


def test_given_accuracy_and_latency_are_handed_on(
    space: SearchSpace, bundle: Bundle, no_export: list[Captured], tmp_path: Path
) -> None:
    accuracy = {"predicted": 0.8, "low": 0.75, "high": 0.85, "level": 0.9}
    latency = {"estimated": 2.0, "low": 1.8, "high": 2.2, "level": 0.9, "device": "cpu", "table_version": "3"}
    stages: list[tuple[float, str]] = []
    manifest = build_deployment(
        bundle.path,
        space.smallest(),
        tmp_path / "deployment",
        accuracy=accuracy,
        latency=latency,
        report=lambda share, stage: stages.append((share, stage)),
    )
    assert manifest["accuracy"] == Accuracy(0.8, 0.75, 0.85, 0.9)
    assert manifest["latency_ms"] == Latency(2.0, 1.8, 2.2, 0.9, "cpu", "3")
    assert [stage for _, stage in stages] == ["load", "recalibrate", "export", "done"]
    assert [share for share, _ in stages] == sorted(share for share, _ in stages)


# ---------------------------------------------------------------------------- a folder of images


def write_images(folder: Path, images: ImageSet) -> Path:
    for index, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        path = folder / images.classes[label] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.parametrize("calibrated", [True, False])
def test_own_images_recalibrate_a_bundle_with_or_without_calibration(
    space: SearchSpace,
    normalisation: Normalisation,
    copied: Path,
    splits: Splits,
    no_export: list[Captured],
    tmp_path: Path,
    *,
    calibrated: bool,
) -> None:
    """Class folders are read in order: batches of one class each would narrow every spread."""
    if not calibrated:
        (copied / PARTS["calibration"]).unlink()
    rewrite(copied)
    arch = space.largest()
    own = splits.train.take(np.arange(800))
    build_deployment(copied, arch, tmp_path / "deployment", calibration=write_images(tmp_path / "images", own))
    (captured,) = no_export
    assert captured.facts["bn_recalibration"] == BnRecalibration("images", 800)

    one_class_each = [np.flatnonzero(own.labels == label) for label in range(len(own.classes))]
    spreads = []
    for batches in (np.split(np.arange(800), 4), one_class_each):
        subnet = extract_subnet(load_supernet(copied), arch)
        pixels = [resize_batch(normalisation.apply(own.pixels[batch]), arch.resolution) for batch in batches]
        recalibrate_bn(subnet, pixels)
        spreads.append(last_spread(subnet))
    shuffled, by_class = spreads
    assert (by_class / shuffled).mean() < 0.95
    assert float((last_spread(captured.subnet) / shuffled).mean()) == pytest.approx(1, abs=0.01)


def last_spread(subnet: Subnet) -> Tensor:
    """Variance before the last normalisation, where classes differ most."""
    return [tensor for name, tensor in subnet.state_dict().items() if name.endswith("running_var")][-1]


def test_a_folder_without_images_is_refused(space: SearchSpace, bundle: Bundle, tmp_path: Path) -> None:
    for folder, message in ((tmp_path, "no images"), (tmp_path / "absent", "does not exist")):
        with pytest.raises(InvalidDatasetError, match=message):
            build_deployment(bundle.path, space.smallest(), tmp_path / "deployment", calibration=folder)
    assert not (tmp_path / "deployment").exists()


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("part", ["weights", "calibration"])
def test_a_missing_part_is_named_and_nothing_is_written(
    space: SearchSpace, copied: Path, tmp_path: Path, part: str
) -> None:
    (copied / PARTS[part]).unlink()
    rewrite(copied)
    with pytest.raises(MissingPartError) as caught:
        build_deployment(copied, space.smallest(), tmp_path / "deployment")
    assert caught.value.part == part
    assert not (tmp_path / "deployment").exists()


def test_without_a_predictor_a_deployment_predicts_no_accuracy(
    space: SearchSpace, copied: Path, no_export: list[Captured], tmp_path: Path
) -> None:
    (copied / PARTS["predictor"]).unlink()
    rewrite(copied)
    assert build_deployment(copied, space.smallest(), tmp_path / "deployment")["accuracy"] is None


def test_a_predictor_that_never_saw_the_resolution_predicts_nothing(
    space: SearchSpace, copied: Path, no_export: list[Captured], tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = space.sample_rows(rng, 500)
    rows[:, 0] = 1
    top1 = 0.5 + 0.01 * rows.sum(1) / 10
    AccuracyPredictor.fit(space, rows, top1, n_images=None, rng=rng).save(copied / PARTS["predictor"])
    rewrite(copied)
    assert build_deployment(copied, space.smallest(), tmp_path / "deployment")["accuracy"] is None


@pytest.mark.parametrize(
    ("changes", "message"), [({"precision": "int8"}, "'precision' must be 'fp32', got 'int8'"), ({"opset": 3}, "opset")]
)
def test_settings_not_on_offer_are_refused(
    space: SearchSpace, bundle: Bundle, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        build_deployment(bundle.path, space.smallest(), tmp_path / "deployment", **changes)
    assert not (tmp_path / "deployment").exists()


def test_an_arch_outside_the_space_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidArchError, match="'resolution'"):
        build_deployment(bundle.path, Arch(99, (1,), (3, 0), (1, 0)), tmp_path / "deployment")
