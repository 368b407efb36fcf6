"""The reference project's predictor on numpy: what it says, what it refuses, its file, and searches with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from supernet.bundle import PARTS, open_bundle, write_manifest
from supernet.errors import (
    FingerprintMismatchError,
    InvalidArchError,
    InvalidBundleError,
    InvalidConfigError,
    MissingPartError,
)
from supernet.predictors.evaluate import evaluate_predictor
from supernet.predictors.loading import load_predictor, space_name_of
from supernet.predictors.ofa_encodings import OfaEncoding, resolution_first_encoding, tutorial_encoding
from supernet.predictors.ofa_network import TUTORIAL_RESOLUTIONS, OfaPredictor
from supernet.predictors.predictor import describe_accuracy
from supernet.search.evolution import evolve
from supernet.search.problem import Constraint, SearchProblem
from supernet.spaces.costs import macs, macs_cost
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows, SearchSpace

HIDDEN = 24
SPACE = load_space("ofa_mbv3_w1.2")


def random_layers(encoding: OfaEncoding, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Accuracies around 0.8, most of them different."""
    rng = np.random.default_rng(seed)
    shapes = ((HIDDEN, encoding.n_bits), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (1, HIDDEN))
    layers = [[rng.normal(0, 0.2, shape), rng.normal(0, 0.1, shape[0])] for shape in shapes]
    layers[-1] = [0.1 * layers[-1][0], np.array([0.8])]
    return tuple((weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers)


def random_predictor(encoding: OfaEncoding, resolutions: tuple[int, ...]) -> OfaPredictor:
    return OfaPredictor(encoding, resolutions, random_layers(encoding))


@pytest.fixture
def tutorial() -> OfaPredictor:
    return random_predictor(tutorial_encoding(SPACE), TUTORIAL_RESOLUTIONS)


@pytest.fixture
def newer() -> OfaPredictor:
    encoding = resolution_first_encoding(SPACE, (224, 160, 128))
    return random_predictor(encoding, encoding.resolutions)


@pytest.fixture(params=["tutorial", "newer"])
def network(request: pytest.FixtureRequest) -> OfaPredictor:
    return request.getfixturevalue(request.param)


def known_rows(predictor: OfaPredictor, n_archs: int) -> Rows:
    rng = np.random.default_rng(5)
    rows = SPACE.sample_rows(rng, n_archs)
    known = [index for index, size in enumerate(SPACE.resolutions) if size in predictor.resolutions]
    rows[:, 0] = rng.choice(known, n_archs)
    return rows


@pytest.mark.parametrize("n_archs", [0, 1, 7, 2048, 2049])
def test_it_predicts_what_its_layers_say(n_archs: int, network: OfaPredictor) -> None:
    rows = known_rows(network, n_archs)
    values = network.encoding.encode(rows).astype(np.float64)
    for weight, bias in network.layers[:-1]:
        values = np.maximum(values @ weight.T.astype(np.float64) + bias, 0)
    weight, bias = network.layers[-1]
    expected = (values @ weight.T.astype(np.float64) + bias)[:, 0]
    assert n_archs < 7 or expected.std() > 0.003
    assert network.predict(rows) == pytest.approx(expected, abs=2e-6)  # float32 against float64


def test_predictions_are_fractions(tutorial: OfaPredictor) -> None:
    rows = known_rows(tutorial, 20)
    for bias, expected in ((9.0, 1.0), (-9.0, 0.0)):
        weight = tutorial.layers[-1][0]
        layers = (*tutorial.layers[:-1], (weight, np.array([bias], np.float32)))
        assert (replace(tutorial, layers=layers).predict(rows) == expected).all()


def test_choices_of_skipped_blocks_do_not_count(network: OfaPredictor) -> None:
    rows = np.repeat(known_rows(network, 1), 2, axis=0)
    rows[:, 1:6] = 0
    rows = SPACE.canonicalize_rows(rows)
    rows[1][SPACE.skipped_slots(rows)[1]] = 2
    first, second = network.predict(rows)
    assert first == second


@pytest.mark.parametrize("resolution", [164, 172])
def test_resolutions_the_reference_would_floor_are_refused(resolution: int, tutorial: OfaPredictor) -> None:
    arch = replace(SPACE.largest(), resolution=resolution)
    with pytest.raises(
        InvalidArchError, match=rf"never saw resolution {resolution}; it knows \[160, 176, 192, 208, 224\]"
    ):
        tutorial.predict(SPACE.to_rows([arch]))
    assert describe_accuracy(tutorial, arch) is None


def test_rows_outside_the_space_are_refused(network: OfaPredictor) -> None:
    rows = known_rows(network, 3)
    with pytest.raises(InvalidArchError, match="shape"):
        network.predict(rows[:, :-1])
    with pytest.raises(InvalidArchError, match="does not offer"):
        network.predict(rows + np.int16(3))


def test_nobody_knows_how_far_off_it_is(network: OfaPredictor) -> None:
    rows = known_rows(network, 30)
    assert network.quality is None
    assert network.interval(rows, 0.9, extra_images=10) is None
    arch = SPACE.from_rows(rows)[0]
    predicted = float(network.predict(rows[:1])[0])
    assert describe_accuracy(network, arch) == {"predicted": predicted, "low": None, "high": None, "level": None}
    report = evaluate_predictor(network, rows, network.predict(rows) - 0.03).to_dict()
    assert (report["coverage_90"], report["width_90_pp"]) == (None, None)
    assert (report["bias_pp"], report["kendall_tau"]) == (pytest.approx(3), pytest.approx(1))


@pytest.mark.parametrize(
    ("layer", "change"),
    [
        (0, lambda weight, bias: (weight[:, :-1], bias)),
        (1, lambda weight, bias: (weight[:-1], bias)),
        (1, lambda weight, bias: (weight, bias[:-1])),
        (3, lambda weight, bias: (np.repeat(weight, 2, axis=0), bias)),
        (2, lambda weight, bias: (weight.astype(np.float64), bias)),
        (2, lambda weight, bias: (weight * np.float32(np.nan), bias)),
        (2, lambda weight, bias: (weight, np.full_like(bias, 1e30))),
    ],
)
def test_layers_that_cannot_follow_each_other_are_refused(layer: int, change: object, tutorial: OfaPredictor) -> None:
    layers = list(tutorial.layers)
    layers[layer] = change(*layers[layer])
    with pytest.raises(ValueError, match=f"layer {layer} (has weights of|holds numbers)"):
        replace(tutorial, layers=tuple(layers))


def test_another_number_of_layers_is_refused(tutorial: OfaPredictor) -> None:
    with pytest.raises(ValueError, match="3 layers, not 4"):
        replace(tutorial, layers=tutorial.layers[1:])


# ---------------------------------------------------------------------- files


def test_a_saved_one_predicts_the_same(network: OfaPredictor, tmp_path: Path) -> None:
    first, again = tmp_path / "predictor.safetensors", tmp_path / "again.safetensors"
    network.save(first)
    loaded = load_predictor(first, SPACE)
    rows = known_rows(network, 50)
    assert (loaded.predict(rows) == network.predict(rows)).all()
    assert (loaded.resolutions, loaded.quality, loaded.space) == (network.resolutions, None, SPACE)
    assert space_name_of(first) == "ofa_mbv3_w1.2"
    loaded.save(again)
    assert again.read_bytes() == first.read_bytes()
    assert sorted(tmp_path.iterdir()) == [again, first]


def test_a_place_no_file_can_be_written_to_is_refused(network: OfaPredictor, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be written"):
        network.save(tmp_path / "absent" / "p")


def test_another_space_is_refused(network: OfaPredictor, tmp_path: Path) -> None:
    network.save(tmp_path / "p")
    with pytest.raises(FingerprintMismatchError, match="was fitted for the space"):
        load_predictor(tmp_path / "p", load_space("ofa_mbv3_w1.0"))


@pytest.mark.parametrize(
    "change",
    [
        {"0.weight": np.zeros((HIDDEN, 3), np.float32)},
        {"3.bias": np.full(1, np.inf, np.float32)},
        {"2.weight": np.zeros((HIDDEN, HIDDEN), np.int32)},
        {"unknown": np.zeros(2)},
        {"1.bias": None},
    ],
)
def test_damaged_arrays_are_refused(
    change: dict[str, np.ndarray | None], network: OfaPredictor, tmp_path: Path
) -> None:
    path = tmp_path / "p"
    network.save(path)
    arrays = {name: array for name, array in {**load_file(path), **change}.items() if array is not None}
    save_file(arrays, path, metadata={"tailor": json.dumps(header_of(path))})
    with pytest.raises(InvalidBundleError, match=r"is damaged: .*import the predictor again"):
        load_predictor(path, SPACE)


@pytest.mark.parametrize(
    "change",
    [
        {"resolutions": []},
        {"resolutions": [176, 160]},
        {"resolutions": [160, 160]},
        {"resolutions": [161]},
        {"resolutions": 160},
        {"resolutions": [True]},
        {"resolution_bits": [160]},
        {"resolution_bits": [160, 160, 176]},
        {"resolution_bits": "no"},
        {"resolution_bits": [160, None, 224]},
    ],
)
def test_damaged_headers_are_refused(change: dict[str, object], newer: OfaPredictor, tmp_path: Path) -> None:
    path = tmp_path / "p"
    newer.save(path)
    save_file(load_file(path), path, metadata={"tailor": json.dumps(header_of(path) | change)})
    with pytest.raises(InvalidBundleError, match="is damaged"):
        load_predictor(path, SPACE)


def header_of(path: Path) -> dict[str, object]:
    with safe_open(path, framework="numpy") as file:
        header: dict[str, object] = json.loads(file.metadata()["tailor"])
    return header


# ---------------------------------------------------------------------- searching


def test_a_bundle_of_space_and_predictor_is_searchable_and_has_no_weights(
    tutorial: OfaPredictor, tmp_path: Path
) -> None:
    tutorial.save(tmp_path / PARTS["predictor"])
    write_manifest(
        tmp_path,
        name="imported",
        space=SPACE,
        classes=tuple(f"class {index}" for index in range(SPACE.classes)),
        normalisation=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        training={"method": "progressive_shrinking"},
        versions={},
    )
    bundle = open_bundle(tmp_path)
    assert set(bundle.manifest.parts) == {"predictor"}
    for part in ("weights", "calibration"):
        with pytest.raises(MissingPartError, match=f"has no {part}"):
            getattr(bundle, f"{part}_path")
    predictor = load_predictor(bundle.predictor_path, bundle.space)
    arch = best_within(predictor.space, predictor, budget=4e8)
    assert macs(SPACE, arch) <= 4e8
    assert arch.resolution in TUTORIAL_RESOLUTIONS
    rivals = [other for other in SPACE.from_rows(known_rows(tutorial, 200)) if macs(SPACE, other) <= 4e8]
    assert len(rivals) > 20
    assert tutorial.predict(SPACE.to_rows([arch]))[0] > tutorial.predict(SPACE.to_rows(rivals)).max()


def best_within(space: SearchSpace, predictor: OfaPredictor, *, budget: float):
    problem = SearchProblem(
        space, predictor.predict, (Constraint("macs", macs_cost(space), budget),), predictor.resolutions
    )
    return evolve(problem, evaluations=2000, seed=1).arch
