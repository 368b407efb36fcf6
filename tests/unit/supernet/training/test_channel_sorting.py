"""Channel sorting keeps what the networks compute, and brings the important channels to the front."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from supernet.network.elastic_net import Supernet
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import Dimension, SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.channel_sorting import sort_channels
from supernet.training.config import TrainConfig
from supernet.training.loop import average_of, build_optimizer

HEAD = (Stage(BlockKind.POOL), Stage(BlockKind.LINEAR, widths=(5,), norm=False, bias=True))


def inverted_space() -> SearchSpace:
    return SearchSpace(
        "sorted",
        stages=(
            Stage(BlockKind.CONV, widths=(16,), kernel_sizes=(3,), act=Act.HSWISH),
            Stage(
                BlockKind.INVERTED,
                widths=(16,),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(3, 4, 6),
                act=Act.RELU,
                se=True,
                shortcut=True,
            ),
            *HEAD,
        ),
        resolutions=(8,),
    )


def bottleneck_space() -> SearchSpace:
    return SearchSpace(
        "sorted_bottleneck",
        stages=(
            Stage(BlockKind.CONV, widths=(16,), kernel_sizes=(3,), act=Act.RELU),
            Stage(
                BlockKind.BOTTLENECK,
                widths=(32, 64),
                depths=(1, 2),
                kernel_sizes=(3,),
                expand_ratios=(0.25, 0.5),
                act=Act.RELU,
                out_act=Act.RELU,
                shortcut=True,
            ),
            *HEAD,
        ),
        resolutions=(8,),
    )


def random_supernet(make: Callable[[], SearchSpace]) -> Supernet:
    generator = torch.Generator().manual_seed(1)
    supernet = Supernet(make(), generator)
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if "norm" in name or name.endswith("bias"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return supernet.eval()


def outputs(supernet: Supernet, arch: Arch) -> Tensor:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return supernet(x, arch)


SPACES = [inverted_space, bottleneck_space]


@pytest.mark.parametrize("make", SPACES)
def test_the_largest_network_computes_the_same_and_importance_falls(make: Callable[[], SearchSpace]) -> None:
    supernet = random_supernet(make)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    expected = outputs(supernet, supernet.space.largest())
    sort_channels(supernet)
    torch.testing.assert_close(outputs(supernet, supernet.space.largest()), expected, rtol=1e-5, atol=1e-5)
    last = "project" if make is inverted_space else "expand"
    for index, block in enumerate(supernet.blocks):
        if last in block.layers:
            importance = block.layers[last].conv.weight.abs().sum((0, 2, 3))
            assert (importance.diff() <= 1e-6).all()
            name = f"blocks.{index}.layers.{last}.conv.weight"
            assert not torch.equal(supernet.state_dict()[name], before[name])
    for name, tensor in supernet.state_dict().items():
        torch.testing.assert_close(tensor.flatten().sort().values, before[name].flatten().sort().values)


@pytest.mark.parametrize("make", SPACES)
def test_sorting_twice_is_sorting_once(make: Callable[[], SearchSpace]) -> None:
    supernet = random_supernet(make)
    sort_channels(supernet)
    once = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    sort_channels(supernet)
    assert all(torch.equal(tensor, once[name]) for name, tensor in supernet.state_dict().items())


@pytest.mark.parametrize("make", SPACES)
def test_networks_that_joined_already_compute_the_same(make: Callable[[], SearchSpace]) -> None:
    supernet = random_supernet(make)
    space = supernet.space
    kept = {Dimension.EXPAND_RATIO: 2, Dimension.WIDTH: 2 if make is bottleneck_space else 1}
    least = space.least_choices(kept)
    archs = space.from_rows(space.sample_rows(np.random.default_rng(0), 12, least=least))
    expected = [outputs(supernet, arch) for arch in archs]
    narrow = outputs(supernet, space.smallest())
    sort_channels(supernet, least=least)
    for arch, logits in zip(archs, expected, strict=True):
        torch.testing.assert_close(outputs(supernet, arch), logits, rtol=1e-5, atol=1e-5)
    if make is inverted_space:  # its narrowest inner widths have not joined
        assert (outputs(supernet, space.smallest()) - narrow).abs().max() > 1e-3


def test_momentum_and_average_move_along() -> None:
    supernet = random_supernet(inverted_space)
    config = TrainConfig("cifar_mbv3", ema=0.9)
    optimizer, average = build_optimizer(supernet, config), average_of(supernet, config)
    assert average is not None
    average.update_parameters(supernet)
    for parameter in supernet.parameters():
        optimizer.state[parameter]["momentum_buffer"] = 2 * parameter.detach().clone()
    sort_channels(supernet, optimizer=optimizer, average=average)
    for name, parameter in supernet.named_parameters():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], 2 * parameter), name
        assert torch.equal(average.module.get_parameter(name), parameter), name
