"""A supernet small enough to recalibrate many times, and images for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from supernet.data.batches import Normalisation
from supernet.data.images import ImageSet
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace(
        "tiny_evaluation",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(
                BlockKind.INVERTED,
                widths=(8,),
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
    """Untrained, with norms that do something and running statistics that no images left there."""
    generator = torch.Generator().manual_seed(5)
    supernet = Supernet(space, generator).eval()
    for name, tensor in supernet.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.3, generator=generator)
        if name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 2, generator=generator)
    return supernet


@pytest.fixture
def subnet(supernet: Supernet, space: SearchSpace) -> Subnet:
    return extract_subnet(supernet, space.largest())


@pytest.fixture
def batches() -> list[Tensor]:
    """Of unequal sizes and unequal brightness, so that every way of weighting gives another result."""
    generator = torch.Generator().manual_seed(6)
    return [
        torch.randn(size, 3, 12, 12, generator=generator) * scale + shift
        for size, scale, shift in ((7, 1.0, 0.0), (2, 3.0, 2.0), (4, 0.5, -1.0))
    ]


@pytest.fixture
def normalisation() -> Normalisation:
    return Normalisation((0.5, 0.45, 0.4), (0.2, 0.2, 0.25))


@pytest.fixture
def images() -> ImageSet:
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    return ImageSet(pixels, rng.integers(0, 4, 60), ("a", "b", "c", "d"))
