"""Small spaces that together use every kind of elastic dimension."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.presets import list_spaces, load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

HEAD = (Stage(BlockKind.POOL), Stage(BlockKind.LINEAR, widths=(5,), norm=False, bias=True))


def inverted_space() -> SearchSpace:
    """Elastic depth, kernel size, expand ratio and resolution, 2 × (4 + 16) × 4 archs."""
    return SearchSpace(
        "tiny_inverted",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
            Stage(
                BlockKind.INVERTED,
                widths=(16,),
                depths=(1, 2),
                kernel_sizes=(3, 5),
                expand_ratios=(1.5, 2),
                stride=2,
                act=Act.RELU,
                se=True,
                shortcut=True,
            ),
            Stage(BlockKind.INVERTED, widths=(16,), kernel_sizes=(3, 7), expand_ratios=(2, 3), shortcut=True),
            *HEAD,
        ),
        resolutions=(12, 16),
        divisor=4,
    )


def width_space() -> SearchSpace:
    """Elastic widths in three stages, one of them before a stage that keeps the width, and a skippable stage."""
    return SearchSpace(
        "tiny_width",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 12, 16), kernel_sizes=(3,), act=Act.RELU6),
            Stage(BlockKind.SEPARABLE, depths=(0, 1, 2), kernel_sizes=(3, 5), act=Act.RELU, shortcut=True),
            Stage(BlockKind.INVERTED, widths=(16, 24), expand_ratios=(2, 4), kernel_sizes=(3,), stride=2, se=True),
            Stage(BlockKind.CONV, widths=(24, 32), act=Act.HSWISH, norm=False, bias=True),
            *HEAD,
        ),
        resolutions=(9, 12),
        divisor=4,
    )


def fixed_space() -> SearchSpace:
    """Nothing varies but the resolution."""
    return SearchSpace(
        "tiny_fixed",
        stages=(
            Stage(BlockKind.CONV, widths=(4,), kernel_sizes=(3,)),
            Stage(BlockKind.SEPARABLE, depths=(2,), widths=(6,), kernel_sizes=(5,), shortcut=True),
            *HEAD,
        ),
        resolutions=(8,),
        in_chs=1,
    )


def bottleneck_space() -> SearchSpace:
    """Bottlenecks with a skippable stem and expand ratios of the output."""
    return SearchSpace(
        "tiny_bottleneck",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 12), kernel_sizes=(3,), stride=2, act=Act.RELU),
            Stage(BlockKind.CONV, depths=(0, 1), kernel_sizes=(3,), act=Act.RELU, shortcut=True),
            Stage(BlockKind.MAX_POOL, kernel_sizes=(3,), stride=2),
            Stage(
                BlockKind.BOTTLENECK,
                widths=(12, 16),
                depths=(1, 2),
                kernel_sizes=(3,),
                expand_ratios=(0.25, 0.5),
                act=Act.RELU,
                out_act=Act.RELU,
                shortcut=True,
            ),
            *HEAD,
        ),
        resolutions=(17, 20),
        divisor=4,
    )


def own_space() -> SearchSpace:
    """As a user writes it in a file."""
    stages = [
        {"kind": "conv", "widths": [8], "kernel_sizes": [3], "stride": 2, "act": "relu6"},
        {
            "kind": "inverted",
            "widths": [12, 16],
            "depths": [1, 2, 3],
            "kernel_sizes": [3, 5],
            "expand_ratios": [2, 4],
            "stride": 2,
            "act": "relu6",
            "shortcut": True,
        },
        {"kind": "pool"},
        {"kind": "linear", "widths": [7], "norm": False, "bias": True},
    ]
    return SearchSpace.from_dict({"name": "my_space", "resolutions": [48, 64], "divisor": 4, "stages": stages})


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "tiny_bottleneck": bottleneck_space,
    "my_space": own_space,
    "tiny_inverted": inverted_space,
    "tiny_width": width_space,
    "tiny_fixed": fixed_space,
    **{name: partial(load_space, name) for name in list_spaces()},
}


@pytest.fixture(scope="session", params=list(SPACES))
def space(request: pytest.FixtureRequest) -> SearchSpace:
    """Each of the spaces in turn."""
    return SPACES[request.param]()


@pytest.fixture(scope="session", params=["tiny_inverted", "tiny_width", "tiny_fixed", "tiny_bottleneck"])
def tiny_space(request: pytest.FixtureRequest) -> SearchSpace:
    """A space small enough to list every arch of."""
    return SPACES[request.param]()


@pytest.fixture(scope="session")
def tiny_inverted() -> SearchSpace:
    return inverted_space()


@pytest.fixture(scope="session")
def tiny_width() -> SearchSpace:
    return width_space()


@pytest.fixture(scope="session")
def cifar() -> SearchSpace:
    return load_space("cifar_mbv3")


@pytest.fixture(scope="session")
def ofa() -> SearchSpace:
    return load_space("ofa_mbv3_w1.0")
