"""Channel sorting: the inner channels that matter most move to the front, where narrower blocks find them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supernet.network.layers import ElasticConvLayer, ElasticSqueezeExcite
from supernet.spaces.blocks import BlockKind

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from supernet.network.elastic_net import ElasticBlock, Supernet
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import Rows

# A parameter or buffer and the axis of its channels.
_Axes = Sequence[tuple[Tensor, int]]
_Companions = dict[int, list[Tensor]]


@torch.no_grad()
def sort_channels(
    supernet: Supernet,
    *,
    least: Rows | None = None,
    optimizer: torch.optim.SGD | None = None,
    average: AveragedModel | None = None,
) -> None:
    """Sort the inner channels of every inverted block and bottleneck by importance, in place.

    A channel's importance is the sum of the absolute weights that read it; hidden channels of squeeze-excite are sorted
    likewise. The largest network computes the same before and after.

    Args:
        supernet: Whose weights and statistics move.
        least: `(n_slots,)` first choice index on offer, as from `SearchSpace.least_choices`: archs from there on keep
            their function, since each group of channels between two of their widths is sorted by itself. By default
            only the largest does.
        optimizer: Its momentum moves along.
        average: Of the weights; it moves along, too.

    Source: OFA `re_organize_middle_weights`. Differs: groups are sorted apart instead of by offsets, which float32
    cannot tell from importances, and hidden channels of squeeze-excite keep to their groups as well; NetAug's
    `sort_channels_inner` leaves the momentum behind.
    """
    space = supernet.space
    companions = _companions(supernet, optimizer, average)
    for index, (position, block) in enumerate(zip(space.positions, supernet.blocks, strict=True)):
        widest = [len(space.slots[slot].choices) - 1 for slot in space.slots_of(position)]
        largest = space.block_at(index, tuple(widest))
        if largest.kind not in (BlockKind.INVERTED, BlockKind.BOTTLENECK, BlockKind.BOTTLENECK_DOWN):
            continue
        kept: set[BlockSpec] = {largest}
        if least is not None:
            first = [int(least[slot]) for slot in space.slots_of(position)]
            kept |= {
                spec
                for choices, spec in space.blocks_at(index)
                if all(choice >= start for choice, start in zip(choices, first, strict=True))
            }
        _sort_block(block, kept, companions)  # type: ignore[arg-type]


def _companions(supernet: Supernet, optimizer: torch.optim.SGD | None, average: AveragedModel | None) -> _Companions:
    """By the identity of a tensor: its momentum and its average."""
    found: _Companions = {}
    tensors = [*supernet.named_parameters(), *supernet.named_buffers()]
    averaged = {} if average is None else dict([*average.module.named_parameters(), *average.module.named_buffers()])
    for name, tensor in tensors:
        momentum = optimizer.state.get(tensor, {}).get("momentum_buffer") if optimizer is not None else None
        found[id(tensor)] = [other for other in (momentum, averaged.get(name)) if other is not None]
    return found


def _sort_block(block: ElasticBlock, kept: Iterable[BlockSpec], companions: _Companions) -> None:
    layers = dict(block.layers.items())
    mids, hiddens = sorted({spec.mid_chs for spec in kept}), sorted({spec.se_chs for spec in kept if spec.se_chs})
    if "project" in layers:
        order = _order(_reading(layers["project"]), mids)
        axes: list[tuple[Tensor, int]] = [
            *_outputs(layers["expand"]),
            *_outputs(layers["depthwise"]),
            *_inputs(layers["project"]),
        ]
        if isinstance(squeeze := layers.get("squeeze_excite"), ElasticSqueezeExcite):
            axes += [(squeeze.reduce_weight, 1), (squeeze.expand_weight, 0), (squeeze.expand_bias, 0)]
        _permute(axes, order, companions)
        if isinstance(squeeze, ElasticSqueezeExcite):
            importance = squeeze.expand_weight.abs().sum((0, 2, 3))
            hidden: list[tuple[Tensor, int]] = [
                (squeeze.reduce_weight, 0),
                (squeeze.reduce_bias, 0),
                (squeeze.expand_weight, 1),
            ]
            _permute(hidden, _order(importance, hiddens), companions)
    else:
        # From the back: the convolution's inputs matter by its weights as they stand then.
        for first, second in (("conv", "expand"), ("reduce", "conv")):
            order = _order(_reading(layers[second]), mids)
            _permute([*_outputs(layers[first]), *_inputs(layers[second])], order, companions)


def _reading(layer: object) -> Tensor:
    """Importance of the input channels of a convolution."""
    if not isinstance(layer, ElasticConvLayer):
        raise TypeError(f"expected a convolution, got {type(layer).__name__}")
    return layer.conv.weight.abs().sum((0, 2, 3))


def _outputs(layer: object) -> _Axes:
    if not isinstance(layer, ElasticConvLayer):
        raise TypeError(f"expected a convolution, got {type(layer).__name__}")
    axes: list[tuple[Tensor, int]] = [(layer.conv.weight, 0)]
    if layer.conv.bias is not None:
        axes.append((layer.conv.bias, 0))
    if layer.norm is not None:
        norm = layer.norm
        axes += [(tensor, 0) for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    return axes


def _inputs(layer: object) -> _Axes:
    if not isinstance(layer, ElasticConvLayer):
        raise TypeError(f"expected a convolution, got {type(layer).__name__}")
    return [(layer.conv.weight, 1)]


def _order(importance: Tensor, widths: Sequence[int]) -> Tensor:
    """Channels by falling importance, inside each group that ends at one of the widths."""
    bounds = [0, *widths]
    parts = [
        start + torch.argsort(importance[start:end], descending=True, stable=True) for start, end in pairwise(bounds)
    ]
    return torch.cat(parts)


def _permute(axes: _Axes, order: Tensor, companions: _Companions) -> None:
    for tensor, axis in axes:
        for moved in (tensor, *companions[id(tensor)]):
            moved.copy_(moved.index_select(axis, order))
