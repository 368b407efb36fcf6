"""Checkpoints in the reference's names, made from supernets of ours: what they become again is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch

from supernet.network.elastic_net import Supernet
from supernet.ofa.weights import reference_names
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

State = dict[str, torch.Tensor]


def tiny_mbv3() -> SearchSpace:
    """Made like the reference's MobileNetV3, with few and narrow blocks."""
    return SearchSpace(
        "tiny_mbv3",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(BlockKind.SEPARABLE, widths=(8,), kernel_sizes=(3,), act=Act.RELU, shortcut=True),
            *(
                Stage(
                    BlockKind.INVERTED,
                    widths=(width,),
                    depths=(1, 2),
                    kernel_sizes=(3, 5, 7),
                    expand_ratios=(2, 3),
                    stride=2,
                    act=Act.RELU,
                    se=se,
                    shortcut=True,
                )
                for width, se in ((16, False), (24, True))
            ),
            Stage(BlockKind.CONV, widths=(32,), act=Act.HSWISH),
            Stage(BlockKind.POOL),
            Stage(BlockKind.CONV, widths=(40,), act=Act.HSWISH, norm=False),
            Stage(BlockKind.LINEAR, widths=(10,), norm=False, bias=True),
        ),
        resolutions=(32, 40),
    )


def tiny_resnet() -> SearchSpace:
    """Made like the reference's ResNet50."""
    return SearchSpace(
        "tiny_resnet",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 16), kernel_sizes=(3,), stride=2, act=Act.RELU),
            Stage(BlockKind.CONV, depths=(0, 1), kernel_sizes=(3,), act=Act.RELU, shortcut=True),
            Stage(BlockKind.CONV, widths=(16, 24), kernel_sizes=(3,), act=Act.RELU),
            Stage(BlockKind.MAX_POOL, kernel_sizes=(3,), stride=2),
            Stage(
                BlockKind.BOTTLENECK,
                widths=(32, 48),
                depths=(1, 2),
                kernel_sizes=(3,),
                expand_ratios=(0.25, 0.5),
                act=Act.RELU,
                out_act=Act.RELU,
                shortcut=True,
            ),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(10,), norm=False, bias=True),
        ),
        resolutions=(32,),
    )


@cache
def random_supernet(make: Callable[[], SearchSpace]) -> Supernet:
    generator = torch.Generator().manual_seed(0)
    supernet = Supernet(make(), generator)
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            tensor.add_(torch.rand(tensor.shape, generator=generator) / 4)
            if name.endswith("running_var"):
                tensor.add_(0.5)
    return supernet.eval()


def checkpoint_of(supernet: Supernet) -> State:
    """The state of a supernet under the plain names of the reference."""
    state = supernet.state_dict()
    names = reference_names(supernet.space, state)
    return {names[ours]: tensor.clone() for ours, tensor in state.items()}


@pytest.fixture
def mbv3() -> Supernet:
    return random_supernet(tiny_mbv3)


@pytest.fixture
def resnet() -> Supernet:
    return random_supernet(tiny_resnet)


@pytest.fixture
def checkpoint(mbv3: Supernet) -> State:
    return checkpoint_of(mbv3)


@pytest.fixture
def resnet_checkpoint(resnet: Supernet) -> State:
    return checkpoint_of(resnet)
