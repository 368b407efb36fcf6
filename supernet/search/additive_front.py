"""The Pareto front of two sums over blocks, a cost and a score, by dynamic programming.

The chain is that of `limits`, one block a step: its state is the output width and what was spent so far, in whole parts
of the range of costs. Where costs are whole numbers of such parts, such as MACs in a small space, the front is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from supernet.search.limits import dearest_arch, spread_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.spaces.costs import AdditiveCost, Values
    from supernet.spaces.space import Position, Rows, SearchSpace

PARTS = 1024

Choices = NDArray[np.int32]


def additive_front(
    space: SearchSpace, cost: AdditiveCost, scores: Sequence[Values], *, resolution_index: int, parts: int = PARTS
) -> Rows:
    """For every amount of cost the archs with the highest score, at one resolution.

    Args:
        space: The search space.
        cost: Not negative for any block.
        scores: Tables as `AdditiveCost.tables`; the score of an arch is their sum.
        resolution_index: Choice of the resolution.
        parts: Into how many the range up to the dearest arch is cut. Each block is rounded to whole parts.

    Returns:
        `(n_archs, n_slots)` canonical rows by rising cost and rising score, as the rounded costs have them; none where
        the resolution has a block without a cost.
    """
    _, dearest = dearest_arch(cost, [space.resolutions[resolution_index]])
    if not np.isfinite(dearest):
        return np.zeros((0, len(space.slots)), np.int16)
    unit = max(dearest - cost.fixed, 1e-300) / parts
    return _Chain(space, cost.tables, scores, resolution_index, parts=parts, unit=unit).rows()


@dataclass(frozen=True, slots=True)
class _Block:
    """One step of the chain, and the choices that led to each of its states."""

    position: Position
    spent: Choices
    """`(n_in, n_out, n_kernels, n_expands)` parts."""
    best: Values
    """`(n_out, n_parts)` highest score of the blocks up to here."""
    taken: Choices
    """`(n_out, n_parts)` flat index into `spent` of the last block."""


@dataclass(frozen=True, slots=True)
class _StageEnd:
    """What a stage leaves, over all its depths."""

    blocks: tuple[_Block, ...]
    depths: tuple[int, ...]
    best: Values
    """`(n_out, n_parts)`"""
    depth: Choices
    """`(n_out, n_parts)` choice of the depth."""
    skipped_from: Choices
    """`(n_out, n_parts)` choice of the width before, where no block runs."""


class _Chain:
    def __init__(
        self,
        space: SearchSpace,
        costs: Sequence[Values],
        scores: Sequence[Values],
        resolution_index: int,
        *,
        parts: int,
        unit: float,
    ) -> None:
        self._space, self._resolution = space, resolution_index
        self._unit, self._costs, self._scores = unit, costs, scores
        # Rounding may carry an arch a little beyond the dearest.
        self._n_parts = parts + len(space.positions) + 2
        best = np.full((1, self._n_parts), -np.inf)
        best[0, 0] = 0
        self._ends: list[_StageEnd] = []
        start = 0
        for stage in space.stages:
            end = self._run_stage(best, range(start, start + stage.depths[-1]), stage.depths)
            self._ends.append(end)
            best, start = end.best, start + stage.depths[-1]

    def rows(self) -> Rows:
        """Backwards from every state that no cheaper one matches."""
        best = self._ends[-1].best
        width, highest = best.argmax(axis=0), best.max(axis=0)
        before = np.concatenate([[-np.inf], np.maximum.accumulate(highest)[:-1]])
        spent = np.flatnonzero(highest > before)
        width = width[spent]
        rows = np.zeros((len(spent), len(self._space.slots)), np.int16)
        rows[:, 0] = self._resolution
        for end in reversed(self._ends):
            width, spent = _go_back(end, rows, width, spent)
        return self._space.canonicalize_rows(rows)

    def _run_stage(self, best: Values, places: range, depths: tuple[int, ...]) -> _StageEnd:
        blocks: list[_Block] = []
        entered = best
        for place in places:
            block = self._run_block(best if not blocks else blocks[-1].best, place, is_first=not blocks)
            blocks.append(block)
        n_out = blocks[-1].best.shape[0]
        skipped, skipped_from = _enter_without_block(entered, n_out, blocks[0].position)
        ends = np.stack([blocks[depth - 1].best if depth else skipped for depth in depths])
        return _StageEnd(tuple(blocks), depths, ends.max(axis=0), ends.argmax(axis=0).astype(np.int32), skipped_from)

    def _run_block(self, best: Values, place: int, *, is_first: bool) -> _Block:
        space, position = self._space, self._space.positions[place]
        n_in = len(best)
        costs, scores = (
            spread_table(space, position, tables[place], n_in=n_in)[self._resolution]
            for tables in (self._costs, self._scores)
        )
        # A block without a cost spends all there is, and more.
        spent = np.minimum(np.round(costs / self._unit), self._n_parts).astype(np.int32)
        n_out = spent.shape[1]
        found, taken = np.full((n_out, self._n_parts), -np.inf), np.zeros((n_out, self._n_parts), np.int32)
        keeps_width = not is_first or position.in_width_slot == position.out_width_slot
        for flat, (into, out, _, _) in enumerate(np.ndindex(spent.shape)):
            if keeps_width and n_in > 1 and into != out:
                continue
            step = int(spent.flat[flat])
            moved = best[into, : self._n_parts - step] + scores.flat[flat]
            better = moved > found[out, step:]
            found[out, step:][better] = moved[better]
            taken[out, step:][better] = flat
        return _Block(position, spent, found, taken)


def _enter_without_block(entered: Values, n_out: int, first: Position) -> tuple[Values, Choices]:
    """A stage of which no block runs: what it is entered with, and from which width."""
    if first.in_width_slot == first.out_width_slot:
        widths = np.arange(len(entered), dtype=np.int32)[:, None]
        return entered, np.broadcast_to(widths, entered.shape)
    best = np.broadcast_to(entered.max(axis=0), (n_out, entered.shape[1]))
    return best, np.broadcast_to(entered.argmax(axis=0).astype(np.int32), best.shape)


def _go_back(
    end: _StageEnd, rows: Rows, width: NDArray[np.intp], spent: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Write the stage's slots of all archs; the width and the parts with which each entered it."""
    first = end.blocks[0].position
    choice = end.depth[width, spent]
    depth = np.array(end.depths)[choice]
    if first.out_width_slot >= 0:
        rows[:, first.out_width_slot] = width
    if first.depth_slot >= 0:
        rows[:, first.depth_slot] = choice
    before, left = width.copy(), spent.copy()
    for number, block in reversed(list(enumerate(end.blocks))):
        runs = np.flatnonzero(depth > number)
        flat = block.taken[before[runs], left[runs]]
        into, _, kernel, expand = np.unravel_index(flat, block.spent.shape)
        if block.position.kernel_slot >= 0:
            rows[runs, block.position.kernel_slot] = kernel
        if block.position.expand_slot >= 0:
            rows[runs, block.position.expand_slot] = expand
        left[runs] -= block.spent.ravel()[flat]
        before[runs] = into
    skips = np.flatnonzero(depth == 0)
    before[skips] = end.skipped_from[width[skips], spent[skips]]
    return before, left
