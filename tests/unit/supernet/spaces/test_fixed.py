"""The space of one arch, and the wider one around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from supernet.errors import InvalidArchError, InvalidSpaceError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import blocks_of, macs, params
from supernet.spaces.fixed import augment, augment_by, space_of_blocks
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace


def test_smallest_arch_of_an_augmented_space_is_the_target_itself(space: SearchSpace) -> None:
    for target in (space.smallest(), space.sample(np.random.default_rng(0)), space.largest()):
        around = augment(space, target, 2.5, 2)
        assert blocks_of(around, around.smallest()) == blocks_of(space, target)
        assert around.classes == space.classes
        assert around.resolutions == (target.resolution,)


def test_augmented_networks_contain_the_target(space: SearchSpace) -> None:
    target = space.sample(np.random.default_rng(1))
    around = augment(space, target)
    blocks = blocks_of(space, target)
    for arch in around.from_rows(around.sample_rows(np.random.default_rng(2), 5)):
        for wide, block in zip(blocks_of(around, arch), blocks, strict=True):
            assert (wide.kind, wide.kernel_size, wide.stride, wide.in_size) == (
                *(block.kind, block.kernel_size, block.stride, block.in_size),
            )
            assert (wide.shortcut, wide.act, wide.out_act, wide.norm, wide.bias) == (
                *(block.shortcut, block.act, block.out_act, block.norm, block.bias),
            )
            assert wide.in_chs >= block.in_chs
            assert wide.mid_chs >= block.mid_chs
            assert wide.out_chs >= block.out_chs
            assert wide.se_chs >= block.se_chs


def test_factors_multiply_widths_and_inner_widths_without_rounding_to_a_divisor() -> None:
    tiny = load_space("netaug_tiny_mbv2")
    around = augment_by(tiny, tiny.smallest(), width_factors=(1, 1.8, 2.6), expand_factors=(1, 1.6, 2.2, 2.8))
    stem, separable, first, second, *_ = around.stages
    assert stem.widths == (16, 29, 42)  # 28.8 and 41.6
    assert separable.widths == (8, 14, 21)
    assert first.expand_ratios == (6, 6 * 1.6, 6 * 2.2, 6 * 2.8)
    assert second.widths == ()  # the shortcut keeps its input's
    assert len(second.expand_ratios) == 4
    assert around.stages[-1].widths == (1000,)
    assert around.largest().resolution == 144
    widest = blocks_of(around, around.largest())
    assert (widest[2].in_chs, widest[2].mid_chs) == (21, round(21 * 6 * 2.8))


def test_hidden_squeeze_excite_widths_grow_with_the_inner_ones() -> None:
    base = load_space("netaug_mbv3_w0.35")
    around = augment(base, base.smallest(), 3, 3)
    for wide, block in zip(blocks_of(around, around.largest()), blocks_of(base, base.smallest()), strict=True):
        if block.kind is BlockKind.INVERTED and block.se_chs:
            assert wide.se_chs == round(wide.mid_chs * block.se_chs / block.mid_chs)
            assert wide.se_chs > block.se_chs >= 16


def test_paper_defaults_are_a_factor_and_a_diversity_of_3() -> None:
    base = load_space("netaug_mcunet")
    around = augment(base, base.smallest())
    assert around.stages[0].widths == (16, 27, 37, 48)


@pytest.mark.parametrize(("r", "s"), [(1, 3), (0.5, 3), (float("nan"), 3), (65, 3), (3, 0)])
def test_factors_that_widen_nothing_or_too_much_are_refused(r: float, s: int) -> None:
    base = load_space("netaug_mcunet")
    with pytest.raises(InvalidSpaceError, match="factor r above 1"):
        augment(base, base.smallest(), r, s)


@pytest.mark.parametrize("factors", [(), (1.5, 2), (1, 3, 2), (1, 1)])
def test_lists_of_factors_begin_with_1_and_ascend(factors: tuple[float, ...]) -> None:
    base = load_space("netaug_mcunet")
    with pytest.raises(InvalidSpaceError, match="must begin with 1 and ascend"):
        augment_by(base, base.smallest(), width_factors=factors, expand_factors=(1, 2))


def test_only_archs_of_the_space_are_augmented() -> None:
    base = load_space("cifar_mbv3")
    with pytest.raises(InvalidArchError):
        augment(base, Arch(32))


def test_blocks_become_a_space_of_one_arch(space: SearchSpace) -> None:
    target = space.sample(np.random.default_rng(5))
    alone = space_of_blocks("alone", blocks_of(space, target), norm_eps=space.norm_eps)
    assert alone.size() == 1
    only = alone.smallest()
    assert only == alone.largest()
    assert (macs(alone, only), params(alone, only)) == (macs(space, target), params(space, target))
    assert SearchSpace.from_dict(alone.to_dict()) == alone


def test_blocks_that_do_not_follow_one_another_are_refused() -> None:
    base = load_space("netaug_mcunet")
    blocks = list(blocks_of(base, base.smallest()))
    with pytest.raises(InvalidSpaceError, match="does not fit the ones before it"):
        space_of_blocks("broken", [*blocks[:3], replace(blocks[3], in_chs=17), *blocks[4:]])
    with pytest.raises(InvalidSpaceError, match="at least one block"):
        space_of_blocks("empty", [])
