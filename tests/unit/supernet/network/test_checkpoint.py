"""Weights in files: round trips, and files that are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from supernet.errors import FingerprintMismatchError, InvalidBundleError
from supernet.network.checkpoint import FORMAT, load_tensors, load_weights, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.spaces.space import SearchSpace


@pytest.fixture
def path(tmp_path: Path, tiny_supernet: Supernet) -> Path:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, tiny_supernet.state_dict(), tiny_supernet.space, epochs_done=3, config={"seed": 1})
    return path


def another(space: SearchSpace) -> Supernet:
    return Supernet(space, torch.Generator().manual_seed(9))


def test_tensors_and_metadata_come_back(path: Path, tiny_supernet: Supernet) -> None:
    tensors, metadata = load_tensors(path, tiny_supernet.space)
    assert metadata == {"epochs_done": 3, "config": {"seed": 1}}
    assert set(tensors) == set(tiny_supernet.state_dict())
    assert all(torch.equal(tensors[name], tensor) for name, tensor in tiny_supernet.state_dict().items())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_copy_of_the_space_under_another_name_may_load(path: Path, tiny_space: SearchSpace) -> None:
    renamed = SearchSpace.from_dict(tiny_space.to_dict() | {"name": "renamed"})
    load_weights(another(renamed), path)


def test_weights_in_channels_last_order_come_back(tmp_path: Path, tiny_supernet: Supernet) -> None:
    expected = {name: tensor.clone() for name, tensor in tiny_supernet.state_dict().items()}
    tiny_supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_tensors(tmp_path / "w", tiny_supernet.state_dict(), tiny_supernet.space)
    tensors, _ = load_tensors(tmp_path / "w", tiny_supernet.space)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_half_precision_weights_are_widened(tmp_path: Path, tiny_supernet: Supernet) -> None:
    half = {name: tensor.half() for name, tensor in tiny_supernet.state_dict().items()}
    save_tensors(tmp_path / "w", half, tiny_supernet.space)
    loaded = another(tiny_supernet.space)
    load_weights(loaded, tmp_path / "w")
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, half[name].float())


def test_a_failed_write_leaves_the_old_file(path: Path, tiny_space: SearchSpace) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_tensors(path, {"weight": torch.zeros(2)}, tiny_space, unwritable=object())
    assert path.read_bytes() == before


def test_weights_of_another_space_are_refused_with_both_fingerprints(path: Path, tiny_space: SearchSpace) -> None:
    other = tiny_space.with_classes(7)
    supernet = another(other)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with pytest.raises(FingerprintMismatchError, match="was made for the space 'tiny'") as caught:
        load_weights(supernet, path)
    assert (caught.value.expected, caught.value.found) == (other.fingerprint, tiny_space.fingerprint)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "cannot be read as safetensors"),
        (Path.unlink, "cannot be read as safetensors"),
        (lambda path: path.write_bytes(b""), "cannot be read as safetensors"),
        (lambda path: path.write_bytes(b"\x80\x04K\x01."), "cannot be read as safetensors"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read as safetensors"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "no Tailor weights file: format None"),
        (lambda path: save_file({"a": torch.zeros(1)}, path, metadata={"format": "pt"}), "format None"),
        (lambda path: save_file({"a": torch.zeros(1)}, path, metadata={"tailor": "{"}), "cannot be read"),
        (lambda path: save_file({"a": torch.zeros(1)}, path, metadata={"tailor": '{"format": 1}'}), "format 1"),
    ],
)
def test_broken_and_foreign_files_are_refused(
    path: Path, tiny_space: SearchSpace, damage: Callable[[Path], object], message: str
) -> None:
    damage(path)
    with pytest.raises(InvalidBundleError, match=message):
        load_tensors(path, tiny_space)


@pytest.mark.parametrize("fingerprint", [None, 7, True, [], {}, 1.5, ""])
def test_a_fingerprint_that_is_no_text_is_another_one(path: Path, tiny_space: SearchSpace, fingerprint: Any) -> None:
    header = {"format": FORMAT, "space": 3, "space_fingerprint": fingerprint, "metadata": {}}
    save_file({"a": torch.zeros(1)}, path, metadata={"tailor": json.dumps(header)})
    with pytest.raises(FingerprintMismatchError, match="was made for the space"):
        load_tensors(path, tiny_space)


def test_a_header_nested_too_deep_is_refused(path: Path, tiny_space: SearchSpace) -> None:
    save_file({"a": torch.zeros(1)}, path, metadata={"tailor": "[" * 100_000})
    with pytest.raises(InvalidBundleError, match="cannot be read"):
        load_tensors(path, tiny_space)


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}, {"metadata": [1]}])
def test_files_without_readable_metadata_are_refused(
    path: Path, tiny_space: SearchSpace, metadata: dict[str, Any]
) -> None:
    header = {"format": FORMAT, "space": "tiny", "space_fingerprint": tiny_space.fingerprint}
    save_file({"a": torch.zeros(1)}, path, metadata={"tailor": json.dumps(header | metadata)})
    with pytest.raises(InvalidBundleError, match="metadata"):
        load_tensors(path, tiny_space)


def test_equal_tensors_give_equal_files(tmp_path: Path, tiny_supernet: Supernet, tiny_space: SearchSpace) -> None:
    for name in "abcdefgh":
        save_tensors(tmp_path / name, tiny_supernet.state_dict(), tiny_space, epochs=3, seed=1, dataset="digits")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded(tmp_path: Path, tiny_supernet: Supernet) -> None:
    state = tiny_supernet.state_dict()
    first = next(iter(state))
    for wrong in (
        {name: tensor for name, tensor in state.items() if name != first},
        state | {"extra": torch.zeros(1)},
        state | {first: torch.zeros(1)},
        state | {first: state[first].to(torch.int32)},
        state | {first: state[first].to(torch.complex64)},
    ):
        save_tensors(tmp_path / "w", wrong, tiny_supernet.space)
        supernet = another(tiny_supernet.space)
        before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        with pytest.raises(InvalidBundleError, match="does not fit 'tiny': 1 tensors, first"):
            load_weights(supernet, tmp_path / "w")
        assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_no_finite_numbers_are_refused_and_nothing_is_loaded(
    tmp_path: Path, tiny_supernet: Supernet, value: float
) -> None:
    state = {name: tensor.double() for name, tensor in tiny_supernet.state_dict().items()}
    first = next(iter(state))
    state[first].view(-1)[0] = value
    save_tensors(tmp_path / "w", state, tiny_supernet.space)
    supernet = another(tiny_supernet.space)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with pytest.raises(InvalidBundleError, match=f"NaN or infinite weights in 1 tensors, first {first}"):
        load_weights(supernet, tmp_path / "w")
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
