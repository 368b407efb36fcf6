"""Spaces around one arch: the arch alone, or the wider networks that NetAug trains it inside; and archs by blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidArchError, InvalidSpaceError
from supernet.spaces.blocks import BlockKind, BlockSpec
from supernet.spaces.costs import blocks_of
from supernet.spaces.space import Dimension, SearchSpace
from supernet.spaces.stage import LARGEST, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from supernet.spaces.arch import Arch


def augment(space: SearchSpace, arch: Arch, r: float = 3.0, s: int = 3) -> SearchSpace:
    """The space of networks that contain a target network: up to `r` times its widths and expand ratios.

    Args:
        space: That the target belongs to.
        arch: The target. Its kernel sizes, depths and resolution stay.
        r: Augmentation factor: the largest width over the target's, above 1.
        s: Diversity: how many widths above the target's, equally spaced.

    Returns:
        A space whose smallest arch is the target itself, block by block, and whose widths are not rounded to any
        divisor. Widths of blocks with an identity shortcut follow their input; inner widths are multiplied by both
        factors; the classes stay.

    Raises:
        InvalidArchError: The arch lies outside the space.
        InvalidSpaceError: A factor that widens nothing, or widths beyond what a stage may have.

    Source: Cai et al. 2022 (arXiv 2110.08890), §3; `r` = 3 and `s` = 3 did best there.
    """
    if not 1 < r <= LARGEST["expand_ratios"] or s < 1:
        raise InvalidSpaceError(
            f"Augmentation needs a factor r above 1, at most {LARGEST['expand_ratios']}, and a diversity s of at least "
            f"1, got {r!r} and {s!r}."
        )
    factors = tuple(1 + (r - 1) * step / s for step in range(s + 1))
    return augment_by(space, arch, width_factors=factors, expand_factors=factors)


def augment_by(
    space: SearchSpace, arch: Arch, *, width_factors: Sequence[float], expand_factors: Sequence[float]
) -> SearchSpace:
    """`augment` with lists of factors of its own for widths and for expand ratios, each from 1 and ascending.

    The reference trains its networks so: MobileNetV2 with widths of 1, 1.8 and 2.6 and expand ratios of 1, 1.6, 2.2 and
    2.8 times the target's.
    """
    for name, factors in (("width_factors", width_factors), ("expand_factors", expand_factors)):
        if not factors or factors[0] != 1 or list(factors) != sorted(set(factors)):
            raise InvalidSpaceError(f"'{name}' must begin with 1 and ascend without repeats, got {list(factors)}.")
    return space_of_blocks(
        f"{space.name}_{arch.arch_id}_augmented",
        blocks_of(space, arch),
        norm_eps=space.norm_eps,
        width_factors=width_factors,
        expand_factors=expand_factors,
    )


def space_of_blocks(
    name: str,
    blocks: Sequence[BlockSpec],
    *,
    norm_eps: float = 1e-5,
    width_factors: Sequence[float] = (1,),
    expand_factors: Sequence[float] = (1,),
) -> SearchSpace:
    """The space whose smallest, and without factors only, arch runs the given blocks.

    Args:
        name: Of the space.
        blocks: From the stem to the classifier, each taking what the one before it gives.
        norm_eps: Epsilon of batch normalisation.
        width_factors: Output widths on offer over those of the blocks.
        expand_factors: Expand ratios on offer over those of the blocks.

    Raises:
        InvalidSpaceError: The blocks are no network that ends with a classifier.
    """
    if not blocks:
        raise InvalidSpaceError("A space needs at least one block, got none.")
    space = SearchSpace(
        name,
        stages=tuple(_stages(blocks, width_factors, expand_factors)),
        resolutions=(blocks[0].in_size,),
        in_chs=blocks[0].in_chs,
        divisor=1,
        norm_eps=norm_eps,
    )
    found = blocks_of(space, space.smallest())
    if wrong := [(given, block) for given, block in zip(blocks, found, strict=True) if given != block]:
        raise InvalidSpaceError(f"Block {wrong[0][0]} does not fit the ones before it; {wrong[0][1]} would.")
    return space


def _stages(
    blocks: Sequence[BlockSpec], width_factors: Sequence[float], expand_factors: Sequence[float]
) -> Iterator[Stage]:
    """One stage per block, since each has choices of its own."""
    for index, spec in enumerate(blocks):
        pools = spec.kind in (BlockKind.POOL, BlockKind.MAX_POOL)
        keeps_width = spec.shortcut or pools
        ratio = _expand_ratio(spec)
        # The last one is the classifier, whose width is the number of classes.
        factors = width_factors if index < len(blocks) - 1 else (1,)
        plain = Stage(
            BlockKind.BOTTLENECK if spec.kind is BlockKind.BOTTLENECK_DOWN else spec.kind,
            kernel_sizes=(spec.kernel_size,),
            stride=spec.stride,
            act=spec.act,
            out_act=spec.out_act,
            norm=spec.norm,
            bias=spec.bias,
            shortcut=spec.adds_shortcut,
        )
        yield replace(
            plain,
            widths=() if keeps_width else tuple(sorted({int(factor * spec.out_chs + 0.5) for factor in factors})),
            expand_ratios=(1,) if ratio is None else tuple(factor * ratio for factor in expand_factors),
            se=spec.se_chs > 0,
            se_ratio=spec.se_chs / spec.mid_chs if spec.se_chs else plain.se_ratio,
        )


def _expand_ratio(spec: BlockSpec) -> float | None:
    match spec.kind:
        case BlockKind.INVERTED:
            return spec.mid_chs / spec.in_chs
        case BlockKind.BOTTLENECK | BlockKind.BOTTLENECK_DOWN:
            return spec.mid_chs / spec.out_chs
        case _:
            return None


def arch_of_blocks(space: SearchSpace, blocks: Sequence[BlockSpec]) -> Arch:
    """The arch of a space that runs exactly the given blocks.

    Raises:
        InvalidArchError: No arch does; names the first block that fits nowhere.
    """
    reached = 0
    rows = np.zeros((1, len(space.slots)), np.int16)
    columns = {(slot.dimension, slot.stage, slot.block): index for index, slot in enumerate(space.slots)}

    def choose(dimension: Dimension, stage: int, block: int, value: float) -> None:
        if (column := columns.get((dimension, stage, block))) is not None:
            rows[0, column] = space.slots[column].choices.index(value)

    def place(stage_index: int, start: int) -> bool:
        """Lay the blocks from `start` into the stages from `stage_index`; depths are tried from the largest."""
        nonlocal reached
        if stage_index == len(space.stages):
            return start == len(blocks)
        stage = space.stages[stage_index]
        for depth in reversed(stage.depths):
            fits = start + depth <= len(blocks)
            for index, spec in enumerate(blocks[start : start + depth]):
                found = _choices_of(stage, spec, index=index, divisor=space.divisor) if fits else None
                if found is None:
                    fits = False
                    break
                reached = max(reached, start + index + 1)
                choose(Dimension.KERNEL_SIZE, stage_index, index, spec.kernel_size)
                choose(Dimension.EXPAND_RATIO, stage_index, index, found)
                if stage.widths:
                    choose(Dimension.WIDTH, stage_index, -1, spec.out_chs)
            if fits:
                choose(Dimension.DEPTH, stage_index, -1, depth)
                if place(stage_index + 1, start + depth):
                    return True
        return False

    if not blocks or blocks[0].in_size not in space.resolutions:
        size = blocks[0].in_size if blocks else None
        raise InvalidArchError(f"'{space.name}' has the resolutions {list(space.resolutions)}, got {size}.")
    choose(Dimension.RESOLUTION, -1, -1, blocks[0].in_size)
    placed = place(0, 0)
    (arch,) = space.from_rows(space.canonicalize_rows(rows))
    if not placed or blocks_of(space, arch) != tuple(blocks):
        where = blocks[min(reached, len(blocks) - 1)]
        raise InvalidArchError(f"No arch of '{space.name}' has these blocks; the first that fits nowhere is {where}.")
    return arch


def _choices_of(stage: Stage, spec: BlockSpec, *, index: int, divisor: int) -> float | None:
    """The expand ratio at which a stage's block is the given one; None where it never is."""
    if (stage.widths and spec.out_chs not in stage.widths) or spec.kernel_size not in stage.kernel_sizes:
        return None
    for ratio in stage.expand_ratios:
        block = stage.block(
            index,
            in_size=spec.in_size,
            in_chs=spec.in_chs,
            out_chs=spec.out_chs,
            kernel_size=spec.kernel_size,
            expand_ratio=ratio,
            divisor=divisor,
        )
        if block == spec:
            return ratio
    return None
