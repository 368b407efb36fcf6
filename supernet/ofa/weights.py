"""Checkpoints of the reference's networks to our weights, whichever of its classes saved them.

The reference wraps elastic layers around plain ones, so a convolution is `conv.conv.weight` in an elastic network and
`conv.weight` in a static one, and older files call the path of a block `mobile_inverted_conv`. With repeated words
taken once, all generations have the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from supernet.errors import InvalidCheckpointError
from supernet.network.elastic_net import Supernet
from supernet.spaces.blocks import BlockKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace

_INVERTED = {
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv",
    "squeeze_excite": "depth_conv.se.fc",
    "project": "point_linear",
}
_BOTTLENECK = {"reduce": "conv1", "conv": "conv2", "expand": "conv3", "shortcut": "downsample"}
# From the last to the first of the plain convolutions behind the blocks.
_HEAD = ("feature_mix_layer", "final_expand_layer")
_COUNTERS = "num_batches_tracked"
_MATRIX = "_matrix"
_SHOWN = 5


@dataclass(frozen=True)
class ImportedWeights:
    """What a checkpoint became.

    Attributes:
        tensors: State of our supernet, float32.
        keys: Keys of the checkpoint that were consumed: all of them.
        kernel_matrices: Whether it held them; without, smaller kernels are the centres of larger ones.
    """

    tensors: dict[str, torch.Tensor]
    keys: int
    kernel_matrices: bool


def import_weights(state: Mapping[str, torch.Tensor], space: SearchSpace) -> ImportedWeights:
    """Turn a state dict of the reference into the weights of our supernet.

    Args:
        state: Of an elastic network, of the largest static one, or, for a space of one arch, of that net. Statistics of
            the normalisation layers come along; those of an elastic network mix all archs.
        space: The network's, with the checkpoint's number of classes.

    Raises:
        InvalidCheckpointError: A key is missing or left over, a shape differs, or a number is not finite; names them.

    Source: OFA `OFAMobileNetV3.load_state_dict`. Differs: the reference keeps its initial values where a key is
    missing.
    """
    plain: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in state.items():
        name = _plain_name(key)
        if name in plain:
            raise InvalidCheckpointError(f"'{origin[name]}' and '{key}' name the same tensor '{name}'; keep one.")
        if not name.endswith(_COUNTERS):
            plain[name], origin[name] = tensor, key
    expected = _initial_state(space)
    names = reference_names(space, expected)
    has_matrices = any(name.endswith(_MATRIX) for name in plain)
    wanted = {ours: theirs for ours, theirs in names.items() if has_matrices or not theirs.endswith(_MATRIX)}
    _check_keys(plain, set(wanted.values()), space)
    tensors = {}
    for ours, initial in expected.items():
        if ours not in wanted:
            tensors[ours] = initial
            continue
        tensor, key = plain[wanted[ours]], origin[wanted[ours]]
        if tensor.shape != initial.shape:
            raise InvalidCheckpointError(
                f"'{key}' has the shape {tuple(tensor.shape)}, '{space.name}' with {space.classes} classes needs "
                f"{tuple(initial.shape)}. Name the space of the checkpoint's width, and its number of classes."
            )
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise InvalidCheckpointError(f"'{key}' holds something else than finite numbers.")
        tensors[ours] = tensor.to(torch.float32).clone()
    return ImportedWeights(tensors, len(state), has_matrices)


def classes_of(state: Mapping[str, torch.Tensor]) -> int | None:
    """Number of outputs of a network by its state dict; None where it has no classifier of the reference's name."""
    found = [tensor for key, tensor in state.items() if _plain_name(key) == "classifier.linear.weight"]
    return len(found[0]) if len(found) == 1 and found[0].ndim else None


def reference_names(space: SearchSpace, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The reference's plain name of every tensor of our supernet, in order.

    Raises:
        InvalidCheckpointError: The reference has no network of this kind.
    """
    layers = {f"blocks.{index}.layers.{layer}": name for index, layer, name in _layer_names(space)}
    names = {}
    for ours in state:
        prefix = ".".join(ours.split(".")[:4])
        names[ours] = _plain_name(_tensor_name(layers[prefix], ours.removeprefix(f"{prefix}.")))
    return names


def _tensor_name(layer: str, ours: str) -> str:
    """One tensor of a layer: `conv.weight`, `conv.kernel_matrices.5to3`, `norm.bias`, `reduce_weight` or `weight`."""
    match ours.split("."):
        case ["conv", "kernel_matrices", sizes]:
            return f"{layer}.conv.{sizes}{_MATRIX}"
        case ["conv", tensor]:
            return f"{layer}.conv.{tensor}"
        case ["norm", tensor]:
            return f"{layer}.bn.{tensor}"
        case _:
            return f"{layer}.{ours.replace('_', '.', 1)}"


def _layer_names(space: SearchSpace) -> Iterator[tuple[int, str, str]]:
    """Position, our layer name and the reference's for every layer with weights."""
    blocks = [
        space.block_at(index, tuple(len(space.slots[slot].choices) - 1 for slot in space.slots_of(position)))
        for index, position in enumerate(space.positions)
    ]
    elastic = [index for index, spec in enumerate(blocks) if _layers_in(spec)]
    if not elastic:
        raise InvalidCheckpointError(f"'{space.name}' has no block that the reference's networks are made of.")
    convs = [index for index, spec in enumerate(blocks) if spec.kind is BlockKind.CONV]
    stem = [index for index in convs if index < elastic[0]]
    head = [index for index in convs if index > elastic[-1]]
    if len(stem) + len(head) < len(convs) or len(head) > len(_HEAD):
        raise InvalidCheckpointError(
            f"'{space.name}' has plain convolutions where the reference's networks have none: no checkpoint fits it."
        )
    for index, spec in enumerate(blocks):
        if index in elastic:
            block = elastic.index(index)
            path = "" if spec.kind in (BlockKind.BOTTLENECK, BlockKind.BOTTLENECK_DOWN) else ".conv"
            for layer in spec.layers:
                if (name := _layers_in(spec).get(layer.name)) is not None:
                    yield index, layer.name, f"blocks.{block}{path}.{name}"
        elif index in stem:
            # A single stem convolution stands alone; several are a list, in which a residual one is wrapped.
            name = "first_conv" if len(stem) == 1 else f"input_stem.{stem.index(index)}"
            yield index, "conv", f"{name}.conv" if spec.shortcut else name
        elif index in head:
            yield index, "conv", _HEAD[len(head) - 1 - head.index(index)]
        elif spec.kind is BlockKind.LINEAR:
            yield index, "linear", "classifier.linear"


def _layers_in(spec: BlockSpec) -> dict[str, str]:
    match spec.kind:
        case BlockKind.SEPARABLE | BlockKind.INVERTED:
            return _INVERTED
        case BlockKind.BOTTLENECK | BlockKind.BOTTLENECK_DOWN:
            return _BOTTLENECK
        case _:
            return {}


def _plain_name(key: str) -> str:
    """A key without the marks of wrappers: data parallelism, elastic layers, older names."""
    name = key.removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")
    return ".".join(word for word, _ in groupby(name.split(".")))


def _initial_state(space: SearchSpace) -> dict[str, torch.Tensor]:
    # Only kernel matrices may keep their first values, which do not depend on the generator.
    return Supernet(space, torch.Generator()).state_dict()


def _check_keys(plain: Mapping[str, torch.Tensor], wanted: set[str], space: SearchSpace) -> None:
    missing, left_over = sorted(wanted - set(plain)), sorted(set(plain) - wanted)
    if missing or left_over:
        raise InvalidCheckpointError(
            f"The checkpoint does not fit '{space.name}': {len(missing)} keys are missing {missing[:_SHOWN]}, "
            f"{len(left_over)} are left over {left_over[:_SHOWN]}. Name the space it was trained for."
        )
