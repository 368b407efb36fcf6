"""Goldens of the named spaces: MACs, parameters, widths and sizes of the reference code."""

from __future__ import annotations

import pytest

from supernet.errors import InvalidSpaceError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import blocks_of, macs, params
from supernet.spaces.presets import list_spaces, load_space
from supernet.spaces.space import SearchSpace


def uniform(space: SearchSpace, kernel: int, ratio: int, depth: int, resolution: int) -> Arch:
    choice = {"ks": [kernel] * 20, "e": [ratio] * 20, "d": [depth] * 5, "r": resolution}
    return Arch.from_ofa(choice, space)


@pytest.mark.parametrize(
    ("name", "kernel", "ratio", "depth", "resolution", "millions"),
    [
        ("ofa_mbv3_w1.0", 7, 6, 4, 224, 566.17),
        ("ofa_mbv3_w1.0", 7, 6, 4, 192, 417.29),
        ("ofa_mbv3_w1.0", 7, 6, 4, 160, 291.32),
        ("ofa_mbv3_w1.0", 7, 6, 4, 128, 188.25),
        ("ofa_mbv3_w1.0", 5, 4, 3, 224, 250.75),
        ("ofa_mbv3_w1.0", 5, 4, 3, 192, 185.10),
        ("ofa_mbv3_w1.0", 5, 4, 3, 160, 129.55),
        ("ofa_mbv3_w1.0", 5, 4, 3, 128, 84.10),
        ("ofa_mbv3_w1.0", 3, 3, 2, 224, 121.28),
        ("ofa_mbv3_w1.0", 3, 3, 2, 192, 89.84),
        ("ofa_mbv3_w1.0", 3, 3, 2, 160, 63.24),
        ("ofa_mbv3_w1.0", 3, 3, 2, 128, 41.48),
        ("ofa_mbv3_w1.0", 3, 3, 4, 224, 226.19),
        ("ofa_mbv3_w1.2", 7, 6, 4, 224, 843.10),
        ("ofa_mbv3_w1.2", 3, 3, 2, 224, 193.08),
    ],
)
def test_macs_equal_the_reference(
    name: str, kernel: int, ratio: int, depth: int, resolution: int, millions: float
) -> None:
    space = load_space(name)
    assert round(macs(space, uniform(space, kernel, ratio, depth, resolution)) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("ofa_mbv3_w1.0", 1000, 7_664_760),
        ("ofa_mbv3_w1.0", 100, 6_511_860),
        ("ofa_mbv3_w1.0", 10, 6_396_570),
        ("ofa_mbv3_w1.2", 1000, 10_701_632),
    ],
)
def test_parameters_of_the_largest_arch_equal_the_reference(name: str, classes: int, expected: int) -> None:
    space = load_space(name).with_classes(classes)
    assert params(space, space.largest()) == expected


# Per block: input and output channels, inner widths and hidden squeeze-excite widths for expand ratios 3, 4 and 6.
W10 = {
    0: (16, 24, (48, 64, 96), None),
    1: (24, 24, (72, 96, 144), None),
    4: (24, 40, (72, 96, 144), (24, 24, 40)),
    5: (40, 40, (120, 160, 240), (32, 40, 64)),
    8: (40, 80, (120, 160, 240), None),
    9: (80, 80, (240, 320, 480), None),
    12: (80, 112, (240, 320, 480), (64, 80, 120)),
    13: (112, 112, (336, 448, 672), (88, 112, 168)),
    16: (112, 160, (336, 448, 672), (88, 112, 168)),
    17: (160, 160, (480, 640, 960), (120, 160, 240)),
}
W12 = {
    0: (24, 32, (72, 96, 144), None),
    1: (32, 32, (96, 128, 192), None),
    4: (32, 48, (96, 128, 192), (24, 32, 48)),
    5: (48, 48, (144, 192, 288), (40, 48, 72)),
    8: (48, 96, (144, 192, 288), None),
    9: (96, 96, (288, 384, 576), None),
    12: (96, 136, (288, 384, 576), (72, 96, 144)),
    13: (136, 136, (408, 544, 816), (104, 136, 208)),
    16: (136, 192, (408, 544, 816), (104, 136, 208)),
    17: (192, 192, (576, 768, 1152), (144, 192, 288)),
}


@pytest.mark.parametrize(("name", "table"), [("ofa_mbv3_w1.0", W10), ("ofa_mbv3_w1.2", W12)])
@pytest.mark.parametrize("choice", [0, 1, 2])
def test_inner_and_squeeze_excite_widths_equal_the_reference(
    name: str, table: dict[int, tuple[int, int, tuple[int, ...], tuple[int, ...] | None]], choice: int
) -> None:
    space = load_space(name)
    arch = uniform(space, 7, (3, 4, 6)[choice], 4, 224)
    inverted = [spec for spec in blocks_of(space, arch) if spec.kind is BlockKind.INVERTED]
    for index, spec in enumerate(inverted):
        first_of_stage = index % 4 == 0
        in_chs, out_chs, mids, hiddens = table[index if first_of_stage else index // 4 * 4 + 1]
        assert (spec.in_chs, spec.out_chs, spec.mid_chs) == (in_chs, out_chs, mids[choice])
        assert spec.se_chs == (hiddens[choice] if hiddens else 0)
        assert spec.shortcut is not first_of_stage
        assert spec.stride == ((2, 2, 2, 1, 2)[index // 4] if first_of_stage else 1)
        assert spec.act == ("relu" if index < 8 else "hswish")


def test_sizes_of_the_reference_spaces() -> None:
    assert load_space("ofa_mbv3_w1.0").size() == 7371**5 * 25
    assert load_space("ofa_mbv3_w1.2").size() == 7371**5 * 17
    assert load_space("ofa_mbv3_w1.0").resolutions == tuple(range(128, 225, 4))
    assert load_space("ofa_mbv3_w1.2").resolutions == tuple(range(160, 225, 4))


def test_last_maps_of_the_default_space_leave_room_for_kernels() -> None:
    space = load_space("cifar_mbv3")
    for spec in space.distinct_blocks():
        if spec.kind is BlockKind.INVERTED:
            assert spec.out_size >= 2


def test_default_space_spans_4_to_31_million_macs_at_32_pixels() -> None:
    space = load_space("cifar_mbv3")
    at_32 = [
        Arch(32, arch.depths, arch.kernel_sizes, arch.expand_ratios) for arch in (space.smallest(), space.largest())
    ]
    assert [round(macs(space, arch) / 1e6, 1) for arch in at_32] == [4.1, 30.4]


def test_spaces_are_found_by_name() -> None:
    for name in list_spaces():
        space = load_space(name)
        assert space.name == name
        assert load_space(name) is space
        assert space.contains(space.smallest())
        assert space.contains(space.largest())
    with pytest.raises(InvalidSpaceError, match=r"No search space 'mbv3'\. Known are: cifar_mbv3, "):
        load_space("mbv3")
