"""Once-for-all: elastic kernel size, depth, expand ratio and, in ResNet50, width.

Source: Cai et al. 2020 (arXiv 1908.09791); `ofa_mbv3.py`, `ofa_proxyless.py` and `ofa_resnets.py` of the reference.
"""

from __future__ import annotations

from supernet.spaces.blocks import Act, BlockKind, make_divisible
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

IMAGENET_CLASSES = 1000
# Per image size of the reference's loaders: every multiple of 4.
RESOLUTIONS = tuple(range(128, 225, 4))
# What the indices `w` of the reference's ResNet50 stand for.
RESNET_WIDTH_MULTIPLIERS = (0.65, 0.8, 1.0)

_KERNELS, _EXPANDS, _DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)


def ofa_mbv3(name: str, width_multiplier: float, resolutions: tuple[int, ...] = RESOLUTIONS) -> SearchSpace:
    """MobileNetV3-Large with 20 elastic blocks in 5 stages."""
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
            *mobilenet_v3_stem(stem),
            *(elastic_inverted(width, stride=stride, act=act, se=se) for width, stride, act, se in stages),
            *mobilenet_v3_head(final, mixed, IMAGENET_CLASSES),
        ),
        resolutions=resolutions,
    )


def ofa_proxyless(name: str, width_multiplier: float) -> SearchSpace:
    """ProxylessNAS-Mobile with 21 elastic blocks in 6 stages, the last of a fixed depth of 1.

    The separable block after the stem has no shortcut, and batch normalisation an epsilon of 1e-3.
    """
    stem, first, *widths, mixed = (
        make_divisible(width * width_multiplier) for width in (32, 16, 24, 40, 80, 96, 192, 320, 1280)
    )
    stages = zip(widths, (2, 2, 2, 1, 2, 1), (*[_DEPTHS] * 5, (1,)), strict=True)
    return SearchSpace(
        name,
        stages=(
            Stage(BlockKind.CONV, widths=(stem,), kernel_sizes=(3,), stride=2, act=Act.RELU6),
            Stage(BlockKind.SEPARABLE, widths=(first,), kernel_sizes=(3,), act=Act.RELU6),
            *(
                elastic_inverted(width, stride=stride, act=Act.RELU6, se=False, depths=depths)
                for width, stride, depths in stages
            ),
            Stage(BlockKind.CONV, widths=(mixed,), act=Act.RELU6),
            *classifier(IMAGENET_CLASSES),
        ),
        resolutions=RESOLUTIONS,
        norm_eps=1e-3,
    )


def ofa_resnet50() -> SearchSpace:
    """ResNet50-D with 18 elastic bottlenecks in 4 stages; the residual convolution of its stem may be skipped."""
    inner, outer, *widths = (_multiplied(width) for width in (32, 64, 256, 512, 1024, 2048))
    stages = zip(widths, (1, 2, 2, 2), (2, 2, 4, 2), strict=True)
    return SearchSpace(
        "ofa_resnet50",
        stages=(
            Stage(BlockKind.CONV, widths=inner, kernel_sizes=(3,), stride=2, act=Act.RELU),
            Stage(BlockKind.CONV, depths=(0, 1), kernel_sizes=(3,), act=Act.RELU, shortcut=True),
            Stage(BlockKind.CONV, widths=outer, kernel_sizes=(3,), act=Act.RELU),
            Stage(BlockKind.MAX_POOL, kernel_sizes=(3,), stride=2),
            *(
                Stage(
                    BlockKind.BOTTLENECK,
                    widths=width,
                    depths=(fewest, fewest + 1, fewest + 2),
                    kernel_sizes=(3,),
                    expand_ratios=(0.2, 0.25, 0.35),
                    stride=stride,
                    act=Act.RELU,
                    out_act=Act.RELU,
                    shortcut=True,
                )
                for width, stride, fewest in stages
            ),
            *classifier(IMAGENET_CLASSES),
        ),
        resolutions=RESOLUTIONS,
    )


def elastic_inverted(
    width: int,
    *,
    stride: int,
    act: Act,
    se: bool,
    depths: tuple[int, ...] = _DEPTHS,
    expand_ratios: tuple[float, ...] = _EXPANDS,
) -> Stage:
    """A stage of inverted blocks with kernels of 3, 5 and 7 pixels."""
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


def mobilenet_v3_stem(width: int) -> tuple[Stage, ...]:
    """A convolution of stride 2 and a separable block with a shortcut."""
    conv = Stage(BlockKind.CONV, widths=(width,), kernel_sizes=(3,), stride=2, act=Act.HSWISH)
    return conv, Stage(BlockKind.SEPARABLE, widths=(width,), kernel_sizes=(3,), act=Act.RELU, shortcut=True)


def mobilenet_v3_head(final: int, mixed: int, classes: int, *, bias: bool = False) -> tuple[Stage, ...]:
    """The last expansion, the mean over the map, a 1×1 convolution without normalisation, the classifier."""
    return (
        Stage(BlockKind.CONV, widths=(final,), act=Act.HSWISH),
        Stage(BlockKind.POOL),
        Stage(BlockKind.CONV, widths=(mixed,), act=Act.HSWISH, norm=False, bias=bias),
        Stage(BlockKind.LINEAR, widths=(classes,), norm=False, bias=True),
    )


def classifier(classes: int) -> tuple[Stage, Stage]:
    """The mean over the map and a linear layer."""
    return Stage(BlockKind.POOL), Stage(BlockKind.LINEAR, widths=(classes,), norm=False, bias=True)


def _multiplied(width: int) -> tuple[int, ...]:
    """A width times each multiplier; two multipliers may round to one width."""
    return tuple(sorted({make_divisible(width * multiplier) for multiplier in RESNET_WIDTH_MULTIPLIERS}))
