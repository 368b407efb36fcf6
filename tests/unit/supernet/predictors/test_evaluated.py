"""EvaluatedAccuracies: what was evaluated comes back, with its sampling error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from supernet.errors import FingerprintMismatchError, InvalidArchError, InvalidBundleError, InvalidConfigError
from supernet.predictors.evaluated import EvaluatedAccuracies
from supernet.predictors.loading import load_predictor
from supernet.predictors.predictor import describe_accuracy
from supernet.predictors.storage import write_file
from supernet.spaces.blocks import BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

SPACE = SearchSpace(
    "few",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,)),
        Stage(BlockKind.INVERTED, depths=(0, 1), kernel_sizes=(3, 5), expand_ratios=(2,), shortcut=True),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(2,), norm=False, bias=True),
    ),
    resolutions=(8,),
)
# Without its block a network has no kernel size: three archs.
ROWS = np.unique(SPACE.sample_rows(np.random.default_rng(0), 100), axis=0)
TOP1 = np.array([0.5, 0.75, 0.8])


def evaluated() -> EvaluatedAccuracies:
    return EvaluatedAccuracies(SPACE, ROWS, TOP1, 400)


def test_every_arch_has_the_accuracy_it_was_evaluated_at() -> None:
    np.testing.assert_array_equal(evaluated().predict(ROWS[[2, 0, 2]]), [0.8, 0.5, 0.8])
    described = describe_accuracy(evaluated(), SPACE.from_rows(ROWS[1:2])[0])
    assert described is not None
    assert described["predicted"] == 0.75
    assert described["low"] < 0.75 < described["high"]


def test_intervals_hold_the_accuracy_on_other_images_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    row = ROWS[:1]
    hits = 0
    for _ in range(2000):
        seen = rng.binomial(400, 0.9) / 400
        predictor = EvaluatedAccuracies(SPACE, ROWS, np.array([seen, 0.5, 0.5]), 400)
        (low,), (high,) = predictor.interval(row, 0.9, extra_images=1000)
        hits += low <= rng.binomial(1000, 0.9) / 1000 <= high
    # Four standard deviations of a share of 2,000.
    assert hits / 2000 == pytest.approx(0.9, abs=0.027)


def test_nothing_wrong_among_few_images_is_no_certainty() -> None:
    (low,), (high,) = EvaluatedAccuracies(SPACE, ROWS, np.array([1.0, 0.5, 0.5]), 20).interval(ROWS[:1], 0.9)
    assert low < 0.95
    assert high == 1


def test_a_file_gives_back_what_was_saved_and_only_for_its_space(tmp_path: Path) -> None:
    path = tmp_path / "predictor.safetensors"
    evaluated().save(path)
    loaded = load_predictor(path, SPACE)
    np.testing.assert_array_equal(loaded.predict(ROWS), TOP1)
    assert loaded.resolutions == (8,)
    assert loaded.quality is None
    with pytest.raises(FingerprintMismatchError):
        load_predictor(path, replace(SPACE, resolutions=(16,)))


@pytest.mark.parametrize(
    ("rows", "top1", "n_images"),
    [
        (ROWS[:2], TOP1[:2], 400),
        (ROWS[[0, 1, 1]], TOP1, 400),
        (ROWS, TOP1[:2], 400),
        (ROWS, np.array([0.5, 0.5, 1.5]), 400),
        (ROWS, np.array([0.5, 0.5, np.nan]), 400),
        (ROWS, TOP1, 0),
    ],
)
def test_missing_archs_and_impossible_accuracies_are_refused(
    rows: np.ndarray, top1: np.ndarray, n_images: int, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfigError):
        EvaluatedAccuracies(SPACE, rows, top1, n_images)
    path = tmp_path / "predictor.safetensors"
    arrays = {"rows": rows, "top1": top1}
    write_file(path, SPACE, file_format="tailor-evaluated-accuracies/1", content={"n_images": n_images}, arrays=arrays)
    with pytest.raises(InvalidBundleError, match="is damaged"):
        load_predictor(path, SPACE)


def test_archs_outside_the_space_and_impossible_levels_are_refused() -> None:
    with pytest.raises(InvalidArchError):
        evaluated().predict(ROWS + 1)
    with pytest.raises(InvalidConfigError):
        evaluated().interval(ROWS, 1.0)
    with pytest.raises(InvalidConfigError):
        evaluated().interval(ROWS, 0.9, extra_images=0)
