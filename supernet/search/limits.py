"""The cheapest and the dearest arch under an additive cost, exactly, by dynamic programming.

Kernel sizes and expand ratios touch one block and depths one stage; only widths couple neighbours. So the programme
is a chain over stages whose state is the output width, for all resolutions at once.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from supernet.errors import InvalidConfigError
from supernet.spaces.costs import PeakCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.spaces.arch import Arch
    from supernet.spaces.costs import AdditiveCost, BlockCost, Values
    from supernet.spaces.space import Position, Rows, SearchSpace

Choices = NDArray[np.intp]


def cheapest_arch(cost: AdditiveCost, resolutions: Sequence[int] | None = None) -> tuple[Arch, float]:
    """The arch that costs least, and what it costs.

    Args:
        cost: May be infinite for some blocks.
        resolutions: Of the space, where to look; all when None.

    Returns:
        Of several cheapest archs the one with the smallest choices, the resolution's first. Infinity where every arch
        has a block without a cost.

    Raises:
        InvalidConfigError: None of the resolutions belongs to the space.
    """
    row = cheapest_row(cost.space, cost.tables, _indices(cost.space, resolutions))
    return cost.space.from_rows(row)[0], float(cost(row)[0])


def dearest_arch(cost: AdditiveCost, resolutions: Sequence[int] | None = None) -> tuple[Arch, float]:
    """The arch that costs most, among those whose blocks all have a finite cost; else as `cheapest_arch`."""
    negated = [np.where(np.isfinite(table), -table, np.inf) for table in cost.tables]
    row = cheapest_row(cost.space, negated, _indices(cost.space, resolutions))
    return cost.space.from_rows(row)[0], float(cost(row)[0])


def lowest_row(cost: BlockCost, resolutions: Choices) -> Rows:
    """The row `(1, n_slots)` that costs least, of costs of either kind; exact.

    Args:
        cost: A sum or a peak.
        resolutions: Choice indices, ascending, at least one.
    """
    if not isinstance(cost, PeakCost):
        return cheapest_row(cost.space, cost.tables, resolutions)
    # The lowest of all costs of blocks that leaves an arch whose blocks all cost no more.
    levels = np.unique(np.concatenate([table.ravel() for table in cost.tables]))

    def row_below(level: float) -> tuple[Rows, bool]:
        tables = [np.where(table <= level, 0.0, np.inf) for table in cost.tables]
        row = cheapest_row(cost.space, tables, resolutions)
        return row, bool(cost(row)[0] <= level)

    place = bisect_left(range(len(levels)), True, key=lambda index: row_below(float(levels[index]))[1])
    return row_below(float(levels[place]))[0]


def cheapest_values(cost: AdditiveCost) -> Values:
    """`(n_resolutions,)`: the least cost at each resolution of the space; infinite where it has none."""
    least: Values = _walk(cost.space, cost.tables)[-1].least.min(axis=1)
    return least + cost.fixed


def cheapest_row(space: SearchSpace, tables: Sequence[Values], resolutions: Choices) -> Rows:
    """The row that costs least.

    Args:
        space: The search space.
        tables: As `AdditiveCost.tables`.
        resolutions: Choice indices, ascending, at least one.

    Returns:
        `(1, n_slots)`, canonical.
    """
    steps = _walk(space, tables)
    last = steps[-1].least[resolutions]
    best, width = divmod(int(last.argmin()), last.shape[1])
    row = np.zeros((1, len(space.slots)), np.int16)
    resolution = int(resolutions[best])
    row[0, 0] = resolution
    for step in reversed(steps):
        width = step.write(row[0], resolution, width)
    return space.canonicalize_rows(row)


@dataclass(frozen=True, slots=True)
class _Step:
    """One stage of the chain; a state is a choice of the stage's output width.

    Attributes:
        positions: Of the stage.
        least: `(n_resolutions, n_out)` least cost up to here.
        came_from: `(n_resolutions, n_out)` choice of the input width that gives it.
        depths: `(n_resolutions, n_in, n_out)` choice of the depth.
        locals: Per position `(n_resolutions, n_in, n_out)`: its kernel and expand choices, as one number.
        local_shapes: Per position: how many kernel and expand choices it has.
    """

    positions: tuple[Position, ...]
    least: Values
    came_from: Choices
    depths: Choices
    locals: tuple[Choices, ...]
    local_shapes: tuple[tuple[int, int], ...]

    def write(self, row: NDArray[np.int16], resolution: int, width: int) -> int:
        """Write the stage's slots for an output width and return the choice of its input width."""
        came_from = int(self.came_from[resolution, width])
        first = self.positions[0]
        if first.out_width_slot >= 0:
            row[first.out_width_slot] = width
        if first.depth_slot >= 0:
            row[first.depth_slot] = self.depths[resolution, came_from, width]
        for position, choices, shape in zip(self.positions, self.locals, self.local_shapes, strict=True):
            kernel, expand = divmod(int(choices[resolution, came_from, width]), shape[1])
            if position.kernel_slot >= 0:
                row[position.kernel_slot] = kernel
            if position.expand_slot >= 0:
                row[position.expand_slot] = expand
        return came_from


def _walk(space: SearchSpace, tables: Sequence[Values]) -> list[_Step]:
    """The chain from the first stage to the last."""
    steps: list[_Step] = []
    least = np.zeros((len(space.resolutions), 1))
    start = 0
    for stage in space.stages:
        positions = space.positions[start : start + stage.depths[-1]]
        spread = [
            spread_table(space, position, table, n_in=least.shape[1])
            for position, table in zip(positions, tables[start:], strict=False)
        ]
        start += len(positions)
        flat = [costs.reshape(*costs.shape[:3], -1) for costs in spread]
        # What the first blocks cost together, by their number.
        sums = np.zeros((len(flat) + 1, *flat[0].shape[:3]))
        np.cumsum([costs.min(axis=3) for costs in flat], axis=0, out=sums[1:])
        by_depth = sums[list(stage.depths)]
        if positions[0].in_width_slot == positions[0].out_width_slot:
            by_depth[:, :, np.eye(by_depth.shape[3]) == 0] = np.inf
        total = by_depth.min(axis=0) + least[:, :, None]
        least = total.min(axis=1)
        steps.append(
            _Step(
                positions=positions,
                least=least,
                came_from=total.argmin(axis=1),
                depths=by_depth.argmin(axis=0),
                locals=tuple(costs.argmin(axis=3) for costs in flat),
                local_shapes=tuple((costs.shape[3], costs.shape[4]) for costs in spread),
            )
        )
    return steps


def spread_table(space: SearchSpace, position: Position, table: Values, *, n_in: int) -> Values:
    """A position's table as `(n_resolutions, n_in, n_out, n_kernels, n_expands)`; absent slots have one choice.

    Where the position reads the width its stage writes, every `n_in` holds the same.
    """
    axes = {slot: axis for axis, slot in enumerate(space.slots_of(position))}
    in_slot = position.in_width_slot if position.in_width_slot != position.out_width_slot else -1
    wanted = (0, in_slot, position.out_width_slot, position.kernel_slot, position.expand_slot)
    kept = [axes[slot] for slot in wanted if slot >= 0]
    shape = [table.shape[axes[slot]] if slot >= 0 else 1 for slot in wanted]
    costs = table.transpose(kept).reshape(shape)
    return np.broadcast_to(costs, (shape[0], n_in, *shape[2:]))


def _indices(space: SearchSpace, resolutions: Sequence[int] | None) -> Choices:
    asked = space.resolutions if resolutions is None else resolutions
    indices = [index for index, size in enumerate(space.resolutions) if size in asked]
    if not indices:
        raise InvalidConfigError(
            f"Space '{space.name}' has the resolutions {list(space.resolutions)}, none of {list(asked)}."
        )
    return np.array(indices, np.intp)
