"""The reference project's predictor files: both layouts, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from supernet.errors import InvalidArchError, InvalidCheckpointError, InvalidSpaceError
from supernet.ofa.predictors import import_predictor
from supernet.predictors.ofa_network import OfaPredictor
from supernet.spaces.presets import load_space
from supernet.spaces.space import Rows

SPACE = load_space("ofa_mbv3_w1.2")
SIZES = (128, 160, 192, 224)
State = dict[str, torch.Tensor]


def random_state(*shapes: tuple[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) / 16 for name, shape in shapes}


@pytest.fixture
def tutorial() -> State:
    return random_state(
        *(("0.weight", (30, 128)), ("0.bias", (30,)), ("2.weight", (30, 30)), ("2.bias", (30,))),
        *(("4.weight", (30, 30)), ("4.bias", (30,)), ("6.weight", (1, 30)), ("6.bias", (1,))),
    )


@pytest.fixture
def newer() -> State:
    names = [(f"layers.{index}.0.weight", (30, 30 if index else 124)) for index in range(3)]
    biases = [(f"layers.{index}.0.bias", (30,)) for index in range(3)]
    return {**random_state(*names, *biases, ("layers.3.weight", (1, 30))), "base_acc": torch.tensor([0.75])}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictor.pth"


def rows_at(predictor: OfaPredictor) -> Rows:
    rows = SPACE.sample_rows(np.random.default_rng(1), 60)
    known = [index for index, size in enumerate(SPACE.resolutions) if size in predictor.resolutions]
    rows[:, 0] = np.resize(known, len(rows))
    return rows


def plain(state: State, bits: np.ndarray) -> np.ndarray:
    """The network by its tensors, in the order they were saved; the output's bias is the last one."""
    weights = [tensor.double().numpy() for name, tensor in state.items() if "weight" in name]
    biases = [tensor.double().numpy() for name, tensor in state.items() if "weight" not in name]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        bits = np.maximum(bits @ weight.T + bias, 0)
    return (bits @ weights[-1].T + biases[-1])[:, 0]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_the_tutorials_predictor_is_read(legacy: bool, nested: bool, tutorial: State, file: Path) -> None:
    tutorial["6.bias"] += 0.8
    torch.save({"state_dict": tutorial} if nested else tutorial, file, _use_new_zipfile_serialization=not legacy)
    predictor = import_predictor(file, SPACE)
    rows = rows_at(predictor)
    assert predictor.resolutions == (160, 176, 192, 208, 224)
    assert predictor.predict(rows) == pytest.approx(plain(tutorial, predictor.encoding.encode(rows)), abs=1e-5)


def test_the_newer_predictor_is_read(newer: State, file: Path) -> None:
    torch.save({"state_dict": newer, "epoch": 3}, file)
    predictor = import_predictor(file, SPACE, resolutions=(128, 224, 160, 192))
    rows = rows_at(predictor)
    assert predictor.resolutions == (160, 192, 224)
    assert predictor.predict(rows) == pytest.approx(plain(newer, predictor.encoding.encode(rows)), abs=1e-5)


def test_a_tutorials_predictor_of_other_resolutions_is_read(tutorial: State, file: Path) -> None:
    torch.save(tutorial, file)
    assert import_predictor(file, load_space("ofa_mbv3_w1.0"), resolutions=(144, 128)).resolutions == (128, 144)
    for wrong in ((), (140,), (160, 300)):
        with pytest.raises(InvalidArchError, match=r"knows, in space 'ofa_mbv3_w1\.2', resolutions among"):
            import_predictor(file, SPACE, resolutions=wrong)
    with pytest.raises(InvalidArchError, match="Name those it was trained with"):
        import_predictor(file, replace(SPACE, resolutions=(128, 164)))


def test_half_precision_is_read(tutorial: State, file: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in tutorial.items()}, file)
    assert import_predictor(file, SPACE).layers[0][0].dtype == np.float32


@pytest.mark.parametrize("layout", ["tutorial", "newer"])
def test_missing_and_left_over_keys_are_named(layout: str, request: pytest.FixtureRequest, file: Path) -> None:
    state = request.getfixturevalue(layout)
    (key, *_) = state
    state["surprise"] = state.pop(key)
    torch.save(state, file)
    with pytest.raises(InvalidCheckpointError, match=rf"missing \['{key}'\], left over \['surprise'\]"):
        import_predictor(file, SPACE, resolutions=SIZES)


def test_keys_of_both_layouts_are_refused(tutorial: State, newer: State, file: Path) -> None:
    torch.save({**tutorial, **newer}, file)
    with pytest.raises(InvalidCheckpointError, match=r"missing \[\], left over \['base_acc', 'layers\.0"):
        import_predictor(file, SPACE)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("0.weight", lambda tensor: tensor[:, 1:]),
        ("2.weight", lambda tensor: tensor[1:]),
        ("4.bias", lambda tensor: tensor[1:]),
        ("6.weight", lambda tensor: tensor.repeat(2, 1)),
        ("6.bias", lambda tensor: tensor * torch.nan),
        ("0.weight", lambda tensor: tensor * 1e20),
    ],
)
def test_what_does_not_fit_is_refused(key: str, change: object, tutorial: State, file: Path) -> None:
    torch.save({**tutorial, key: change(tutorial[key])}, file)
    with pytest.raises(InvalidCheckpointError, match=r"does not fit space 'ofa_mbv3_w1\.2' with 128 inputs .*layer \d"):
        import_predictor(file, SPACE)


def test_tensors_of_other_dimensions_are_refused(tutorial: State, file: Path) -> None:
    torch.save({**tutorial, "0.weight": torch.zeros(())}, file)
    with pytest.raises(InvalidCheckpointError, match=r"'0\.weight' in .* has the shape \(\), not 2 sizes"):
        import_predictor(file, SPACE)


def test_image_sizes_have_to_be_told(newer: State, file: Path) -> None:
    torch.save(newer, file)
    with pytest.raises(InvalidCheckpointError, match=r"124 inputs, 120 of them .*: name 4 sizes, .* --resolutions"):
        import_predictor(file, SPACE)
    with pytest.raises(InvalidCheckpointError, match="with 123 inputs"):
        import_predictor(file, SPACE, resolutions=SIZES[1:])
    with pytest.raises(InvalidArchError, match="without repeats"):
        import_predictor(file, SPACE, resolutions=(160, 160, 192, 224))


def test_spaces_of_another_family_are_refused(tutorial: State, file: Path) -> None:
    torch.save(tutorial, file)
    with pytest.raises(InvalidSpaceError, match="one of 20 blocks"):
        import_predictor(file, load_space("cifar_mbv3"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (3, "no state dict but int"),
        ([1, 2], "no state dict but list"),
        ({1: torch.zeros(2)}, "no state dict but dict"),
        ({"state_dict": 3}, r"\['state_dict'\] of 1 entries are no plain tensors"),
        ({"0.weight": "text"}, r"\['0.weight'\] of 1 entries are no plain tensors"),
        ({"0.weight": torch.zeros(2, dtype=torch.int64)}, r"\['0.weight'\] are no tensors"),
        ({}, "no state dict but dict"),
        (torch.nn.ReLU(), "more than tensors"),
        (Path("x"), "more than tensors"),
    ],
)
def test_pickles_that_are_no_state_dict_are_refused(content: object, message: str, file: Path) -> None:
    torch.save(content, file)
    with pytest.raises(InvalidCheckpointError, match=message):
        import_predictor(file, SPACE)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.99])
def test_half_a_file_is_refused(share: float, legacy: bool, tutorial: State, file: Path) -> None:
    torch.save(tutorial, file, _use_new_zipfile_serialization=not legacy)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InvalidCheckpointError, match="incomplete"):
        import_predictor(file, SPACE)


def test_files_that_are_not_there_are_refused(file: Path) -> None:
    with pytest.raises(InvalidCheckpointError, match="No such file"):
        import_predictor(file, SPACE)
    with pytest.raises(InvalidCheckpointError, match="directory"):
        import_predictor(file.parent, SPACE)


@pytest.mark.shared_data
def test_the_published_predictor_says_what_its_tensors_say(shared_data: Path) -> None:
    file = shared_data / "ofa_acc_predictor.pth"
    predictor = import_predictor(file, SPACE)
    rows = rows_at(predictor)
    expected = plain(torch.load(file, map_location="cpu", weights_only=True), predictor.encoding.encode(rows))
    assert expected.std() > 0.005
    assert predictor.predict(rows) == pytest.approx(expected, abs=1e-6)
    largest, smallest = predictor.predict(SPACE.to_rows([SPACE.largest(), SPACE.smallest()]))
    assert (largest, smallest) == (pytest.approx(0.8359, abs=1e-4), pytest.approx(0.7531, abs=1e-4))
