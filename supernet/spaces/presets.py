"""Search spaces by name, each one value with its origin."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from supernet.errors import InvalidSpaceError
from supernet.spaces.blocks import Act, BlockKind, make_divisible
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

_KERNELS = (3, 5, 7)


def _inverted(
    width: int, *, stride: int, act: Act, se: bool, depths: tuple[int, ...], expand_ratios: tuple[float, ...]
) -> Stage:
    return Stage(
        BlockKind.INVERTED,
        widths=(width,),
        depths=depths,
        kernel_sizes=_KERNELS,
        expand_ratios=expand_ratios,
        stride=stride,
        act=act,
        se=se,
        shortcut=True,
    )


def _stem(width: int) -> tuple[Stage, Stage]:
    conv = Stage(BlockKind.CONV, widths=(width,), kernel_sizes=(3,), stride=2, act=Act.HSWISH)
    return conv, Stage(BlockKind.SEPARABLE, widths=(width,), kernel_sizes=(3,), act=Act.RELU, shortcut=True)


def _head(final: int, mixed: int, classes: int) -> tuple[Stage, ...]:
    return (
        Stage(BlockKind.CONV, widths=(final,), act=Act.HSWISH),
        Stage(BlockKind.POOL),
        Stage(BlockKind.CONV, widths=(mixed,), act=Act.HSWISH, norm=False),
        Stage(BlockKind.LINEAR, widths=(classes,), norm=False, bias=True),
    )


def _ofa_mbv3(name: str, width_multiplier: float, resolutions: range) -> SearchSpace:
    """Once-for-all MobileNetV3. Source: Cai et al. 2020 (arXiv 1908.09791), `ofa_mbv3.py`."""
    stem, *widths, final, mixed = (
        make_divisible(width * width_multiplier) for width in (16, 24, 40, 80, 112, 160, 960, 1280)
    )
    stages = zip(
        widths,
        (2, 2, 2, 1, 2),
        (Act.RELU, Act.RELU, Act.HSWISH, Act.HSWISH, Act.HSWISH),
        (False, True, False, True, True),
        strict=True,
    )
    return SearchSpace(
        name,
        stages=(
            *_stem(stem),
            *(
                _inverted(width, stride=stride, act=act, se=se, depths=(2, 3, 4), expand_ratios=(3, 4, 6))
                for width, stride, act, se in stages
            ),
            *_head(final, mixed, 1000),
        ),
        resolutions=tuple(resolutions),
    )


def _cifar_mbv3() -> SearchSpace:
    """Ours: an OFA-type MobileNetV3 for 32×32 images, 2.4 to 30.4 M MACs.

    A total stride of 8 keeps the last maps at 3×3 to 4×4; the reference's 32 would leave 1×1, where kernel sizes
    differ in nothing but padding.
    """
    stages = zip(
        (24, 40, 64, 96, 128),
        (1, 2, 1, 2, 1),
        (Act.RELU, Act.RELU, Act.HSWISH, Act.HSWISH, Act.HSWISH),
        (False, True, False, True, True),
        strict=True,
    )
    return SearchSpace(
        "cifar_mbv3",
        stages=(
            *_stem(16),
            *(
                _inverted(width, stride=stride, act=act, se=se, depths=(1, 2, 3), expand_ratios=(2, 3, 4))
                for width, stride, act, se in stages
            ),
            *_head(384, 512, 10),
        ),
        resolutions=(24, 28, 32),
    )


_PRESETS: dict[str, Callable[[], SearchSpace]] = {
    "cifar_mbv3": _cifar_mbv3,
    "ofa_mbv3_w1.0": lambda: _ofa_mbv3("ofa_mbv3_w1.0", 1.0, range(128, 225, 4)),
    "ofa_mbv3_w1.2": lambda: _ofa_mbv3("ofa_mbv3_w1.2", 1.2, range(160, 225, 4)),
}


def list_spaces() -> list[str]:
    """Names of the search spaces that come with Tailor."""
    return list(_PRESETS)


@cache
def load_space(name: str) -> SearchSpace:
    """A search space by its name.

    Raises:
        InvalidSpaceError: No such name; the message lists all.
    """
    if name not in _PRESETS:
        raise InvalidSpaceError(f"No search space '{name}'. Known are: {', '.join(_PRESETS)}.")
    return _PRESETS[name]()
