"""The tiny networks that NetAug trains, each as a space of one arch; `augment` builds the space around one.

Source: Cai et al. 2022 (arXiv 2110.08890); `netaug/models/base/` of the reference. A block has a shortcut only where
it is not the first of its stage, even if size and width stay the same.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from supernet.spaces.blocks import Act, BlockKind, make_divisible
from supernet.spaces.families.ofa import IMAGENET_CLASSES, classifier, mobilenet_v3_head, mobilenet_v3_stem
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST_SE_CHS = 16
# The reference never makes its tail narrower.
_LEAST_TAIL = 1280

# Per stage: expand ratios and kernel sizes of its blocks, and the stride of the first.
_MOBILENET_V2 = (
    ((6,) * 2, (3,) * 2, 2),
    ((6,) * 3, (3,) * 3, 2),
    ((6,) * 4, (3,) * 4, 2),
    ((6,) * 3, (3,) * 3, 1),
    ((6,) * 3, (3,) * 3, 2),
)
_PROXYLESS = (
    ((3, 3), (5, 3), 2),
    ((3, 3, 3, 3), (7, 3, 5, 5), 2),
    ((6, 3, 3, 3), (7, 5, 5, 5), 2),
    ((6, 3, 3, 3), (5, 5, 5, 5), 1),
    ((6, 6, 3, 3), (7, 7, 7, 7), 2),
)
_MCUNET = (
    ((3, 5, 5, 4), (7, 3, 7, 5), 2),
    ((5, 5, 5), (5, 5, 5), 2),
    ((5, 6, 4), (3, 7, 5), 2),
    ((5, 5, 5), (5, 7, 3), 1),
    ((6, 5, 4), (3, 7, 3), 2),
)
# Per stage: inner widths at width 1, kernel size, stride, activation, squeeze-excite.
_MOBILENET_V3 = (
    ((64, 72), 3, 2, Act.RELU, False),
    ((72, 120, 120), 5, 2, Act.RELU, True),
    ((240, 200, 184, 184), 3, 2, Act.HSWISH, False),
    ((480, 672), 3, 1, Act.HSWISH, True),
    ((672, 960, 960), 5, 2, Act.HSWISH, True),
)


def netaug_mobilenet_v2(width_multiplier: float, *, resolution: int) -> SearchSpace:
    """MobileNetV2 at a fixed width; its last stage and tail count as the head."""
    stem, *widths, last = _scaled((32, 16, 24, 32, 64, 96, 160, 320), width_multiplier)
    head = (_inverted(widths[-1], last, 6 * widths[-1], kernel_size=3), _tail(_LEAST_TAIL))
    return _relu6_network(
        f"netaug_mbv2_w{width_multiplier}", (stem, *widths), _MOBILENET_V2, head, resolution=resolution
    )


def netaug_tiny_mobilenet_v2(*, resolution: int) -> SearchSpace:
    """MobileNetV2-Tiny: the trunk of width 0.35 with a narrow head."""
    stem, *widths = _scaled((32, 16, 24, 32, 64, 96, 160), 0.35)
    head = (_inverted(widths[-1], 112, 6 * widths[-1], kernel_size=3), _tail(448))
    return _relu6_network("netaug_tiny_mbv2", (stem, *widths), _MOBILENET_V2, head, resolution=resolution)


def netaug_proxyless(width_multiplier: float, *, resolution: int) -> SearchSpace:
    """ProxylessNAS-Mobile at a fixed width."""
    stem, *widths, last = _scaled((32, 16, 32, 40, 80, 96, 192, 320), width_multiplier)
    head = (_inverted(widths[-1], last, 6 * widths[-1], kernel_size=7), _tail(_LEAST_TAIL))
    name = f"netaug_proxyless_w{width_multiplier}"
    return _relu6_network(name, (stem, *widths), _PROXYLESS, head, resolution=resolution)


def netaug_mcunet(*, resolution: int) -> SearchSpace:
    """MCUNet for 256 kB of memory; it classifies from 160 channels, without a tail."""
    head = (_inverted(96, 160, 480, kernel_size=7),)
    return _relu6_network("netaug_mcunet", (16, 8, 16, 24, 40, 48, 96), _MCUNET, head, resolution=resolution)


def netaug_mobilenet_v3(width_multiplier: float, *, resolution: int) -> SearchSpace:
    """MobileNetV3-Large at a fixed width; hidden squeeze-excite widths are at least 16."""
    stem, *widths, final = _scaled((16, 24, 40, 80, 112, 160, 960), width_multiplier)
    return SearchSpace(
        f"netaug_mbv3_w{width_multiplier}",
        stages=(
            *mobilenet_v3_stem(stem),
            *(
                _inverted(
                    in_chs,
                    out_chs,
                    make_divisible(round(mid * width_multiplier)),
                    kernel_size=kernel_size,
                    stride=1 if block else stride,
                    act=act,
                    se=se,
                    shortcut=block > 0,
                )
                for (stage_in, out_chs), (mids, kernel_size, stride, act, se) in zip(
                    pairwise((stem, *widths)), _MOBILENET_V3, strict=True
                )
                for block, (mid, in_chs) in enumerate(zip(mids, _inputs(stage_in, out_chs), strict=False))
            ),
            *mobilenet_v3_head(final, _LEAST_TAIL, IMAGENET_CLASSES, bias=True),
        ),
        resolutions=(resolution,),
    )


def _relu6_network(
    name: str,
    widths: tuple[int, ...],
    blocks: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...],
    head: tuple[Stage, ...],
    *,
    resolution: int,
) -> SearchSpace:
    """Stem, separable block, stages of inverted blocks, head and classifier."""
    stem, first, *_ = widths
    return SearchSpace(
        name,
        stages=(
            Stage(BlockKind.CONV, widths=(stem,), kernel_sizes=(3,), stride=2, act=Act.RELU6),
            Stage(BlockKind.SEPARABLE, widths=(first,), kernel_sizes=(3,), act=Act.RELU6),
            *(
                _inverted(
                    in_chs,
                    out_chs,
                    make_divisible(round(expand_ratio * in_chs)),
                    kernel_size=kernel_size,
                    stride=1 if block else stride,
                    shortcut=block > 0,
                )
                for (stage_in, out_chs), (expand_ratios, kernel_sizes, stride) in zip(
                    pairwise(widths[1:]), blocks, strict=True
                )
                for block, (expand_ratio, kernel_size, in_chs) in enumerate(
                    zip(expand_ratios, kernel_sizes, _inputs(stage_in, out_chs), strict=False)
                )
            ),
            *head,
            *classifier(IMAGENET_CLASSES),
        ),
        resolutions=(resolution,),
    )


def _inverted(
    in_chs: int,
    out_chs: int,
    mid_chs: int,
    *,
    kernel_size: int,
    stride: int = 1,
    act: Act = Act.RELU6,
    se: bool = False,
    shortcut: bool = False,
) -> Stage:
    """A stage of one block; inner widths are given as such, so the ratios are what they come to."""
    se_chs = max(make_divisible(mid_chs / 4), _LEAST_SE_CHS) if se else 0
    return Stage(
        BlockKind.INVERTED,
        widths=(out_chs,),
        kernel_sizes=(kernel_size,),
        expand_ratios=(mid_chs / in_chs,),
        stride=stride,
        act=act,
        se=se,
        se_ratio=se_chs / mid_chs if se else 1,
        shortcut=shortcut,
    )


def _inputs(stage_in: int, out_chs: int) -> Iterator[int]:
    """Input channels of the blocks of a stage."""
    yield stage_in
    while True:
        yield out_chs


def _tail(width: int) -> Stage:
    return Stage(BlockKind.CONV, widths=(width,), act=Act.RELU6)


def _scaled(widths: tuple[int, ...], multiplier: float) -> tuple[int, ...]:
    return tuple(make_divisible(width * multiplier) for width in widths)
