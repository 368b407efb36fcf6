"""SearchSpace: archs and rows, the moves of a search, shapes, files. Properties hold for every space of conftest."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.errors import InvalidArchError, InvalidSpaceError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.costs import blocks_of, macs
from supernet.spaces.presets import load_space
from supernet.spaces.space import Dimension, Rows, SearchSpace
from supernet.spaces.stage import Stage

seeds = st.integers(0, 2**32 - 1)
few_examples = settings(max_examples=25, deadline=None)


def raw_rows(space: SearchSpace, seed: int, n_archs: int) -> Rows:
    """Rows that are not canonical: skipped blocks have choices too."""
    counts = [len(slot.choices) for slot in space.slots]
    return np.random.default_rng(seed).integers(0, counts, (n_archs, len(counts))).astype(np.int16)


def arch_with_skipped_choices(space: SearchSpace, row: Rows) -> Arch:
    """The arch of a row with the choices of skipped blocks written out."""
    values: dict[str, list[Any]] = {dimension: [] for dimension in Dimension}
    for slot, index in zip(space.slots, row, strict=True):
        values[slot.dimension].append(slot.choices[index])
    (resolution,) = values.pop(Dimension.RESOLUTION)
    return Arch(resolution, **{name: tuple(listed) for name, listed in values.items()})


# ---------------------------------------------------------------------- archs and rows


@few_examples
@given(seed=seeds)
def test_archs_and_rows_are_two_forms_of_the_same(space: SearchSpace, seed: int) -> None:
    rows = space.sample_rows(np.random.default_rng(seed), 4)
    archs = space.from_rows(rows)
    np.testing.assert_array_equal(space.to_rows(archs), rows)
    assert space.to_rows(archs).dtype == np.int16
    assert [Arch.from_json(arch.to_json()) for arch in archs] == archs


@few_examples
@given(seed=seeds)
def test_canonical_archs_forget_the_choices_of_skipped_blocks_and_nothing_else(space: SearchSpace, seed: int) -> None:
    (row,) = raw_rows(space, seed, 1)
    full = arch_with_skipped_choices(space, row)
    arch = space.canonicalize(full)
    assert space.canonicalize(arch) == arch
    assert space.contains(full)
    assert blocks_of(space, arch) == blocks_of(space, full)
    skipped = space.skipped_slots(row[None])[0]
    flat = [arch.resolution, *arch.depths, *arch.kernel_sizes, *arch.expand_ratios, *arch.widths]
    wanted = [0 if skip else slot.choices[index] for slot, index, skip in zip(space.slots, row, skipped, strict=True)]
    assert flat == wanted


@few_examples
@given(seed=seeds)
def test_equal_ids_mean_equal_networks(tiny_space: SearchSpace, seed: int) -> None:
    first, second = tiny_space.from_rows(raw_rows(tiny_space, seed, 2))
    assert (first.arch_id == second.arch_id) == (first == second)
    assert (first == second) == (blocks_of(tiny_space, first) == blocks_of(tiny_space, second))


def test_size_counts_the_distinct_networks(tiny_space: SearchSpace) -> None:
    every = np.array(list(product(*(range(len(slot.choices)) for slot in tiny_space.slots))), np.int16)
    archs = set(tiny_space.from_rows(every))
    assert len(archs) == tiny_space.size()
    assert len({arch.arch_id for arch in archs}) == tiny_space.size()
    assert len({blocks_of(tiny_space, arch) for arch in archs}) == tiny_space.size()


def test_no_archs_are_no_rows(space: SearchSpace) -> None:
    assert space.to_rows([]).shape == (0, len(space.slots))
    assert space.from_rows(space.to_rows([])) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 30}, "'resolution' of space 'cifar_mbv3' must be one of"),
        ({"depths": (1, 1, 1, 1, 4)}, r"'depths' of stage 6 .* must be one of \[1, 2, 3\], got 4"),
        ({"depths": (0, 1, 1, 1, 1)}, "'depths' of stage 2"),
        ({"depths": (1,) * 4}, "'depths' .* needs 5 values, the arch has 4"),
        ({"kernel_sizes": (9,) + (3,) * 14}, "'kernel_sizes' of stage 2, block 0 .* got 9"),
        ({"kernel_sizes": (0,) + (3,) * 14}, "'kernel_sizes' of stage 2, block 0 .* got 0"),
        ({"kernel_sizes": (3, 4) + (3,) * 13}, "'kernel_sizes' of stage 2, block 1 .* got 4"),
        ({"kernel_sizes": ()}, "'kernel_sizes' .* needs 15 values, the arch has 0"),
        ({"expand_ratios": (2.5,) + (2,) * 14}, "'expand_ratios' of stage 2, block 0 .* got 2.5"),
        ({"widths": (16,)}, "'widths' .* needs 0 values, the arch has 1"),
    ],
)
def test_archs_outside_the_space_are_refused_with_what_is_allowed(
    cifar: SearchSpace, changes: dict[str, Any], message: str
) -> None:
    arch = replace(cifar.smallest(), **changes)
    with pytest.raises(InvalidArchError, match=message):
        cifar.canonicalize(arch)
    assert not cifar.contains(arch)


def test_widths_outside_the_space_are_refused(tiny_width: SearchSpace) -> None:
    arch = replace(tiny_width.smallest(), widths=(8, 16, 28))
    with pytest.raises(InvalidArchError, match=r"'widths' of stage 3 .* must be one of \[24, 32\], got 28"):
        tiny_width.canonicalize(arch)


# ---------------------------------------------------------------------- moves of a search


@few_examples
@given(seed=seeds, probability=st.floats(0, 1))
def test_moves_stay_in_the_space_and_canonical(space: SearchSpace, seed: int, probability: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    for arch in (first, space.mutate(first, rng, probability=probability), space.crossover(first, second, rng)):
        assert space.canonicalize(arch) == arch


@few_examples
@given(seed=seeds)
def test_mutation_with_probability_0_keeps_and_with_1_redraws(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = space.sample_rows(rng, 3)
    np.testing.assert_array_equal(space.mutate_rows(rows, rng, probability=0), rows)
    redrawn = space.mutate_rows(rows, np.random.default_rng(seed), probability=1)
    np.testing.assert_array_equal(redrawn, space.sample_rows(np.random.default_rng(seed), 3))


@few_examples
@given(seed=seeds)
def test_crossover_takes_each_slot_from_a_parent_that_runs_the_block(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = space.sample_rows(rng, 8), space.sample_rows(rng, 8)
    child = space.crossover_rows(first, second, rng)
    counts = ~space.skipped_slots(child)
    from_first = (child == first) & ~space.skipped_slots(first)
    from_second = (child == second) & ~space.skipped_slots(second)
    assert (from_first | from_second)[counts].all()


def test_crossover_of_an_arch_with_itself_is_that_arch(space: SearchSpace, rng: np.random.Generator) -> None:
    arch = space.sample(rng)
    assert space.crossover(arch, arch, rng) == arch


def test_moves_do_not_change_their_parents(cifar: SearchSpace, rng: np.random.Generator) -> None:
    rows = cifar.sample_rows(rng, 16)
    kept = rows.copy()
    cifar.mutate_rows(rows, rng, probability=0.5)
    cifar.crossover_rows(rows, rows[::-1], rng)
    np.testing.assert_array_equal(rows, kept)


def test_a_block_woken_by_mutation_gets_random_choices(tiny_inverted: SearchSpace) -> None:
    shallow = tiny_inverted.to_rows([tiny_inverted.smallest()] * 400)
    mutated = tiny_inverted.mutate_rows(shallow, np.random.default_rng(0), probability=0.3)
    woken = mutated[mutated[:, 1] == 1]
    second_block = [index for index, slot in enumerate(tiny_inverted.slots) if (slot.stage, slot.block) == (1, 1)]
    assert len(woken) > 30
    assert ((woken[:, second_block].mean(0) > 0.3) & (woken[:, second_block].mean(0) < 0.7)).all()


def test_samples_are_uniform_over_the_choices_of_every_slot(cifar: SearchSpace) -> None:
    rows = cifar.sample_rows(np.random.default_rng(7), 10_000)
    skipped = cifar.skipped_slots(rows)
    for column, slot in enumerate(cifar.slots):
        drawn = np.bincount(rows[~skipped[:, column], column], minlength=len(slot.choices))
        expected = drawn.sum() / len(drawn)
        # The 99.99 % point of χ² with two degrees of freedom, for 36 slots at once.
        assert ((drawn - expected) ** 2 / expected).sum() < 18.4


def test_equal_seeds_draw_equal_archs(space: SearchSpace) -> None:
    again = SearchSpace.from_dict(space.to_dict())
    first = [space.sample(rng) for rng in [np.random.default_rng(3)] for _ in range(5)]
    second = [again.sample(rng) for rng in [np.random.default_rng(3)] for _ in range(5)]
    assert first == second


# ---------------------------------------------------------------------- shapes


@few_examples
@given(seed=seeds)
def test_smallest_and_largest_have_the_extreme_macs(space: SearchSpace, seed: int) -> None:
    arch = space.sample(np.random.default_rng(seed))
    assert macs(space, space.smallest()) <= macs(space, arch) <= macs(space, space.largest())


@few_examples
@given(seed=seeds)
def test_blocks_fit_each_other(space: SearchSpace, seed: int) -> None:
    arch = space.sample(np.random.default_rng(seed))
    blocks = blocks_of(space, arch)
    assert (blocks[0].in_size, blocks[0].in_chs) == (arch.resolution, space.in_chs)
    for before, after in pairwise(blocks):
        assert (before.out_size, before.out_chs) == (after.in_size, after.in_chs)
    assert (blocks[-1].out_size, blocks[-1].out_chs) == (1, space.classes)


def test_distinct_blocks_hold_every_block_of_a_sample(space: SearchSpace, rng: np.random.Generator) -> None:
    archs = space.from_rows(space.sample_rows(rng, 50))
    assert {spec for arch in archs for spec in blocks_of(space, arch)} <= set(space.distinct_blocks())


def test_distinct_blocks_are_exactly_those_that_occur(tiny_space: SearchSpace) -> None:
    every = np.array(list(product(*(range(len(slot.choices)) for slot in tiny_space.slots))), np.int16)
    occurring = {spec for arch in tiny_space.from_rows(every) for spec in blocks_of(tiny_space, arch)}
    assert tiny_space.distinct_blocks() == tuple(sorted(occurring))


def test_depth_0_leaves_a_stage_out(tiny_width: SearchSpace) -> None:
    arch = tiny_width.smallest()
    assert arch.depths == (0,)
    assert [spec.kind for spec in blocks_of(tiny_width, arch)] == [
        BlockKind.CONV,
        BlockKind.INVERTED,
        BlockKind.CONV,
        BlockKind.POOL,
        BlockKind.LINEAR,
    ]


def test_chosen_widths_are_the_channels_of_the_blocks(tiny_width: SearchSpace) -> None:
    arch = replace(tiny_width.largest(), widths=(12, 16, 32))
    conv, first, second, inverted, last, pool, linear = blocks_of(tiny_width, arch)
    assert [spec.out_chs for spec in (conv, first, second, inverted, last, pool)] == [12, 12, 12, 16, 32, 32]
    assert (inverted.in_chs, inverted.mid_chs, inverted.se_chs, linear.in_chs) == (12, 48, 12, 32)


# ---------------------------------------------------------------------- files


def test_space_survives_its_json_form(space: SearchSpace) -> None:
    again = SearchSpace.from_dict(space.to_dict())
    assert again == space
    assert again.fingerprint == space.fingerprint
    assert again.slots == space.slots
    assert again.positions == space.positions


@pytest.mark.parametrize(
    "changes",
    [
        {"resolutions": (12,)},
        {"in_chs": 1},
        {"divisor": 8},
        {"norm_eps": 1e-3},
        {"stages": (Stage(BlockKind.CONV, widths=(8,)),)},
    ],
)
def test_fingerprint_follows_everything_but_the_name(tiny_inverted: SearchSpace, changes: dict[str, Any]) -> None:
    assert replace(tiny_inverted, name="other").fingerprint == tiny_inverted.fingerprint
    assert replace(tiny_inverted, **changes).fingerprint != tiny_inverted.fingerprint


def test_fingerprint_of_the_default_space_is_the_one_of_stored_weights() -> None:
    assert load_space("cifar_mbv3").fingerprint[:16] == "e794d522eb68b7f9"


def test_another_number_of_classes_is_another_space_with_the_same_archs(cifar: SearchSpace) -> None:
    more = cifar.with_classes(100)
    assert more.classes == 100
    assert more.slots == cifar.slots
    assert more.fingerprint != cifar.fingerprint
    with pytest.raises(InvalidSpaceError, match="at least one class"):
        cifar.with_classes(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ()}, "has no stages"),
        ({"resolutions": ()}, "must be positive and ascend"),
        ({"resolutions": (16, 12)}, "must be positive and ascend"),
        ({"resolutions": (12, 12)}, "must be positive and ascend"),
        ({"resolutions": (0, 12)}, "must be positive and ascend"),
        ({"resolutions": (24.5,)}, "whole numbers"),
        ({"resolutions": (32, 10**6)}, "at most 4096"),
        ({"in_chs": 0}, "'in_chs'"),
        ({"in_chs": True}, "'in_chs'"),
        ({"divisor": 0}, "'divisor'"),
        ({"divisor": 8.0}, "'divisor'"),
        ({"norm_eps": 0.0}, "'norm_eps'"),
        ({"norm_eps": float("nan")}, "'norm_eps'"),
        ({"norm_eps": "1e-5"}, "'norm_eps'"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "\ud800"}, "printable"),
        ({"name": "x" * 10**6}, "1 to 200 printable characters, got 'x{12}"),
        ({"in_chs": 10**9}, "'in_chs' of a space must be a whole number from 1 to 131072"),
        ({"divisor": 10**400}, "'divisor'"),
        ({"norm_eps": 10**400}, "'norm_eps'"),
        ({"stages": (Stage(BlockKind.CONV, widths=(8, 16)),)}, "classifier"),
        ({"stages": (Stage(BlockKind.POOL),)}, "classifier"),
    ],
)
def test_inconsistent_spaces_are_refused(tiny_inverted: SearchSpace, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        replace(tiny_inverted, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, r"unknown \['colour'\]"),
        ({"stages": 5}, "cannot be read"),
        ({"stages": [5]}, "cannot be read"),
        ({"stages": [{"kind": "conv", "widths": [16.5]}]}, "whole numbers"),
        ({"resolutions": 32}, "cannot be read"),
        ({"resolutions": ["a", "b"]}, "whole numbers"),
        ({"in_chs": "3"}, "'in_chs'"),
    ],
)
def test_malformed_files_of_a_space_are_refused(
    tiny_inverted: SearchSpace, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        SearchSpace.from_dict(tiny_inverted.to_dict() | changes)


@pytest.mark.parametrize("data", [None, [], "cifar_mbv3", {}, {"name": "x"}])
def test_values_that_are_no_space_are_refused(data: Any) -> None:
    with pytest.raises(InvalidSpaceError):
        SearchSpace.from_dict(data)


def test_a_space_that_no_memory_holds_is_refused_before_it_is_built() -> None:
    wide = Stage(BlockKind.CONV, widths=tuple(range(1, 4001)), kernel_sizes=(3,))
    with pytest.raises(InvalidSpaceError, match="offers 16008000 blocks over all positions, the most is 10000000"):
        SearchSpace("wide", (wide, wide, Stage(BlockKind.LINEAR, widths=(4,))), (8,))


def test_blocks_are_counted_as_they_are_listed(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = sum(len(list(space.blocks_at(index))) for index in range(len(space.positions)))
    monkeypatch.setattr("supernet.spaces.space.MAX_BLOCKS", listed)
    replace(space)
    monkeypatch.setattr("supernet.spaces.space.MAX_BLOCKS", listed - 1)
    with pytest.raises(InvalidSpaceError, match=f"offers {listed} blocks"):
        replace(space)


def test_activation_is_part_of_the_fingerprint(tiny_inverted: SearchSpace) -> None:
    stem, *rest = tiny_inverted.stages
    other = replace(tiny_inverted, stages=(replace(stem, act=Act.RELU6), *rest))
    assert other.fingerprint != tiny_inverted.fingerprint
