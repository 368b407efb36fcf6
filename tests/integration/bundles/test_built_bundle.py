"""From a trained supernet to its bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from supernet.bundle import PARTS, Bundle
from supernet.bundling import anchor_archs, build_bundle, population_archs
from supernet.data.batches import Normalisation, evaluation_batches
from supernet.data.splits import Splits
from supernet.errors import InvalidConfigError
from supernet.evaluation.calibration import load_calibration, recalibrate_from_anchors
from supernet.evaluation.population import evaluate_arch, load_population
from supernet.network.checkpoint import load_supernet
from supernet.network.elastic_net import Supernet
from supernet.pools.runtime import PoolRuntime
from supernet.predictors.loading import load_predictor
from supernet.spaces.arch import Arch
from supernet.spaces.space import SearchSpace


def test_a_bundle_has_every_part_and_says_where_it_comes_from(
    space: SearchSpace, bundle: Bundle, splits: Splits
) -> None:
    manifest = bundle.manifest
    assert set(manifest.parts) == set(PARTS)
    assert (manifest.name, manifest.classes, bundle.space) == ("tiny", splits.train.classes, space)
    assert (manifest.mean, manifest.std) == splits.train.normalisation()
    predictor = {"archs": 24, "images": 500}
    assert manifest.training == {"dataset": "textures", "epochs": 3, "predictor": predictor}
    assert set(manifest.versions) == {"tailor", "torch"}


def test_the_population_is_distinct_and_judged_by_validation_images(
    space: SearchSpace, bundle: Bundle, run_dir: Path, splits: Splits
) -> None:
    population = load_population(next(run_dir.glob("population_*.csv")), space)
    archs = [entry.arch for entry in population]
    assert len(set(archs)) == len(archs) == 24
    assert {space.largest(), space.smallest()} <= set(archs)
    assert {entry.result.total for entry in population} == {500}
    predictor = load_predictor(bundle.predictor_path, space)
    assert (predictor.quality.n_archs, predictor.quality.n_images) == (24, 500)
    assert predictor.resolutions == space.resolutions


def test_the_population_holds_for_the_weights_in_the_bundle(
    space: SearchSpace, normalisation: Normalisation, bundle: Bundle, run_dir: Path, splits: Splits
) -> None:
    """The supernet in memory was rounded to half precision, and recalibration is the bundle's, as users get it."""
    calibration = load_calibration(bundle.calibration_path, space)
    entry = load_population(next(run_dir.glob("population_*.csv")), space)[5]
    result = evaluate_arch(
        load_supernet(bundle.path),
        entry.arch,
        recalibrate=lambda subnet, arch: recalibrate_from_anchors(subnet, arch, calibration),
        images=splits.validation,
        normalisation=normalisation,
    )
    assert abs(result.correct - entry.result.correct) <= 2


@pytest.mark.parametrize("index", [0, 1])
def test_a_pool_of_the_bundle_runs_as_accurately_as_it_was_evaluated(
    pooled: list[Arch], normalisation: Normalisation, bundle: Bundle, splits: Splits, index: int
) -> None:
    runtime = PoolRuntime.load(bundle.path)
    runtime.switch(1)
    runtime.switch(index)
    choice = runtime.pools[index]
    assert (runtime.arch, choice.images) == (pooled[index], 500)
    assert choice.top1 > 0.5  # four classes
    batches = evaluation_batches(splits.validation, normalisation, resolution=runtime.arch.resolution, batch_size=50)
    correct = sum(int((runtime(images).argmax(1) == labels).sum()) for images, labels in batches)
    assert abs(correct - round(choice.top1 * choice.images)) <= 2


def test_a_second_call_evaluates_nothing_and_gives_an_equal_bundle(
    space: SearchSpace,
    seed: int,
    bundle: Bundle,
    run_dir: Path,
    splits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(run_dir, tmp_path / "again")
    monkeypatch.delattr("supernet.evaluation.population.evaluate_arch")
    again = build_bundle(
        load_supernet(bundle.path),
        splits,
        tmp_path / "again",
        name="tiny",
        archs=24,
        seed=seed,
        training={"dataset": "textures", "epochs": 3},
    )
    assert again.manifest.parts["predictor"] == bundle.manifest.parts["predictor"]
    assert "pools" not in again.manifest.parts  # this call was given none
    weights = [load_supernet(made.path).state_dict() for made in (bundle, again)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    # The calibration is measured anew; another memory format of the weights moves its last bits.
    calibrations = [load_calibration(made.calibration_path, space) for made in (bundle, again)]
    for first, second in zip(*(calibration.anchors for calibration in calibrations), strict=True):
        assert first.arch == second.arch
        torch.testing.assert_close(first.real, second.real, rtol=2e-3, atol=1e-3)


def test_too_small_a_population_is_refused_before_anything_is_written(
    untrained: Supernet, splits: Splits, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfigError, match="at least 20 archs, got 19"):
        build_bundle(untrained, splits, tmp_path / "run", name="tiny", archs=19, seed=0, training={})
    assert not (tmp_path / "run").exists()


def test_no_more_archs_are_evaluated_than_the_space_has(space: SearchSpace, rng: np.random.Generator) -> None:
    few = replace(
        space,
        resolutions=(12,),
        stages=tuple(replace(stage, kernel_sizes=stage.kernel_sizes[:1]) for stage in space.stages),
    )
    archs = population_archs(few, rng, few.size() + 100)
    assert len(set(archs)) == len(archs) == few.size()


def test_anchors_are_the_largest_the_smallest_and_two_more_at_every_resolution(
    space: SearchSpace, rng: np.random.Generator
) -> None:
    anchors = anchor_archs(space, rng)
    for resolution in space.resolutions:
        at_resolution = [anchor for anchor in anchors if anchor.resolution == resolution]
        assert len(at_resolution) == 4
        for end in (space.largest(), space.smallest()):
            same = Arch(resolution, end.depths, end.kernel_sizes, end.expand_ratios, end.widths)
            assert same in at_resolution


def test_a_larger_population_starts_with_the_smaller_one(space: SearchSpace) -> None:
    """So that a bundle can be rebuilt with more archs without evaluating the old ones again."""
    small, large = (population_archs(space, np.random.default_rng(1), n_archs) for n_archs in (20, 30))
    assert large[:20] == small
