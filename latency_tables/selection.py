"""Which chains of blocks and which whole networks of a space to measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_tables.errors import InvalidSettingError
from supernet.spaces.costs import AdditiveCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.spaces.arch import Arch
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace

# Archs tried for each chain; the one with the most blocks that are still wanted is taken.
CHAIN_CANDIDATES = 24


def choose_chains(
    space: SearchSpace, wanted: Sequence[BlockSpec], *, coverage: int, rng: np.random.Generator
) -> list[Arch]:
    """Choose archs so that each wanted block stands in at least `coverage` of them; deterministic given `rng`.

    Raises:
        InvalidSettingError: A block stands in no arch of the space.
    """
    number = {spec: index for index, spec in enumerate(space.distinct_blocks())}
    foreign = [spec for spec in wanted if spec not in number]
    if foreign:
        raise InvalidSettingError(
            f"'{space.name}' has no block {foreign[0]}; {len(foreign)} of those given are foreign."
        )
    places: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in number]
    for index in range(len(space.positions)):
        for choices, spec in space.blocks_at(index):
            places[number[spec]].append((index, choices))
    numbers = AdditiveCost(space, number.__getitem__).tables  # per position: number of the block by its choices
    needed = np.zeros(len(number), np.int64)
    needed[[number[spec] for spec in wanted]] = coverage
    chains = []
    while needed.max() > 0:
        at = places[int(needed.argmax())]
        index, choices = at[int(rng.integers(len(at)))]
        position = space.positions[index]
        rows = space.sample_rows(rng, CHAIN_CANDIDATES)
        rows[:, space.slots_of(position)] = choices
        if position.depth_slot >= 0:
            rows[:, position.depth_slot] = len(space.slots[position.depth_slot].choices) - 1
        rows = space.canonicalize_rows(rows)
        active = space.active_blocks(rows)
        walks = np.stack(
            [
                table[tuple(rows[:, slot] for slot in space.slots_of(place))].astype(np.int64)
                for place, table in zip(space.positions, numbers, strict=True)
            ],
            axis=1,
        )
        best = int(np.argmax((active & (needed[walks] > 0)).sum(axis=1)))
        held = np.unique(walks[best][active[best]])
        needed[held] = np.maximum(needed[held] - 1, 0)
        chains += space.from_rows(rows[best : best + 1])
    return chains


def choose_networks(space: SearchSpace, count: int, *, rng: np.random.Generator) -> list[Arch]:
    """Choose whole networks for a calibration: the ends of the space, uniform draws, and networks all of a piece.

    Uniform draws are all of medium size. Searches return deep or shallow networks, with the largest kernels or the
    smallest: in every second network each dimension takes one level, which three slots of four follow. The smallest
    and the largest arch at each resolution are among them where there is room.
    """
    rows = space.sample_rows(rng, count)
    dimensions = sorted({slot.dimension for slot in space.slots})
    for row in rows[1::2]:
        level = dict(zip(dimensions, rng.random(len(dimensions)), strict=True))
        follows = rng.random(len(space.slots)) < 0.75
        for index, slot in enumerate(space.slots):
            if follows[index]:
                row[index] = int(level[slot.dimension] * len(slot.choices))
    ends = np.repeat(space.to_rows([space.smallest(), space.largest()]), len(space.resolutions), axis=0)
    if 2 * len(ends) <= count:
        rows[: len(ends)] = ends
        rows[: len(ends), 0] = np.tile(np.arange(len(space.resolutions)), 2)
    return space.from_rows(space.canonicalize_rows(rows))
