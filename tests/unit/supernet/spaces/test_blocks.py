"""BlockSpec: shapes and costs of single blocks, checked against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supernet.spaces.blocks import Act, BlockKind, BlockSpec, make_divisible


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    [
        (1, 8, 8),
        (8, 8, 8),
        (11, 8, 16),  # 8 would lose more than a tenth
        (12, 8, 16),
        (17, 8, 16),
        (18, 8, 24),
        (19.2, 8, 24),
        (36, 8, 40),
        (60, 8, 64),
        (134.4, 8, 136),
        (5, 1, 5),
        (3, 4, 4),
        (13, 4, 12),
    ],
)
def test_make_divisible_rounds_as_the_reference(value: float, divisor: int, expected: int) -> None:
    assert make_divisible(value, divisor) == expected


def test_make_divisible_never_loses_more_than_a_tenth_and_never_shrinks_for_a_larger_value() -> None:
    results = [make_divisible(value) for value in range(1, 4000)]
    assert all(result % 8 == 0 and result >= 0.9 * value for value, result in enumerate(results, start=1))
    assert results == sorted(results)


def test_costs_of_a_plain_convolution() -> None:
    spec = BlockSpec(BlockKind.CONV, in_size=7, in_chs=3, mid_chs=3, out_chs=16, kernel_size=3, stride=2)
    assert spec.out_size == 4
    assert spec.macs == 3 * 16 * 9 * 4 * 4
    assert spec.params == 3 * 16 * 9 + 2 * 16


def test_costs_of_an_inverted_block_with_squeeze_excite() -> None:
    spec = BlockSpec(
        BlockKind.INVERTED, in_size=9, in_chs=8, mid_chs=24, out_chs=16, kernel_size=5, stride=2, act=Act.RELU, se_chs=8
    )
    expand, depthwise, squeeze_excite, project = 8 * 24 * 81, 24 * 25 * 25, 2 * 24 * 8, 24 * 16 * 25
    assert spec.out_size == 5
    assert spec.macs == expand + depthwise + squeeze_excite + project
    assert [layer.name for layer in spec.layers] == ["expand", "depthwise", "squeeze_excite", "project"]
    assert [layer.macs for layer in spec.layers] == [expand, depthwise, squeeze_excite, project]
    assert spec.params == (8 * 24 + 48) + (24 * 25 + 48) + (24 * 8 + 8 + 8 * 24 + 24) + (24 * 16 + 32)


def test_costs_of_a_separable_block_with_biases_and_without_normalisation() -> None:
    spec = BlockSpec(
        BlockKind.SEPARABLE, in_size=6, in_chs=8, mid_chs=8, out_chs=12, kernel_size=3, norm=False, bias=True
    )
    assert spec.macs == 8 * 9 * 36 + 8 * 12 * 36
    assert spec.params == (8 * 9 + 8) + (8 * 12 + 12)


def test_costs_of_pool_and_classifier() -> None:
    pool = BlockSpec(BlockKind.POOL, in_size=4, in_chs=32, mid_chs=32, out_chs=32)
    linear = BlockSpec(BlockKind.LINEAR, in_size=1, in_chs=32, mid_chs=32, out_chs=10, norm=False, bias=True)
    assert (pool.out_size, pool.macs, pool.params) == (1, 0, 0)
    assert (linear.out_size, linear.macs, linear.params) == (1, 320, 330)


PEAKS = {
    "the convolution": (BlockSpec(BlockKind.CONV, 8, 4, 4, 6, 3, stride=2), 4 * 64 + 6 * 16),
    "the sum of a convolution": (BlockSpec(BlockKind.CONV, 8, 4, 4, 4, 3, shortcut=True), 3 * 4 * 64),
    "the depthwise": (BlockSpec(BlockKind.SEPARABLE, 8, 4, 4, 3, 3), 4 * 64 + 4 * 64),
    "the projection": (BlockSpec(BlockKind.SEPARABLE, 8, 4, 4, 6, 3), 4 * 64 + 6 * 64),
    "the projection, the input held": (
        BlockSpec(BlockKind.SEPARABLE, 8, 4, 4, 4, 3, shortcut=True),
        4 * 64 + 4 * 64 + 4 * 64,
    ),
    "the expansion": (BlockSpec(BlockKind.INVERTED, 8, 4, 12, 4, 3, stride=2), 4 * 64 + 12 * 64),
    "the depthwise of an inverted block": (BlockSpec(BlockKind.INVERTED, 8, 4, 12, 4, 3), 12 * 64 + 12 * 64),
    "the depthwise, the input held": (
        BlockSpec(BlockKind.INVERTED, 8, 4, 12, 4, 3, shortcut=True),
        4 * 64 + 12 * 64 + 12 * 64,
    ),
    "the depthwise beside squeeze-excite": (
        BlockSpec(BlockKind.INVERTED, 8, 4, 12, 4, 3, se_chs=8, shortcut=True),
        4 * 64 + 12 * 64 + 12 * 64,
    ),
    "a linear of squeeze-excite, the map held": (
        BlockSpec(BlockKind.INVERTED, 1, 2, 3, 2, 3, se_chs=9),
        3 + 3 + 9,
    ),
    "the sum of a bottleneck": (BlockSpec(BlockKind.BOTTLENECK, 8, 12, 4, 12, 3, shortcut=True), 3 * 12 * 64),
    "the inner convolution, the input held": (
        BlockSpec(BlockKind.BOTTLENECK, 8, 4, 12, 4, 3, shortcut=True),
        4 * 64 + 12 * 64 + 12 * 64,
    ),
    "the pool of the shortcut, the path's output held": (
        BlockSpec(BlockKind.BOTTLENECK_DOWN, 9, 12, 4, 8, 3, stride=2),
        12 * 81 + 12 * 25 + 8 * 25,
    ),
    "the projection of the shortcut, the path's output held": (
        BlockSpec(BlockKind.BOTTLENECK_DOWN, 8, 12, 4, 8, 3),
        12 * 64 + 8 * 64 + 8 * 64,
    ),
    "the sum with a projected shortcut": (
        BlockSpec(BlockKind.BOTTLENECK_DOWN, 8, 4, 4, 12, 3, stride=2),
        3 * 12 * 16,
    ),
    "the max pool": (BlockSpec(BlockKind.MAX_POOL, 9, 4, 4, 4, 3, stride=2), 4 * 81 + 4 * 25),
    "the global pool": (BlockSpec(BlockKind.POOL, 4, 32, 32, 32), 32 * 16 + 32),
    "the linear": (BlockSpec(BlockKind.LINEAR, 1, 32, 32, 10, norm=False, bias=True), 32 + 10),
}


@pytest.mark.parametrize("largest", PEAKS)
def test_peak_memory_is_that_of_the_largest_operation(largest: str) -> None:
    spec, expected = PEAKS[largest]
    assert spec.peak_memory_elements == expected


@pytest.mark.parametrize("act", Act)
def test_normalisation_and_activations_need_no_memory(act: Act) -> None:
    for spec, expected in PEAKS.values():
        assert replace(spec, norm=not spec.norm, act=act, out_act=act).peak_memory_elements == expected


def test_block_specs_can_be_sorted_and_used_as_keys() -> None:
    specs = [BlockSpec(BlockKind.CONV, 8, 3, 3, width) for width in (16, 8)]
    assert sorted(specs)[0].out_chs == 8
    assert len({*specs, BlockSpec(BlockKind.CONV, 8, 3, 3, 8)}) == 2
