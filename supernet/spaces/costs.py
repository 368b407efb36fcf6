"""Costs that are sums over blocks (MACs, parameters, table latencies), for whole populations as arrays."""

from __future__ import annotations

from copy import copy
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from supernet.errors import InvalidArchError
from supernet.spaces.space import Rows, SearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from supernet.spaces.arch import Arch
    from supernet.spaces.blocks import BlockSpec

Values = NDArray[np.float64]


def blocks_of(space: SearchSpace, arch: Arch) -> tuple[BlockSpec, ...]:
    """The blocks an arch runs, in order, from the stem to the classifier.

    Raises:
        InvalidArchError: The arch lies outside the space.
    """
    return tuple(spec for _, spec in space.walk(arch))


def macs(space: SearchSpace, arch: Arch) -> int:
    """Multiply-adds of one image; see `BlockSpec.macs` for what counts."""
    return sum(spec.macs for spec in blocks_of(space, arch))


def params(space: SearchSpace, arch: Arch) -> int:
    """Trainable numbers of the extracted subnet, kernel matrices excluded."""
    return sum(spec.params for spec in blocks_of(space, arch))


class AdditiveCost:
    """A cost that is one number per block, summed over the blocks that run.

    The numbers of every block that can stand at a position are looked up once; pricing a population is then one
    array look-up.

    Args:
        space: The space the rows belong to.
        cost_of: Cost of one block; called once per distinct block.
        fixed: Added once per arch.
        costs_at: By resolution of the arch: costs that hold for it alone and go before `cost_of`.
    """

    def __init__(
        self,
        space: SearchSpace,
        cost_of: Callable[[BlockSpec], float],
        *,
        fixed: float = 0.0,
        costs_at: Mapping[int, Mapping[BlockSpec, float]] | None = None,
    ) -> None:
        self.space = space
        self.fixed = fixed
        known: dict[BlockSpec, float] = {}
        before = [(costs_at or {}).get(resolution, {}) for resolution in space.resolutions]
        self.tables: list[Values] = []
        """Per position: cost by the choices of `slots_of(position)`, one axis per slot."""
        for index, position in enumerate(space.positions):
            table = np.empty([len(space.slots[slot].choices) for slot in space.slots_of(position)])
            for choices, spec in space.blocks_at(index):
                special = before[choices[0]].get(spec)
                if special is None and spec not in known:
                    known[spec] = float(cost_of(spec))
                table[choices] = known[spec] if special is None else special
            self.tables.append(table)

    def __call__(self, rows: Rows) -> Values:
        """Price archs.

        Args:
            rows: `(n_archs, n_slots)` choice indices.

        Returns:
            `(n_archs,)` in the unit of `cost_of`.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.space.slots):
            raise InvalidArchError(f"Rows of '{self.space.name}' have {len(self.space.slots)} slots, got {rows.shape}.")
        strides, offsets, entries = self._flat
        # A float product goes through BLAS, an integer one does not; the numbers are small enough to stay exact.
        places = (strides @ rows.T.astype(np.float64)).astype(np.int64) + offsets
        total: Values = entries.take(places).sum(axis=0) + self.fixed
        return total

    def scaled(self, factor: float) -> AdditiveCost:
        """The same cost in another unit, or at another quantile: every number times `factor`."""
        cost = copy(self)
        cost.__dict__.pop("_flat", None)
        cost.tables = [table * factor for table in self.tables]
        cost.fixed = self.fixed * factor
        return cost

    @cached_property
    def _flat(self) -> tuple[Values, NDArray[np.int64], Values]:
        """All tables as one vector, with the depth as an axis of its own: blocks that do not run cost 0.

        Returns:
            `(n_positions, n_slots)` steps, `(n_positions, 1)` starts, and the vector.
        """
        space, vectors, start = self.space, [], 0
        strides = np.zeros((len(space.positions), len(space.slots)))
        offsets = np.zeros((len(space.positions), 1), np.int64)
        for index, (position, table) in enumerate(zip(space.positions, self.tables, strict=True)):
            slots = space.slots_of(position)
            if position.depth_slot >= 0:
                runs = np.asarray(space.stages[position.stage].depths) > position.block
                table = np.where(runs.reshape(-1, *[1] * table.ndim), table, 0.0)
                slots = (position.depth_slot, *slots)
            strides[index, slots] = np.cumprod((1, *table.shape[:0:-1]))[::-1]
            offsets[index] = start
            start += table.size
            vectors.append(table.ravel())
        return strides, offsets, np.concatenate(vectors)

    def of(self, archs: Sequence[Arch]) -> Values:
        """`__call__` for archs."""
        return self(self.space.to_rows(archs))


@lru_cache(maxsize=16)
def macs_cost(space: SearchSpace) -> AdditiveCost:
    """MACs of whole populations; compiled once per space."""
    return AdditiveCost(space, lambda spec: spec.macs)


@lru_cache(maxsize=16)
def params_cost(space: SearchSpace) -> AdditiveCost:
    """Parameters of whole populations; compiled once per space."""
    return AdditiveCost(space, lambda spec: spec.params)
