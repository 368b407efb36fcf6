"""Checkpoints of the reference to our weights: names of all generations, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from supernet.errors import InvalidCheckpointError
from supernet.network.elastic_net import Supernet
from supernet.ofa.state_dicts import read_state_dict
from supernet.ofa.weights import classes_of, import_weights, reference_names
from supernet.spaces.presets import load_space

State = dict[str, torch.Tensor]


def elastic_names(checkpoint: State) -> State:
    """As the reference's elastic networks name the tensors of their blocks."""
    renamed = {}
    for key, tensor in checkpoint.items():
        if key.startswith("blocks.") and not key.startswith("blocks.0."):
            key = key.replace(".conv.weight", ".conv.conv.weight").replace(".bn.", ".bn.bn.")
        renamed[key] = tensor
    return renamed


def assert_same(imported: State, supernet: Supernet) -> None:
    state = supernet.state_dict()
    assert set(imported) == set(state)
    assert all(torch.equal(imported[name], state[name]) for name in state)


def test_names_of_the_reference_are_those_of_its_published_networks() -> None:
    space = load_space("ofa_mbv3_w1.0")
    names = set(reference_names(space, Supernet(space, torch.Generator()).state_dict()).values())
    assert {
        "first_conv.conv.weight",
        "blocks.0.conv.depth_conv.bn.running_mean",
        "blocks.20.conv.inverted_bottleneck.conv.weight",
        "blocks.1.conv.depth_conv.conv.5to3_matrix",
        "blocks.5.conv.depth_conv.se.fc.reduce.bias",
        "blocks.20.conv.point_linear.bn.weight",
        "final_expand_layer.bn.bias",
        "feature_mix_layer.conv.weight",
        "classifier.linear.bias",
    } <= names
    assert "blocks.9.conv.depth_conv.se.fc.reduce.bias" not in names
    # 475 keys, of which each normalisation layer has a counter that we do not keep.
    assert len(names) == 475 - sum(name.endswith("running_mean") for name in names)


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key,
        lambda key: f"module.{key}",
        lambda key: key.replace(".conv.depth_conv.", ".mobile_inverted_conv.depth_conv."),
        lambda key: key.replace("first_conv.conv.weight", "first_conv.conv.conv.weight"),
        lambda key: key.replace("classifier.linear.", "classifier.linear.linear."),
    ],
)
@pytest.mark.parametrize("elastic", [False, True])
def test_every_generation_of_names_is_read(checkpoint: State, mbv3: Supernet, rename: Any, *, elastic: bool) -> None:
    named = elastic_names(checkpoint) if elastic else checkpoint
    imported = import_weights({rename(key): tensor for key, tensor in named.items()}, mbv3.space)
    assert_same(imported.tensors, mbv3)
    assert imported.kernel_matrices
    assert imported.keys == len(checkpoint)


def test_residual_networks_are_read(resnet: Supernet, resnet_checkpoint: State) -> None:
    assert {"input_stem.1.conv.weight", "input_stem.1.conv.bn.bias", "blocks.0.downsample.conv.weight"} <= set(
        resnet_checkpoint
    )
    imported = import_weights(resnet_checkpoint, resnet.space)
    assert_same(imported.tensors, resnet)
    assert not imported.kernel_matrices


def test_without_kernel_matrices_smaller_kernels_are_centres(checkpoint: State, mbv3: Supernet) -> None:
    without = {key: tensor for key, tensor in checkpoint.items() if not key.endswith("_matrix")}
    imported = import_weights(without, mbv3.space)
    assert not imported.kernel_matrices
    matrices = {name: tensor for name, tensor in imported.tensors.items() if "kernel_matrices" in name}
    assert len(matrices) == 8
    assert all(torch.equal(tensor, torch.eye(len(tensor))) for tensor in matrices.values())


def test_counters_are_consumed_and_half_precision_is_widened(checkpoint: State, mbv3: Supernet) -> None:
    counted = {key: tensor.half() for key, tensor in checkpoint.items()}
    counted["first_conv.bn.num_batches_tracked"] = torch.tensor(3)
    imported = import_weights(counted, mbv3.space)
    assert imported.keys == len(checkpoint) + 1
    assert {tensor.dtype for tensor in imported.tensors.values()} == {torch.float32}


def with_changes(checkpoint: State, changes: dict[str, torch.Tensor | None]) -> State:
    changed: dict[str, torch.Tensor | None] = {**checkpoint, **changes}
    return {key: tensor for key, tensor in changed.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_conv.bn.weight": None}, r"1 keys are missing \['first_conv.bn.weight'\], 0 are left over"),
        ({"blocks.9.conv.x": torch.zeros(1)}, r"0 keys are missing \[\], 1 are left over \['blocks.9.conv.x'\]"),
        ({"blocks.1.conv.depth_conv.conv.5to3_matrix": None}, r"missing \['blocks.1.conv.depth_conv.conv.5to3_matrix"),
        ({"first_conv.conv.weight": torch.zeros(16, 3, 3, 3)}, r"has the shape \(16, 3, 3, 3\).* needs \(8, 3, 3, 3\)"),
        ({"first_conv.bn.bias": torch.full((8,), torch.nan)}, "'first_conv.bn.bias' holds something else than finite"),
        ({"first_conv.bn.bias": torch.zeros(8, dtype=torch.int64)}, "something else than finite numbers"),
        ({"first_conv.conv.conv.weight": torch.zeros(8, 3, 3, 3)}, "name the same tensor 'first_conv.conv.weight'"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused_with_the_key(
    checkpoint: State, mbv3: Supernet, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(InvalidCheckpointError, match=message):
        import_weights(with_changes(checkpoint, changes), mbv3.space)


def test_spaces_the_reference_has_no_network_of_are_refused(checkpoint: State) -> None:
    with pytest.raises(InvalidCheckpointError, match="does not fit 'us_mobilenet_v1'"):
        import_weights(checkpoint, load_space("us_mobilenet_v1"))


def test_number_of_classes_is_read_from_the_classifier(checkpoint: State) -> None:
    assert classes_of(checkpoint) == 10
    assert classes_of({f"module.{key.replace('linear.', 'linear.linear.')}": t for key, t in checkpoint.items()}) == 10
    assert classes_of({"x": torch.zeros(3)}) is None


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_are_read_alone_and_beside_other_values(
    checkpoint: State, tmp_path: Path, *, nested: bool, legacy: bool
) -> None:
    path = tmp_path / "net.pth"
    content = {"state_dict": checkpoint, "epoch": 3, "best_acc": 0.5} if nested else checkpoint
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    read = read_state_dict(path)
    assert set(read) == set(checkpoint)
    assert all(torch.equal(read[key], checkpoint[key]) for key in checkpoint)


class Evil:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return eval, ("1/0",)


@pytest.mark.parametrize("content", [Evil(), {"state_dict": {"x": Evil()}}, 3, {}, {"x": "text"}, {1: torch.zeros(1)}])
def test_files_that_hold_something_else_are_refused_and_run_nothing(content: object, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(InvalidCheckpointError, match=r"net\.pth"):
        read_state_dict(path)


@pytest.mark.parametrize("protocol", [3, 4])
def test_other_protocols_of_pickle_are_read_quietly_or_refused(
    checkpoint: State, tmp_path: Path, protocol: int
) -> None:
    path = tmp_path / "net.pth"
    torch.save(checkpoint, path, pickle_protocol=protocol)
    if protocol == 3:
        assert set(read_state_dict(path)) == set(checkpoint)
    else:  # torch reads none of these without unpickling for real
        with pytest.raises(InvalidCheckpointError, match="holds more than tensors"):
            read_state_dict(path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_half_a_file_is_refused(checkpoint: State, tmp_path: Path, share: float) -> None:
    path = tmp_path / "net.pth"
    torch.save(checkpoint, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InvalidCheckpointError, match="incomplete"):
        read_state_dict(path)
    with pytest.raises(InvalidCheckpointError, match="cannot be read"):
        read_state_dict(tmp_path / "absent.pth")
