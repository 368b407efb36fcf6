from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from supernet.errors import FingerprintMismatchError, InvalidArchError, InvalidBundleError, InvalidConfigError
from supernet.predictors.accuracy import AccuracyPredictor
from supernet.predictors.evaluate import evaluate_predictor
from supernet.predictors.loading import load_predictor, space_name_of
from supernet.spaces.arch import Arch
from supernet.spaces.costs import Values
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows, SearchSpace


def test_archs_it_never_saw_are_predicted(predictor: AccuracyPredictor, rows: Rows, top1: Values) -> None:
    report = evaluate_predictor(predictor, rows[150:], top1[150:])
    assert report.rmse_pp < 0.2 * 100 * top1.std()
    assert report.kendall_tau > 0.9
    assert report.coverage_90 >= 0.85


def test_quality_from_cross_validation_is_that_on_new_archs(
    predictor: AccuracyPredictor, rows: Rows, top1: Values
) -> None:
    report = evaluate_predictor(predictor, rows[150:], top1[150:])
    assert predictor.quality.rmse_pp == pytest.approx(report.rmse_pp, rel=0.35)
    assert predictor.quality.kendall_tau == pytest.approx(report.kendall_tau, abs=0.05)
    assert predictor.quality.width_90_pp == pytest.approx(report.width_90_pp, rel=0.35)
    assert (predictor.quality.n_archs, predictor.quality.n_images) == (150, 5000)


def test_choices_of_skipped_blocks_do_not_count(predictor: AccuracyPredictor, space: SearchSpace) -> None:
    row = space.to_rows([space.smallest()])
    noisy = np.where(space.skipped_slots(row), np.int16(2), row)
    assert (noisy != row).any()
    assert predictor.predict(noisy) == predictor.predict(row)


def test_one_arch_is_predicted_as_among_many(predictor: AccuracyPredictor, rows: Rows) -> None:
    many = np.tile(rows, (12, 1))  # more than one chunk
    alone = np.concatenate([predictor.predict(rows[[index]]) for index in range(20)])
    # Covariances are float32 and BLAS sums a single column in another order.
    assert predictor.predict(many)[:20] == pytest.approx(alone, abs=2e-5)
    assert predictor.predict(many)[-400:] == pytest.approx(predictor.predict(rows), abs=2e-5)
    assert predictor.predict(rows[:0]).shape == (0,)


def test_the_same_seed_gives_the_same_predictor(space: SearchSpace, rows: Rows, top1: Values) -> None:
    first, second = (
        AccuracyPredictor.fit(space, rows[:40], top1[:40], n_images=None, rng=np.random.default_rng(4)) for _ in "ab"
    )
    assert first.quality == second.quality
    assert (first.predict(rows) == second.predict(rows)).all()


def test_accuracies_of_the_same_arch_are_averaged(space: SearchSpace, rows: Rows, top1: Values) -> None:
    twice = np.concatenate([rows[:60], rows[:60]])
    spread = np.concatenate([top1[:60] - 0.01, top1[:60] + 0.01])
    once = AccuracyPredictor.fit(space, rows[:60], top1[:60], n_images=None, rng=np.random.default_rng(5))
    both = AccuracyPredictor.fit(space, twice, spread, n_images=None, rng=np.random.default_rng(5))
    assert both.quality.n_archs == 60
    assert both.predict(rows) == pytest.approx(once.predict(rows), abs=2e-5)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_hold_the_prediction_and_widen_with_the_level(
    level: float, predictor: AccuracyPredictor, rows: Rows
) -> None:
    low, high = predictor.interval(rows, level)
    predicted = predictor.predict(rows)
    assert ((low >= 0) & (low < predicted) & (predicted < high) & (high <= 1)).all()
    narrow_low, narrow_high = predictor.interval(rows, level / 2)
    assert ((narrow_low >= low) & (narrow_high <= high)).all()


def test_extra_images_add_the_sampling_error_of_both_sets(predictor: AccuracyPredictor, rows: Rows) -> None:
    low, high = predictor.interval(rows, 0.9)
    predicted = predictor.predict(rows)
    with_low, with_high = predictor.interval(rows, 0.9, extra_images=10_000)
    sampling = 1.6449 * np.sqrt(predicted * (1 - predicted) * (1 / 10_000 + 1 / 5000))
    assert (with_high - predicted) ** 2 == pytest.approx((high - predicted) ** 2 + sampling**2, rel=1e-3)
    assert (predicted - with_low) ** 2 == pytest.approx((predicted - low) ** 2 + sampling**2, rel=1e-3)


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, np.nan])
def test_levels_outside_0_and_1_are_refused(level: float, predictor: AccuracyPredictor, rows: Rows) -> None:
    with pytest.raises(InvalidConfigError, match="level"):
        predictor.interval(rows, level)


def test_no_images_are_refused(predictor: AccuracyPredictor, space: SearchSpace, rows: Rows, top1: Values) -> None:
    with pytest.raises(InvalidConfigError, match="at least one"):
        predictor.interval(rows, extra_images=0)
    with pytest.raises(InvalidConfigError, match="at least one image"):
        AccuracyPredictor.fit(space, rows, top1, n_images=0, rng=np.random.default_rng(0))


def test_resolutions_never_seen_are_refused_by_name(space: SearchSpace, rows: Rows, top1: Values) -> None:
    seen = rows[:, 0] < 2
    part = AccuracyPredictor.fit(space, rows[seen][:50], top1[seen][:50], n_images=None, rng=np.random.default_rng(0))
    assert part.resolutions == (24, 28)
    for call in (part.predict, part.interval):
        with pytest.raises(InvalidArchError, match=r"resolution 32; it knows \[24, 28\]"):
            call(rows)


def test_rows_outside_the_space_are_refused(predictor: AccuracyPredictor, rows: Rows) -> None:
    with pytest.raises(InvalidArchError, match="shape"):
        predictor.predict(rows[:, :-1])
    with pytest.raises(InvalidArchError, match="does not offer"):
        predictor.predict(rows + np.int16(3))


@pytest.mark.parametrize("wrong", [1.01, -0.1, np.nan, np.inf, 75.0])
def test_accuracies_that_are_no_fractions_are_refused(
    wrong: float, space: SearchSpace, rows: Rows, top1: Values
) -> None:
    with pytest.raises(InvalidConfigError, match="fractions between 0 and 1"):
        AccuracyPredictor.fit(space, rows, np.append(top1[:-1], wrong), n_images=None, rng=np.random.default_rng(0))


def test_too_few_archs_are_refused(space: SearchSpace, rows: Rows, top1: Values) -> None:
    repeated = np.repeat(rows[:19], 2, axis=0)
    for given in (rows[:19], repeated):
        with pytest.raises(InvalidConfigError, match="at least 20"):
            AccuracyPredictor.fit(space, given, top1[: len(given)], n_images=None, rng=np.random.default_rng(0))


@pytest.mark.parametrize("constant", [0.0, 0.7, 1.0])
def test_accuracies_that_are_all_equal_can_be_fitted(constant: float, space: SearchSpace, rows: Rows) -> None:
    flat = AccuracyPredictor.fit(space, rows[:30], np.full(30, constant), n_images=None, rng=np.random.default_rng(0))
    assert flat.predict(rows) == pytest.approx(constant, abs=2e-4)
    low, high = flat.interval(rows)
    assert np.isfinite([low, high]).all()


# ---------------------------------------------------------------------- files


def test_a_saved_predictor_predicts_the_same(
    predictor: AccuracyPredictor, space: SearchSpace, rows: Rows, tmp_path: Path
) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    loaded = load_predictor(path, space)
    assert (loaded.predict(rows) == predictor.predict(rows)).all()
    assert np.array_equal(loaded.interval(rows), predictor.interval(rows))
    assert (loaded.quality, loaded.resolutions) == (predictor.quality, predictor.resolutions)
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.safetensors", "predictor.safetensors"]


def test_a_place_no_file_can_be_written_to_is_refused(predictor: AccuracyPredictor, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "p", Path(), Path("..")):
        with pytest.raises(InvalidConfigError, match="cannot be written: name a file in a folder that exists"):
            predictor.save(path)
    assert not list(tmp_path.iterdir())


def test_another_space_is_refused(predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    other = space.with_classes(100)
    with pytest.raises(FingerprintMismatchError, match="was fitted for the space") as caught:
        load_predictor(path, other)
    assert (caught.value.expected, caught.value.found) == (other.fingerprint, space.fingerprint)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_truncated_files_are_refused(
    kept: int, predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InvalidBundleError, match="Is the file complete"):
        load_predictor(path, space)


def test_absent_and_foreign_files_are_refused(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    with pytest.raises(InvalidBundleError, match="cannot be read"):
        load_predictor(path, space)
    save_file({"weights": np.zeros(3)}, path)
    with pytest.raises(InvalidBundleError, match="no Tailor predictor"):
        load_predictor(path, space)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.zeros(3)},
        {"weights": np.full(150, np.nan)},
        {"residuals": np.zeros(150, np.float32)},
        {"rows": np.full((150, 46), 99, np.int16)},
        {"rows": np.zeros((0, 46), np.int16)},
        {"unknown": np.zeros(2)},
        {"rows": np.zeros((150, 46), np.float64)},
        {"residuals": np.full(150, -1.0)},
        {"residuals": np.arange(150.0)[::-1].copy()},
        {"weights": np.full(150, 1e300)},
        {"scale": np.array([-2.0, 0.0])},
        {"trend_scale": np.array([16.0, -1.0])},
        {"trend_scale": np.array([1e300, 1.0])},
    ],
)
def test_damaged_arrays_are_refused(
    change: dict[str, np.ndarray], predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    arrays = load_file(path)
    save_file({**arrays, **change}, path, metadata={"tailor": json.dumps(_content(predictor, tmp_path))})
    with pytest.raises(InvalidBundleError, match="damaged"):
        load_predictor(path, space)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "tailor-predictor/9"}, "no Tailor predictor"),
        ({"space_fingerprint": "another"}, "was fitted for the space"),
        ({"quality": {}}, "damaged"),
        ({"quality": 3}, "damaged"),
        ({"hyper": {"amplitude": "much"}}, "damaged"),
        ({"hyper": []}, "damaged"),
        *(({"space_fingerprint": value}, "was fitted for the space") for value in (None, 7, True, [], {}, 1.5)),
        *(({"format": value}, "no Tailor predictor") for value in (None, [], {"a": 1}, 10**400)),
    ],
)
def test_damaged_metadata_are_refused(
    change: dict[str, object], message: str, predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    save_file(load_file(path), path, metadata={"tailor": json.dumps(_content(predictor, tmp_path) | change)})
    with pytest.raises(InvalidBundleError, match=message):
        load_predictor(path, space)


@pytest.mark.parametrize("value", [None, True, "1.0", "", [], math.nan, math.inf, -1, 0, 1e-300, 10**400])
@pytest.mark.parametrize("name", ["amplitude", "length", "resolution_length", "slope", "noise"])
def test_hyper_parameters_no_fit_gives_are_refused(
    value: object, name: str, predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    with pytest.raises(InvalidBundleError, match=f"'{name}' must be a number from"):
        load_predictor(_rewritten(predictor, tmp_path, section="hyper", name=name, value=value), space)


@pytest.mark.parametrize("value", [True, "300", [], math.nan, math.inf])
@pytest.mark.parametrize("name", ["n_archs", "rmse_pp", "kendall_tau", "bias_pp", "coverage_90", "width_90_pp"])
def test_a_quality_that_is_no_number_is_refused(
    value: object, name: str, predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    with pytest.raises(InvalidBundleError, match=f"'{name}' must be a "):
        load_predictor(_rewritten(predictor, tmp_path, section="quality", name=name, value=value), space)


@pytest.mark.parametrize("value", [0, -1, 1.5, "500", False, [1]])
def test_a_number_of_images_nobody_can_have_is_refused(
    value: object, predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    with pytest.raises(InvalidBundleError, match="'n_images' must be a whole number from 1, got"):
        load_predictor(_rewritten(predictor, tmp_path, section="quality", name="n_images", value=value), space)


def test_a_missing_hyper_parameter_has_no_default(
    predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    path = _rewritten(predictor, tmp_path, section="hyper", name=None, value=None)
    with pytest.raises(InvalidBundleError, match="damaged: 'amplitude'"):
        load_predictor(path, space)


def test_half_precision_numpy_does_not_know_is_refused(
    predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b'"dtype":"I16"', b'"dtype":"BF16"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    # Some libraries teach numpy this type, and the tests before may have loaded one.
    with pytest.raises(InvalidBundleError, match=r"cannot be read as safetensors|whole numbers"):
        load_predictor(path, space)


@pytest.mark.parametrize("header", [{}, {"space": None}, {"space": 3}, {"space": ["a"]}, [], 3, None])
def test_a_file_that_names_no_space_is_refused(header: object, tmp_path: Path) -> None:
    path = tmp_path / "predictor.safetensors"
    save_file({"a": np.zeros(1)}, path, metadata={"tailor": json.dumps(header)})
    with pytest.raises(InvalidBundleError, match=r"predictor\.safetensors' is "):
        space_name_of(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(InvalidBundleError, match="cannot be read as safetensors"):
        space_name_of(path)


def _rewritten(predictor: AccuracyPredictor, folder: Path, *, section: str, name: str | None, value: object) -> Path:
    """The predictor's file with one value of its metadata replaced; all of the section's dropped for no name."""
    content: Any = _content(predictor, folder)
    content[section] = {} if name is None else content[section] | {name: value}
    path = folder / "whole.safetensors"
    save_file(load_file(path), path, metadata={"tailor": json.dumps(content)})
    return path


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000])
def test_metadata_that_are_no_object_are_refused(
    text: str, predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    save_file(load_file(path), path, metadata={"tailor": text})
    with pytest.raises(InvalidBundleError, match="damaged"):
        load_predictor(path, space)


def _content(predictor: AccuracyPredictor, folder: Path) -> dict[str, object]:
    predictor.save(folder / "whole.safetensors")
    with safe_open(folder / "whole.safetensors", framework="numpy") as file:
        content: dict[str, object] = json.loads(file.metadata()["tailor"])
    return content


# ---------------------------------------------------------------------- public measurements


def _read(folder: Path, space: SearchSpace) -> tuple[Rows, Values, list[str]]:
    with (folder / "ofa_mbv3_w1.0_measured.csv").open() as file:
        lines = list(csv.DictReader(file))
    archs = [
        Arch.from_ofa(
            {key: [int(value) for value in line[key].split("-")] for key in ("ks", "e", "d")} | {"r": int(line["r"])},
            space,
        )
        for line in lines
    ]
    top1 = np.array([float(line["top1_percent"]) for line in lines]) / 100
    return space.to_rows(archs), top1, [line["source"] for line in lines]


@pytest.mark.shared_data
@pytest.mark.parametrize("seed", range(2))
def test_held_out_public_subnets_are_predicted_well(seed: int, shared_data: Path) -> None:
    space = load_space("ofa_mbv3_w1.0")
    rows, top1, _ = _read(shared_data, space)
    order = np.random.default_rng(seed).permutation(len(rows))
    train, test = order[:500], order[500:]
    predictor = AccuracyPredictor.fit(space, rows[train], top1[train], n_images=None, rng=np.random.default_rng(0))
    report = evaluate_predictor(predictor, rows[test], top1[test])
    assert report.rmse_pp <= 0.20
    assert report.kendall_tau >= 0.94
    assert report.coverage_90 >= 0.85
    assert report.width_90_pp <= 1.0


@pytest.mark.shared_data
def test_intervals_hold_on_a_sample_found_by_another_search(shared_data: Path) -> None:
    space = load_space("ofa_mbv3_w1.0")
    rows, top1, sources = _read(shared_data, space)
    test = np.array(sources) == "multi_objective"
    predictor = AccuracyPredictor.fit(space, rows[~test], top1[~test], n_images=None, rng=np.random.default_rng(0))
    report = evaluate_predictor(predictor, rows[test], top1[test])
    assert report.rmse_pp <= 0.20
    assert report.kendall_tau >= 0.94
    assert report.coverage_90 >= 0.80
    assert report.width_90_pp <= 1.0
