"""Goldens of the named spaces: MACs, parameters, widths and sizes of the reference code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from supernet.errors import InvalidSpaceError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import blocks_of, macs, params
from supernet.spaces.presets import find_space, list_spaces, load_space
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


# ---------------------------------------------------------------------- the other families


@pytest.mark.parametrize(
    ("name", "smallest", "largest", "size"),
    [
        # MACs; methods.md of the field count them so: without batch normalisation and pooling.
        ("ofa_resnet50", 315.1, 7491.6, None),
        ("us_mobilenet_v1", 41, 569, None),
        ("us_mobilenet_v2", 59.3, 300.8, None),
        ("netaug_tiny_mbv2", 23.5, 23.5, 1),
        ("netaug_mbv2_w0.35", 30.9, 30.9, 1),
        ("netaug_proxyless_w0.35", 35.7, 35.7, 1),
        ("netaug_mcunet", 81.8, 81.8, 1),
    ],
)
def test_ends_of_the_other_families_equal_what_is_published(
    name: str, smallest: float, largest: float, size: int | None
) -> None:
    space = load_space(name)
    digits = 0 if isinstance(smallest, int) else 1
    ends = [round(macs(space, arch) / 1e6, digits) for arch in (space.smallest(), space.largest())]
    assert ends == [smallest, largest]
    assert size is None or space.size() == size


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("netaug_tiny_mbv2", 0.75),
        ("netaug_mbv2_w0.35", 1.7),
        ("netaug_proxyless_w0.35", 1.8),
        ("netaug_mcunet", 0.74),
        ("pss_resnet50", 25.557),  # torchvision's ResNet50
        ("us_mobilenet_v2", 3.505),  # torchvision's MobileNetV2
    ],
)
def test_parameters_of_the_other_families_equal_what_is_published(name: str, millions: float) -> None:
    space = load_space(name)
    digits = len(str(millions).split(".")[1])
    assert round(params(space, space.largest()) / 1e6, digits) == millions


def test_smallest_resnet_of_the_reference_at_its_largest_resolution() -> None:
    space = load_space("ofa_resnet50")
    assert round(macs(space, replace(space.smallest(), resolution=224)) / 1e6, 1) == 962.2


@pytest.mark.parametrize(
    ("name", "smallest", "largest"), [("pss_mobilenet_v1", 106.78, 568.79), ("pss_mobilenet_v2", 69.15, 300.84)]
)
def test_ends_of_pss_net_equal_its_bins_when_pooling_counts(name: str, smallest: float, largest: float) -> None:
    # Differs from the rest of the field: PSS-Net counts one MAC per pixel of the last pooling.
    space = load_space(name)
    ends = []
    for arch in (space.smallest(), space.largest()):
        pooled = [spec.in_chs * spec.in_size**2 for spec in blocks_of(space, arch) if spec.kind is BlockKind.POOL]
        ends.append(round((macs(space, arch) + sum(pooled)) / 1e6, 2))
    assert ends == [smallest, largest]


def test_widths_of_the_resnet_equal_the_reference() -> None:
    stages = load_space("ofa_resnet50").stages
    widths = [stage.widths for stage in stages if len(stage.widths) > 1]
    assert widths == [
        (24, 32),  # multipliers 0.65 and 0.8 round to one width
        (40, 48, 64),
        (168, 208, 256),
        (336, 408, 512),
        (664, 816, 1024),
        (1328, 1640, 2048),
    ]


@pytest.mark.parametrize(
    ("out_chs", "mids"),
    [
        (168, (32, 40, 56)),
        (208, (40, 56, 72)),
        (256, (48, 64, 88)),
        (336, (64, 88, 120)),
        (664, (136, 168, 232)),
        (2048, (408, 512, 720)),
    ],
)
def test_inner_widths_of_bottlenecks_equal_the_reference(out_chs: int, mids: tuple[int, ...]) -> None:
    space = load_space("ofa_resnet50")
    found = {spec.mid_chs for spec in space.distinct_blocks() if spec.out_chs == out_chs and "bottle" in spec.kind}
    assert tuple(sorted(found)) == mids


def test_first_bottleneck_of_a_stage_projects_its_shortcut_and_the_others_add_their_input() -> None:
    space = load_space("ofa_resnet50")
    kinds = [spec.kind for spec in blocks_of(space, space.largest())]
    bottlenecks = [kind for kind in kinds if kind in (BlockKind.BOTTLENECK, BlockKind.BOTTLENECK_DOWN)]
    firsts = [index for index, kind in enumerate(bottlenecks) if kind is BlockKind.BOTTLENECK_DOWN]
    assert len(bottlenecks) == 18
    assert firsts == [0, 4, 8, 14]


def test_proxyless_has_21_elastic_blocks_and_no_shortcut_in_its_first() -> None:
    space = load_space("ofa_proxyless_w1.3")
    blocks = blocks_of(space, space.largest())
    assert space.norm_eps == 1e-3
    assert [spec.out_chs for spec in blocks[:2]] == [40, 24]
    assert not blocks[1].shortcut
    assert sum(spec.kind is BlockKind.INVERTED for spec in blocks) == 21
    assert [stage.widths for stage in space.stages if stage.kind is BlockKind.INVERTED] == [
        *((32,), (56,), (104,), (128,), (248,), (416,))
    ]
    assert blocks[-3].out_chs == 1664
    assert blocks[-3].norm


# ---------------------------------------------------------------------- a user's own

TOML_SPACE = """
name = "my_space"
resolutions = [48, 64]
divisor = 4

[[stages]]
kind = "conv"
widths = [8]
kernel_sizes = [3]
stride = 2
act = "relu6"

[[stages]]
kind = "inverted"
widths = [12, 16]
depths = [1, 2, 3]
kernel_sizes = [3, 5]
expand_ratios = [2, 4]
stride = 2
act = "relu6"
shortcut = true

[[stages]]
kind = "pool"

[[stages]]
kind = "linear"
widths = [7]
norm = false
bias = true
"""


def test_a_users_own_space_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(TOML_SPACE, encoding="utf-8")
    space = find_space(str(path))
    assert space.name == "my_space"
    assert space.classes == 7
    assert [slot.dimension for slot in space.slots][:2] == ["resolution", "depths"]
    again = tmp_path / "space.json"
    again.write_text(json.dumps(space.to_dict()), encoding="utf-8")
    assert find_space(str(again)) == space
    assert find_space("cifar_mbv3") is load_space("cifar_mbv3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("widths = [12, 16]", "widths = [16, 12]", r"'widths' of a stage must ascend without repeats, got \[16, 12\]"),
        ("stride = 2", "strides = 2", r"Unknown stage keys \['strides'\]; allowed are"),
        ("divisor = 4", "divider = 4", r"unknown \['divider'\]"),
        ('kind = "inverted"', 'kind = "mbconv"', "'mbconv' is not a valid BlockKind"),
        ('kind = "inverted"', 'kind = "bottleneck_down"', "give it that kind"),
        ("resolutions = [48, 64]", "resolutions = 48", "cannot be read"),
        ('name = "my_space"', 'name = "cifar_mbv3"', "choose another name"),
        ("[[stages]]", "[[stages", "cannot be read as TOML"),
        ("kernel_sizes = [3, 5]", "kernel_sizes = [3, 4]", "must be odd"),
        ("depths = [1, 2, 3]", "depths = [0, 2, 3]", "can be skipped"),
        ("depths = [1, 2, 3]", "se_ratio = 0", "'se_ratio' of a stage must be above 0"),
    ],
)
def test_a_broken_space_file_is_refused_with_its_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "space.toml"
    assert old in TOML_SPACE
    path.write_text(TOML_SPACE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidSpaceError, match=message) as caught:
        find_space(str(path))
    assert str(path) in str(caught.value)


def test_what_is_neither_a_name_nor_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpaceError, match=r"Name a file that ends with \.toml or \.json, or one of: cifar_mbv3"):
        find_space("mbv3")
    with pytest.raises(InvalidSpaceError, match="cannot be read: No such file"):
        find_space(str(tmp_path / "none.toml"))
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpaceError, match="no UTF-8 text"):
        find_space(str(binary))
    listed = tmp_path / "list.json"
    listed.write_text("[]", encoding="utf-8")
    with pytest.raises(InvalidSpaceError, match="A search space is an object, got list"):
        find_space(str(listed))
