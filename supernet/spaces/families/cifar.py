"""Our own space for small images."""

from __future__ import annotations

from supernet.spaces.blocks import Act
from supernet.spaces.families.ofa import elastic_inverted, mobilenet_v3_head, mobilenet_v3_stem
from supernet.spaces.space import SearchSpace


def cifar_mbv3() -> SearchSpace:
    """An OFA-type MobileNetV3 for 32×32 images, 2.4 to 30.4 M MACs.

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
            *mobilenet_v3_stem(16),
            *(
                elastic_inverted(width, stride=stride, act=act, se=se, depths=(1, 2, 3), expand_ratios=(2, 3, 4))
                for width, stride, act, se in stages
            ),
            *mobilenet_v3_head(384, 512, 10),
        ),
        resolutions=(24, 28, 32),
    )
