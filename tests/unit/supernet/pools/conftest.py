"""A supernet whose subnets differ in resolution, depth and width, and two pools of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from supernet.network.elastic_net import Supernet
from supernet.pools.storage import PoolChoice
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.norms import norm_layers
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace(
        "tiny_pools",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 16), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(
                BlockKind.INVERTED,
                widths=(8, 16),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(1, 2),
                act=Act.RELU,
                se=True,
                shortcut=True,
            ),
            Stage(BlockKind.CONV, widths=(16,), act=Act.HSWISH),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(4,), norm=False, bias=True),
        ),
        resolutions=(8, 12),
    )


@pytest.fixture
def supernet(space: SearchSpace) -> Supernet:
    return Supernet(space, torch.Generator().manual_seed(5)).eval()


def draw_choice(space: SearchSpace, arch: Arch, *, low: float, seed: int) -> PoolChoice:
    """A choice with statistics that no images left."""
    rng = np.random.default_rng(seed)
    channels = sum(found.layer.out_chs for found in norm_layers(space, arch))
    statistics = np.stack([rng.normal(size=channels), rng.uniform(0.2, 3, channels)]).astype(np.float32)
    return PoolChoice("macs", low, low + 1e5, arch, 0.7 + seed / 100, 500, statistics)


@pytest.fixture
def choices(space: SearchSpace) -> list[PoolChoice]:
    archs = (space.smallest(), space.largest())
    return [draw_choice(space, arch, low=1e5 * index, seed=index) for index, arch in enumerate(archs)]
