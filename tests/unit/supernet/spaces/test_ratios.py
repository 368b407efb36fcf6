"""Width ratios to archs, against the vectors published for universally slimmable networks."""

from __future__ import annotations

import numpy as np
import pytest

from supernet.errors import InvalidArchError
from supernet.spaces.costs import blocks_of, macs
from supernet.spaces.presets import load_space
from supernet.spaces.ratios import arch_at_ratios


@pytest.mark.parametrize(
    ("name", "ratio", "millions"),
    [
        ("us_mobilenet_v1", 1.0, 569),
        ("us_mobilenet_v1", 0.75, 325),
        ("us_mobilenet_v1", 0.5, 149),
        ("us_mobilenet_v1", 0.325, 71),
        ("us_mobilenet_v1", 0.25, 41),
        ("us_mobilenet_v2", 1.0, 300.8),
        ("us_mobilenet_v2", 0.75, 209.1),
        ("us_mobilenet_v2", 0.5, 97.1),
        ("us_mobilenet_v2", 0.35, 59.3),
    ],
)
def test_macs_at_a_ratio_equal_what_is_published(name: str, ratio: float, millions: float) -> None:
    space = load_space(name)
    digits = 1 if isinstance(millions, float) else 0
    assert round(macs(space, arch_at_ratios(space, ratio)) / 1e6, digits) == millions


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "us_mobilenet_v2", "pss_mobilenet_v1", "pss_resnet50"])
def test_every_ratio_of_the_range_is_an_arch_whose_widths_are_multiples_of_8(name: str) -> None:
    space = load_space(name)
    least = {"us_mobilenet_v1": 0.25, "us_mobilenet_v2": 0.35}.get(name, 0.75)
    for ratio in np.arange(least, 1.0005, 0.001):
        arch = arch_at_ratios(space, min(float(ratio), 1.0))
        assert all(width % 8 == 0 for width in arch.widths)
    for spec in blocks_of(space, arch_at_ratios(space, least)):
        assert not spec.shortcut or spec.in_chs == spec.out_chs


def test_ratios_that_round_to_the_same_channels_are_one_arch() -> None:
    space = load_space("us_mobilenet_v1")
    assert arch_at_ratios(space, 0.5) == arch_at_ratios(space, 0.501)
    assert arch_at_ratios(space, 0.5) != arch_at_ratios(space, 0.51)


def test_each_layer_can_have_a_ratio_of_its_own() -> None:
    space = load_space("us_mobilenet_v1")
    arch = arch_at_ratios(space, [0.25, *[1.0] * 12, 0.5])
    assert arch.widths == (8, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 512)


@pytest.mark.parametrize("ratios", [0.2, 1.5, [0.5] * 13, [0.5] * 13 + [float("nan")], []])
def test_ratios_outside_the_range_or_of_another_number_are_refused(ratios: float | list[float]) -> None:
    with pytest.raises(InvalidArchError, match=r"ratios? "):
        arch_at_ratios(load_space("us_mobilenet_v1"), ratios)


def test_a_resolution_may_be_chosen_and_must_be_on_offer() -> None:
    space = load_space("pss_mobilenet_v2")
    assert arch_at_ratios(space, 0.75, resolution=128) == space.smallest()
    with pytest.raises(InvalidArchError, match="'resolution'"):
        arch_at_ratios(space, 0.75, resolution=130)
    with pytest.raises(InvalidArchError, match="no elastic widths"):
        arch_at_ratios(load_space("cifar_mbv3"), 0.75)
