"""A data set to a bundle to deployments, with real parts throughout and a space small enough for seconds."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from supernet.bundle import MANIFEST, PARTS, Bundle, hash_file, open_bundle, write_manifest
from supernet.bundling import anchor_archs, build_bundle, population_archs
from supernet.data.batches import Normalisation, evaluation_batches, resize_batch
from supernet.data.images import ImageSet
from supernet.data.splits import Splits
from supernet.deployment import build_deployment
from supernet.errors import InvalidArchError, InvalidConfigError, InvalidDatasetError, MissingPartError
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.calibration import load_calibration, recalibrate_from_anchors
from supernet.evaluation.population import evaluate_arch, load_population, recalibrate_with
from supernet.evaluation.statistics import recalibrate_bn
from supernet.export.manifest import Accuracy, BnRecalibration, Latency
from supernet.export.verify import verify_deployment
from supernet.network.checkpoint import load_supernet, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.pools.runtime import PoolRuntime
from supernet.pools.storage import load_pools
from supernet.predictors.accuracy import AccuracyPredictor
from supernet.predictors.loading import load_predictor
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.config import TrainConfig
from supernet.training.loop import train
from supernet.training.methods.pss_net import Pool

CLASSES = ("ant", "bee", "cat", "dog")
SPACE = SearchSpace(
    "tiny_integration",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), act=Act.HSWISH),
        Stage(
            BlockKind.INVERTED,
            widths=(8,),
            depths=(1, 2),
            kernel_sizes=(3, 5),
            expand_ratios=(1, 2),
            stride=2,
            act=Act.RELU,
            se=True,
            shortcut=True,
        ),
        Stage(BlockKind.CONV, widths=(16,), act=Act.HSWISH),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(len(CLASSES),), norm=False, bias=True),
    ),
    resolutions=(12, 16),
)
SEED = 3
POOLED = SPACE.from_rows(SPACE.sample_rows(np.random.default_rng(8), 2))


def draw_images(n: int, seed: int) -> ImageSet:
    """Four textures under strong noise: stripes along, stripes across, checks and a plain tint."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    rows, columns = np.indices((16, 16)) // 2 % 2
    patterns = np.stack([rows, columns, rows ^ columns, np.full((16, 16), 0.5)]) - 0.5
    contrast = rng.uniform(10, 90, (n, 1, 1, 1))
    values = 120 + contrast * patterns[labels][..., None] + rng.normal(0, 40, (n, 16, 16, 3))
    values += rng.normal(0, 20, (n, 1, 1, 3))
    return ImageSet(np.clip(values, 0, 255).astype(np.uint8), labels, CLASSES)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(draw_images(1500, 1), draw_images(500, 2), draw_images(1000, 3))


@pytest.fixture(scope="module")
def run_dir(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: trained for three epochs, bundled with a population of 24 and two pools."""
    run_dir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("config", "loop"):
            patch.setattr(f"supernet.training.{module}.find_space", lambda _name: SPACE)
        config = TrainConfig(SPACE.name, epochs=3, batch_size=50, learning_rate=0.2, seed=SEED)
        supernet = train(config, splits.train, run_dir)
    small, large = POOLED
    build_bundle(
        supernet,
        splits,
        run_dir,
        name="tiny",
        archs=24,
        seed=SEED,
        training={"dataset": "textures", "epochs": 3},
        pools=[
            Pool("macs", 0.0, 1e5, SPACE.to_rows([small]), {small: -1.0}),
            Pool("macs", 1e5, 1e6, SPACE.to_rows([large]), {large: -0.5}),
        ],
    )
    return run_dir


@pytest.fixture(scope="module")
def bundle(run_dir: Path) -> Bundle:
    return open_bundle(run_dir / "bundle")


@pytest.fixture(scope="module")
def deployments(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[Arch, Path]:
    """Of the largest and the smallest arch."""
    folder = tmp_path_factory.mktemp("deployments")
    made = {SPACE.largest(): folder / "largest", SPACE.smallest(): folder / "smallest"}
    for arch, out in made.items():
        build_deployment(bundle.path, arch, out)
    return made


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle of its own for tests that change it."""
    return Path(shutil.copytree(bundle.path, tmp_path / "bundle"))


def untrained() -> Supernet:
    return Supernet(SPACE, torch.Generator().manual_seed(0))


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
        space=SPACE,
        classes=CLASSES,
        normalisation=(tuple(old["normalisation"]["mean"]), tuple(old["normalisation"]["std"])),
        training={},
        versions={},
    )


def normalisation_of(bundle: Bundle) -> Normalisation:
    return Normalisation(bundle.manifest.mean, bundle.manifest.std)


def torch_accuracy(subnet: Subnet, arch: Arch, images: ImageSet, bundle: Bundle) -> float:
    batches = evaluation_batches(images, normalisation_of(bundle), resolution=arch.resolution, batch_size=250)
    return evaluate_accuracy(subnet, batches).top1


def onnx_predictions(folder: Path, arch: Arch, images: ImageSet, bundle: Bundle) -> NDArray[np.int64]:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    batches = evaluation_batches(images, normalisation_of(bundle), resolution=arch.resolution, batch_size=250)
    logits = [session.run(None, {"images": batch.contiguous().numpy()})[0] for batch, _ in batches]
    return np.concatenate(logits).argmax(1)


# ---------------------------------------------------------------------------- the bundle


def test_a_bundle_has_every_part_and_says_where_it_comes_from(bundle: Bundle, splits: Splits) -> None:
    manifest = bundle.manifest
    assert set(manifest.parts) == set(PARTS)
    assert (manifest.name, manifest.classes, bundle.space) == ("tiny", CLASSES, SPACE)
    assert (manifest.mean, manifest.std) == splits.train.normalisation()
    predictor = {"archs": 24, "images": 500}
    assert manifest.training == {"dataset": "textures", "epochs": 3, "predictor": predictor}
    assert set(manifest.versions) == {"tailor", "torch"}


def test_the_population_is_distinct_and_judged_by_validation_images(
    bundle: Bundle, run_dir: Path, splits: Splits
) -> None:
    population = load_population(next(run_dir.glob("population_*.csv")), SPACE)
    archs = [entry.arch for entry in population]
    assert len(set(archs)) == len(archs) == 24
    assert {SPACE.largest(), SPACE.smallest()} <= set(archs)
    assert {entry.result.total for entry in population} == {500}
    predictor = load_predictor(bundle.predictor_path, SPACE)
    assert (predictor.quality.n_archs, predictor.quality.n_images) == (24, 500)
    assert predictor.resolutions == SPACE.resolutions


def test_the_population_holds_for_the_weights_in_the_bundle(bundle: Bundle, run_dir: Path, splits: Splits) -> None:
    """The supernet in memory was rounded to half precision, and recalibration is the bundle's, as users get it."""
    calibration = load_calibration(bundle.calibration_path, SPACE)
    entry = load_population(next(run_dir.glob("population_*.csv")), SPACE)[5]
    result = evaluate_arch(
        load_supernet(bundle.path),
        entry.arch,
        recalibrate=lambda subnet, arch: recalibrate_from_anchors(subnet, arch, calibration),
        images=splits.validation,
        normalisation=normalisation_of(bundle),
    )
    assert abs(result.correct - entry.result.correct) <= 2


@pytest.mark.parametrize("index", [0, 1])
def test_a_pool_of_the_bundle_runs_as_accurately_as_it_was_evaluated(
    bundle: Bundle, splits: Splits, index: int
) -> None:
    runtime = PoolRuntime.load(bundle.path)
    runtime.switch(1)
    runtime.switch(index)
    choice = runtime.pools[index]
    assert (runtime.arch, choice.images) == (POOLED[index], 500)
    assert choice.top1 > 0.5  # four classes
    batches = evaluation_batches(
        splits.validation, normalisation_of(bundle), resolution=runtime.arch.resolution, batch_size=50
    )
    correct = sum(int((runtime(images).argmax(1) == labels).sum()) for images, labels in batches)
    assert abs(correct - round(choice.top1 * choice.images)) <= 2


def test_a_second_call_evaluates_nothing_and_gives_an_equal_bundle(
    bundle: Bundle, run_dir: Path, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run_dir, tmp_path / "again")
    monkeypatch.delattr("supernet.evaluation.population.evaluate_arch")
    again = build_bundle(
        load_supernet(bundle.path),
        splits,
        tmp_path / "again",
        name="tiny",
        archs=24,
        seed=SEED,
        training={"dataset": "textures", "epochs": 3},
    )
    assert again.manifest.parts["predictor"] == bundle.manifest.parts["predictor"]
    assert "pools" not in again.manifest.parts  # this call was given none
    weights = [load_supernet(made.path).state_dict() for made in (bundle, again)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    # The calibration is measured anew; another memory format of the weights moves its last bits.
    calibrations = [load_calibration(made.calibration_path, SPACE) for made in (bundle, again)]
    for first, second in zip(*(calibration.anchors for calibration in calibrations), strict=True):
        assert first.arch == second.arch
        torch.testing.assert_close(first.real, second.real, rtol=2e-3, atol=1e-3)


def test_too_small_a_population_is_refused_before_anything_is_written(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="at least 20 archs, got 19"):
        build_bundle(untrained(), splits, tmp_path / "run", name="tiny", archs=19, seed=0, training={})
    assert not (tmp_path / "run").exists()


def test_no_more_archs_are_evaluated_than_the_space_has(rng: np.random.Generator) -> None:
    few = replace(
        SPACE,
        resolutions=(12,),
        stages=tuple(replace(stage, kernel_sizes=stage.kernel_sizes[:1]) for stage in SPACE.stages),
    )
    archs = population_archs(few, rng, few.size() + 100)
    assert len(set(archs)) == len(archs) == few.size()


def test_anchors_are_the_largest_the_smallest_and_two_more_at_every_resolution(rng: np.random.Generator) -> None:
    anchors = anchor_archs(SPACE, rng)
    for resolution in SPACE.resolutions:
        at_resolution = [anchor for anchor in anchors if anchor.resolution == resolution]
        assert len(at_resolution) == 4
        for end in (SPACE.largest(), SPACE.smallest()):
            same = Arch(resolution, end.depths, end.kernel_sizes, end.expand_ratios, end.widths)
            assert same in at_resolution


def test_a_larger_population_starts_with_the_smaller_one() -> None:
    """So that a bundle can be rebuilt with more archs without evaluating the old ones again."""
    small, large = (population_archs(SPACE, np.random.default_rng(1), n_archs) for n_archs in (20, 30))
    assert large[:20] == small


# ---------------------------------------------------------------------------- deployments


def test_deployments_verify_and_say_what_they_are(deployments: dict[Arch, Path], bundle: Bundle) -> None:
    for arch, folder in deployments.items():
        report = verify_deployment(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert report.arch_id == arch.arch_id == manifest["arch_id"]
        assert manifest["classes"] == list(CLASSES)
        assert manifest["bn_recalibration"] == {"source": "anchors", "images": 256}
        assert manifest["supernet"] == {"name": "tiny", "weights_sha256": hash_file(bundle.weights_path)}
        assert manifest["preprocessing"]["mean"] == list(bundle.manifest.mean)
        assert manifest["parity"]["top1_agreement"] >= 0.999
        assert manifest["parity"]["max_abs_diff"] <= 1e-4
        assert manifest["latency_ms"] is None


def test_a_pools_subnet_is_deployed_as_it_was_evaluated(bundle: Bundle, splits: Splits, tmp_path: Path) -> None:
    manifest = build_deployment(bundle.path, POOLED[1], tmp_path)
    assert manifest["bn_recalibration"] == {"source": "pool", "images": 0}
    choice = load_pools(bundle.pools_path, SPACE)[1]
    assert manifest["accuracy"]["evaluated"] == choice.top1
    normalisation = Normalisation(bundle.manifest.mean, bundle.manifest.std)
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


def test_the_predicted_accuracy_is_the_predictors(deployments: dict[Arch, Path], bundle: Bundle) -> None:
    predictor = load_predictor(bundle.predictor_path, SPACE)
    for arch, folder in deployments.items():
        accuracy = json.loads((folder / "manifest.json").read_text())["accuracy"]
        (low,), (high,) = predictor.interval(SPACE.to_rows([arch]), level=0.9, extra_images=10_000)
        assert accuracy["predicted"] == pytest.approx(predictor.predict(SPACE.to_rows([arch]))[0])
        assert (accuracy["low"], accuracy["high"]) == pytest.approx((low, high))


def test_onnx_classifies_test_images_as_torch_and_nearly_as_with_real_images(
    deployments: dict[Arch, Path], bundle: Bundle, splits: Splits
) -> None:
    assert splits.test is not None
    supernet = load_supernet(bundle.path)
    calibration = load_calibration(bundle.calibration_path, SPACE)
    for arch, folder in deployments.items():
        subnet = extract_subnet(supernet, arch)
        recalibrate_from_anchors(subnet, arch, calibration)
        from_anchors = torch_accuracy(subnet, arch, splits.test, bundle)
        found = onnx_predictions(folder, arch, splits.test, bundle)
        # One image of 1,000 may sit on the edge between two classes.
        assert abs(float((found == splits.test.labels).mean()) - from_anchors) <= 0.001

        images = evaluation_batches(splits.train, normalisation_of(bundle), resolution=arch.resolution, batch_size=250)
        recalibrate_bn(subnet, (batch for batch, _ in images))
        from_images = torch_accuracy(subnet, arch, splits.test, bundle)
        # Chance is 0.25. Both archs are anchors, so nothing but half precision and the mix of anchors stands between.
        assert from_images > 0.6
        assert abs(from_anchors - from_images) < 0.02


def test_anchors_serve_archs_that_are_none(bundle: Bundle, splits: Splits) -> None:
    assert splits.test is not None
    supernet, normalisation = load_supernet(bundle.path), normalisation_of(bundle)
    calibration = load_calibration(bundle.calibration_path, SPACE)
    anchors = {anchor.arch for anchor in calibration.anchors}
    archs = [arch for arch in SPACE.from_rows(SPACE.sample_rows(np.random.default_rng(8), 20)) if arch not in anchors]
    gaps = []
    for arch in archs[:6]:
        subnet = extract_subnet(supernet, arch)
        recalibrate_from_anchors(subnet, arch, calibration)
        from_anchors = torch_accuracy(subnet, arch, splits.test, bundle)
        recalibrate = recalibrate_with(splits.train, normalisation)
        result = evaluate_arch(supernet, arch, recalibrate=recalibrate, images=splits.test, normalisation=normalisation)
        gaps.append(result.top1 - from_anchors)
    assert max(gaps) < 0.05


def test_the_same_inputs_give_the_same_model(deployments: dict[Arch, Path], copied: Path, tmp_path: Path) -> None:
    """From another folder with the same bundle, which is loaded anew."""
    arch = SPACE.smallest()
    build_deployment(copied, arch, tmp_path / "again")
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (deployments[arch] / "model.onnx").read_bytes()


def test_a_changed_bundle_is_not_taken_from_memory(copied: Path, no_export: list[Captured], tmp_path: Path) -> None:
    build_deployment(copied, SPACE.smallest(), tmp_path / "before")
    save_tensors(copied / PARTS["weights"], untrained().state_dict(), SPACE)
    rewrite(copied)
    build_deployment(copied, SPACE.smallest(), tmp_path / "after")
    before, after = (captured.subnet.state_dict()["blocks.0.layers.conv.conv.weight"] for captured in no_export)
    assert not torch.equal(before, after)


def test_the_supernet_in_memory_is_never_changed(bundle: Bundle, no_export: list[Captured], tmp_path: Path) -> None:
    for arch in (SPACE.largest(), SPACE.smallest(), SPACE.largest()):
        build_deployment(bundle.path, arch, tmp_path / "deployment")
    first, _, again = (captured.subnet.state_dict() for captured in no_export)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


def test_given_accuracy_and_latency_are_handed_on(bundle: Bundle, no_export: list[Captured], tmp_path: Path) -> None:
    accuracy = {"predicted": 0.8, "low": 0.75, "high": 0.85, "level": 0.9}
    latency = {"estimated": 2.0, "low": 1.8, "high": 2.2, "level": 0.9, "device": "cpu", "table_version": "3"}
    stages: list[tuple[float, str]] = []
    manifest = build_deployment(
        bundle.path,
        SPACE.smallest(),
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
        path = folder / CLASSES[label] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.parametrize("calibrated", [True, False])
def test_own_images_recalibrate_a_bundle_with_or_without_calibration(
    copied: Path, splits: Splits, no_export: list[Captured], tmp_path: Path, *, calibrated: bool
) -> None:
    """Class folders are read in order: batches of one class each would narrow every spread."""
    if not calibrated:
        (copied / PARTS["calibration"]).unlink()
    bundle, arch = rewrite(copied), SPACE.largest()
    own = splits.train.take(np.arange(800))
    build_deployment(copied, arch, tmp_path / "deployment", calibration=write_images(tmp_path / "images", own))
    (captured,) = no_export
    assert captured.facts["bn_recalibration"] == BnRecalibration("images", 800)

    one_class_each = [np.flatnonzero(own.labels == label) for label in range(len(CLASSES))]
    spreads = []
    for batches in (np.split(np.arange(800), 4), one_class_each):
        subnet = extract_subnet(load_supernet(copied), arch)
        pixels = [resize_batch(normalisation_of(bundle).apply(own.pixels[batch]), arch.resolution) for batch in batches]
        recalibrate_bn(subnet, pixels)
        spreads.append(last_spread(subnet))
    shuffled, by_class = spreads
    assert (by_class / shuffled).mean() < 0.95
    assert float((last_spread(captured.subnet) / shuffled).mean()) == pytest.approx(1, abs=0.01)


def last_spread(subnet: Subnet) -> Tensor:
    """Variance before the last normalisation, where classes differ most."""
    return [tensor for name, tensor in subnet.state_dict().items() if name.endswith("running_var")][-1]


def test_a_folder_without_images_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for folder, message in ((tmp_path, "no images"), (tmp_path / "absent", "does not exist")):
        with pytest.raises(InvalidDatasetError, match=message):
            build_deployment(bundle.path, SPACE.smallest(), tmp_path / "deployment", calibration=folder)
    assert not (tmp_path / "deployment").exists()


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("part", ["weights", "calibration"])
def test_a_missing_part_is_named_and_nothing_is_written(copied: Path, tmp_path: Path, part: str) -> None:
    (copied / PARTS[part]).unlink()
    rewrite(copied)
    with pytest.raises(MissingPartError) as caught:
        build_deployment(copied, SPACE.smallest(), tmp_path / "deployment")
    assert caught.value.part == part
    assert not (tmp_path / "deployment").exists()


def test_without_a_predictor_a_deployment_predicts_no_accuracy(
    copied: Path, no_export: list[Captured], tmp_path: Path
) -> None:
    (copied / PARTS["predictor"]).unlink()
    rewrite(copied)
    assert build_deployment(copied, SPACE.smallest(), tmp_path / "deployment")["accuracy"] is None


def test_a_predictor_that_never_saw_the_resolution_predicts_nothing(
    copied: Path, no_export: list[Captured], tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = SPACE.sample_rows(rng, 500)
    rows[:, 0] = 1
    top1 = 0.5 + 0.01 * rows.sum(1) / 10
    AccuracyPredictor.fit(SPACE, rows, top1, n_images=None, rng=rng).save(copied / PARTS["predictor"])
    rewrite(copied)
    assert build_deployment(copied, SPACE.smallest(), tmp_path / "deployment")["accuracy"] is None


@pytest.mark.parametrize(
    ("changes", "message"), [({"precision": "int8"}, "'precision' must be 'fp32', got 'int8'"), ({"opset": 3}, "opset")]
)
def test_settings_not_on_offer_are_refused(
    bundle: Bundle, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        build_deployment(bundle.path, SPACE.smallest(), tmp_path / "deployment", **changes)
    assert not (tmp_path / "deployment").exists()


def test_an_arch_outside_the_space_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidArchError, match="'resolution'"):
        build_deployment(bundle.path, Arch(99, (1,), (3, 0), (1, 0)), tmp_path / "deployment")
