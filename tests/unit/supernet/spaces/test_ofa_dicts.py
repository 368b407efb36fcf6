"""Architecture dictionaries of the reference: both ways, for its three families."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.costs import blocks_of, macs
from supernet.spaces.ofa_dicts import ofa_from_arch, ofa_keys
from supernet.spaces.presets import load_space

FAMILIES = ["ofa_mbv3_w1.0", "ofa_mbv3_w1.2", "ofa_proxyless_w1.3", "ofa_resnet50"]


def resnet_choice(**changes: Any) -> dict[str, Any]:
    return {"d": [2, 2, 2, 2, 2], "e": [0.35] * 18, "w": [2] * 6, "r": 224} | changes


@pytest.mark.parametrize("name", FAMILIES)
def test_archs_survive_the_way_through_a_dictionary(name: str) -> None:
    space = load_space(name)
    for arch in space.from_rows(space.sample_rows(np.random.default_rng(0), 50)):
        written = ofa_from_arch(arch, space)
        assert Arch.from_ofa(written, space) == arch
        assert written["r"] == arch.resolution


def test_dictionaries_have_the_lengths_of_the_reference() -> None:
    lengths = {
        name: {key: len(value) for key, value in ofa_from_arch(space.smallest(), space).items() if key != "r"}
        for name in FAMILIES
        for space in [load_space(name)]
    }
    assert lengths["ofa_mbv3_w1.0"] == {"ks": 20, "e": 20, "d": 5}
    assert lengths["ofa_proxyless_w1.3"] == {"ks": 21, "e": 21, "d": 6}
    assert lengths["ofa_resnet50"] == {"d": 5, "e": 18, "w": 6}


def test_last_depth_of_proxyless_is_always_1() -> None:
    space = load_space("ofa_proxyless_w1.3")
    assert ofa_from_arch(space.largest(), space)["d"] == [4, 4, 4, 4, 4, 1]
    with pytest.raises(InvalidArchError, match=r"'d' of stage 7 of space 'ofa_proxyless_w1.3' is 1, got 2"):
        Arch.from_ofa({"ks": 3, "e": 3, "d": [2] * 6, "r": 128}, space)
    # One value for all holds wherever there is a choice, as in the reference.
    assert Arch.from_ofa({"ks": 3, "e": 3, "d": 2, "r": 128}, space) == space.smallest()


def test_depths_of_the_resnet_count_from_the_fewest_blocks_and_widths_are_indices() -> None:
    space = load_space("ofa_resnet50")
    arch = Arch.from_ofa(resnet_choice(d=[0, 0, 1, 2, 0], w=[2, 0, 1, 2, 0, 1]), space)
    assert arch.depths == (0, 2, 3, 6, 2)
    assert arch.widths == (32, 40, 208, 512, 664, 1640)
    assert macs(space, Arch.from_ofa(resnet_choice(), space)) == macs(space, space.largest())


def test_two_indices_that_round_to_one_width_are_one_arch() -> None:
    space = load_space("ofa_resnet50")
    first, second = (Arch.from_ofa(resnet_choice(w=[index, 2, 2, 2, 2, 2]), space) for index in (0, 1))
    assert first == second
    assert first.widths[0] == 24
    assert ofa_from_arch(first, space)["w"][0] == 1


@pytest.mark.parametrize(("stem", "runs"), [(0, False), (1, False), (2, True)])
def test_the_residual_convolution_of_the_stem_runs_at_the_largest_depth_only(stem: int, *, runs: bool) -> None:
    space = load_space("ofa_resnet50")
    arch = Arch.from_ofa(resnet_choice(d=[stem, 2, 2, 2, 2]), space)
    assert (arch.depths[0] == 1) is runs
    assert sum(spec.shortcut for spec in blocks_of(space, arch)[:3]) == runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": [3, 2, 2, 2, 2]}, "'depths' of stage 1"),
        ({"d": [2, 2, 2, 2, 3]}, "'depths' of stage 7"),
        ({"d": [-1, 2, 2, 2, 2]}, "'depths' of stage 1"),
        ({"w": [3, 2, 2, 2, 2, 2]}, "indices of the width multipliers"),
        ({"w": [2.0] * 6}, "'widths' must hold whole numbers"),
        ({"w": [2] * 5}, "'w' needs 6 values"),
        ({"e": [0.3] * 18}, "'expand_ratios' of stage 4, block 0"),
        ({"ks": [3] * 18}, r"unknown \['ks'\]"),
    ],
)
def test_resnet_dictionaries_outside_the_space_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArchError, match=message):
        Arch.from_ofa(resnet_choice(**changes), load_space("ofa_resnet50"))


def test_spaces_of_other_kinds_have_no_such_dictionaries() -> None:
    with pytest.raises(InvalidArchError, match="no OFA dictionaries"):
        ofa_keys(load_space("us_mobilenet_v1"))
