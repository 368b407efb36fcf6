"""A space and a supernet small enough to look at every weight."""

from __future__ import annotations

import pytest
import torch

from supernet.network.elastic_net import Supernet
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


@pytest.fixture
def tiny_space() -> SearchSpace:
    return SearchSpace(
        "tiny",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), act=Act.HSWISH),
            Stage(
                BlockKind.INVERTED,
                widths=(8,),
                depths=(1, 2),
                kernel_sizes=(3, 5, 7),
                expand_ratios=(1, 2),
                act=Act.RELU,
                se=True,
                shortcut=True,
            ),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(4,), norm=False, bias=True),
        ),
        resolutions=(8, 12),
        divisor=4,
    )


@pytest.fixture
def tiny_supernet(tiny_space: SearchSpace) -> Supernet:
    return Supernet(tiny_space, torch.Generator().manual_seed(0)).eval()
