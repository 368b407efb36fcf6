"""Networks whose widths are elastic: universally slimmable ones (US-Nets) and those of PSS-Net.

Every layer with a width of its own is a stage; every multiple of 8 that some width ratio of the range rounds to is a
choice. One ratio for the whole network is the arch that `arch_at_ratios` gives; the space itself holds one per layer.
Source: Yu & Huang 2019 (arXiv 1903.05134), `us_mobilenet_v{1,2}.py`; PSS-Net (arXiv 2109.05432), `utils/config.py`.
"""

from __future__ import annotations

from supernet.spaces.blocks import Act, BlockKind, make_divisible
from supernet.spaces.families.ofa import IMAGENET_CLASSES, classifier
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

US_RESOLUTIONS = (224,)
PSS_RESOLUTIONS = tuple(range(128, 225, 8))

_DIVISOR = 8
# Output channels and stride of the 13 separable blocks of MobileNetV1.
_MOBILENET_V1 = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
# Output channels, blocks and stride of the stages of MobileNetV2 that expand by 6.
_MOBILENET_V2 = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
# Output channels, blocks and stride of the stages of ResNet50.
_RESNET50 = ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2))


def slimmable_mobilenet_v1(name: str, least_ratio: float, resolutions: tuple[int, ...]) -> SearchSpace:
    """MobileNetV1: a width for the stem and for each of 13 separable blocks."""
    return SearchSpace(
        name,
        stages=(
            _stem(least_ratio),
            *(
                Stage(
                    BlockKind.SEPARABLE,
                    widths=_widths(width, least_ratio),
                    kernel_sizes=(3,),
                    stride=stride,
                    act=Act.RELU6,
                    out_act=Act.RELU6,
                )
                for width, stride in _MOBILENET_V1
            ),
            *classifier(IMAGENET_CLASSES),
        ),
        resolutions=resolutions,
        divisor=_DIVISOR,
    )


def slimmable_mobilenet_v2(name: str, least_ratio: float, resolutions: tuple[int, ...]) -> SearchSpace:
    """MobileNetV2: a width for the stem and each of 7 stages; inner widths are 6 times those, the tail stays 1280.

    PSS-Net draws a ninth multiplier, for the tail, that its network does not use: it is no width here.
    """
    return SearchSpace(
        name,
        stages=(
            _stem(least_ratio),
            Stage(BlockKind.SEPARABLE, widths=_widths(16, least_ratio), kernel_sizes=(3,), act=Act.RELU6),
            *(
                Stage(
                    BlockKind.INVERTED,
                    widths=_widths(width, least_ratio),
                    depths=(depth,),
                    kernel_sizes=(3,),
                    expand_ratios=(6,),
                    stride=stride,
                    act=Act.RELU6,
                    shortcut=True,
                )
                for width, depth, stride in _MOBILENET_V2
            ),
            Stage(BlockKind.CONV, widths=(1280,), act=Act.RELU6),
            *classifier(IMAGENET_CLASSES),
        ),
        resolutions=resolutions,
        divisor=_DIVISOR,
    )


def pss_resnet50() -> SearchSpace:
    """ResNet50: a width for the stem and each of 4 stages, inner widths a quarter of the stage's.

    PSS-Net's abstract names ResNet50 and its code has none, so the details are ours, by the rules of its other two
    networks: ratios from 0.75 to 1, widths rounded to multiples of 8, the same resolutions. Shortcuts that change shape
    pool first, as in ResNet-D, which costs the same MACs as a convolution with a stride.
    """
    return SearchSpace(
        "pss_resnet50",
        stages=(
            Stage(BlockKind.CONV, widths=_widths(64, 0.75), kernel_sizes=(7,), stride=2, act=Act.RELU),
            Stage(BlockKind.MAX_POOL, kernel_sizes=(3,), stride=2),
            *(
                Stage(
                    BlockKind.BOTTLENECK,
                    widths=_widths(width, 0.75),
                    depths=(depth,),
                    kernel_sizes=(3,),
                    expand_ratios=(0.25,),
                    stride=stride,
                    act=Act.RELU,
                    out_act=Act.RELU,
                    shortcut=True,
                )
                for width, depth, stride in _RESNET50
            ),
            *classifier(IMAGENET_CLASSES),
        ),
        resolutions=PSS_RESOLUTIONS,
        divisor=_DIVISOR,
    )


def _stem(least_ratio: float) -> Stage:
    return Stage(BlockKind.CONV, widths=_widths(32, least_ratio), kernel_sizes=(3,), stride=2, act=Act.RELU6)


def _widths(width: int, least_ratio: float) -> tuple[int, ...]:
    return tuple(range(make_divisible(width * least_ratio, _DIVISOR), width + 1, _DIVISOR))
