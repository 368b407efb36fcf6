"""The blocks a space names are the blocks that run: shapes by hooks, MACs by torch's counter, parameters by sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.network.subnet import Block, ConvLayer, SqueezeExcite, Subnet
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind, LayerKind
from supernet.spaces.costs import blocks_of, macs, params
from supernet.spaces.presets import list_spaces, load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


def width_space() -> SearchSpace:
    return SearchSpace(
        "tiny_width",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 12), kernel_sizes=(3,), stride=2, act=Act.RELU6, bias=True),
            Stage(BlockKind.SEPARABLE, depths=(0, 2), kernel_sizes=(3, 5), act=Act.RELU, shortcut=True),
            Stage(BlockKind.INVERTED, widths=(16, 20), expand_ratios=(2, 3), kernel_sizes=(5,), stride=3, se=True),
            Stage(BlockKind.CONV, widths=(24, 32), act=Act.HSWISH, norm=False),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(5,), norm=False),
        ),
        resolutions=(17, 20),
        in_chs=1,
        divisor=4,
    )


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "tiny_width": width_space,
    **{name: partial(load_space, name) for name in list_spaces()},
}


@pytest.fixture(scope="module", params=list(SPACES))
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return SPACES[request.param]()


def archs_of(space: SearchSpace) -> list[Arch]:
    """The ends of the space and a sample."""
    return [space.smallest(), space.sample(np.random.default_rng(0)), space.largest()]


def build(space: SearchSpace, arch: Arch) -> tuple[Subnet, Tensor]:
    """A subnet and an image that have shapes but no values, so that nothing is computed."""
    with torch.device("meta"):
        subnet = Subnet(blocks_of(space, arch), norm_eps=space.norm_eps).eval()
        return subnet, torch.zeros(1, space.in_chs, arch.resolution, arch.resolution)


def test_shapes_that_run_are_the_shapes_of_the_blocks(space: SearchSpace) -> None:
    for arch in archs_of(space):
        subnet, x = build(space, arch)
        seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

        def record(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            seen.append((tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))  # noqa: B023

        for block in subnet.blocks:
            block.register_forward_hook(record)
        with torch.no_grad():
            subnet(x)
        expected = []
        for spec in blocks_of(space, arch):
            out = (spec.out_chs,) if spec.kind is BlockKind.LINEAR else (spec.out_chs, spec.out_size, spec.out_size)
            expected.append(((spec.in_chs, spec.in_size, spec.in_size), out))
        assert seen == expected


def test_layers_that_run_are_the_layers_of_the_blocks(space: SearchSpace) -> None:
    arch = archs_of(space)[-1]
    subnet, _ = build(space, arch)
    for block, spec in zip(subnet.blocks, blocks_of(space, arch), strict=True):
        assert isinstance(block, Block)
        assert list(block.layers) == [layer.name for layer in spec.layers]
        assert block.adds_shortcut is spec.adds_shortcut
        for layer in spec.layers:
            module = block.layers[layer.name]
            assert sum(parameter.numel() for parameter in module.parameters()) == layer.params
            if layer.kind is LayerKind.CONV:
                assert isinstance(module, ConvLayer)
                assert module.conv.kernel_size == (layer.kernel_size, layer.kernel_size)
                assert module.conv.stride == (layer.stride, layer.stride)
            elif layer.kind is LayerKind.SQUEEZE_EXCITE:
                assert isinstance(module, SqueezeExcite)
                assert module.reduce.out_channels == layer.hidden_chs


def test_macs_are_half_of_what_torch_counts(space: SearchSpace) -> None:
    for arch in archs_of(space):
        subnet, x = build(space, arch)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            subnet(x)
        assert counter.get_total_flops() == 2 * macs(space, arch)


def test_parameters_are_those_of_the_modules(space: SearchSpace) -> None:
    for arch in archs_of(space):
        subnet, _ = build(space, arch)
        assert sum(parameter.numel() for parameter in subnet.parameters()) == params(space, arch)
