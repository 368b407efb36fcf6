"""Costs of whole populations as arrays: sums over blocks (MACs, parameters, table latencies) and peaks (memory)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, ClassVar, Self

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


def peak_memory(space: SearchSpace, arch: Arch) -> int:
    """Most elements of activations alive at once for one image; see `BlockSpec.peak_memory_elements` for what counts.

    Times the bytes of one element, at the precision the subnet runs in, it is the peak memory in bytes.
    """
    return max(spec.peak_memory_elements for spec in blocks_of(space, arch))


class BlockCost(ABC):
    """A cost that is made of one number per block that runs; how, the subclass says.

    The numbers of every block that can stand at a position are looked up once; pricing a population is then one
    array look-up.

    Args:
        space: The space the rows belong to.
        cost_of: Cost of one block; called once per distinct block.
        costs_at: By resolution of the arch: costs that hold for it alone and go before `cost_of`.
    """

    # What a block that does not run costs.
    _skipped: ClassVar[float]

    def __init__(
        self,
        space: SearchSpace,
        cost_of: Callable[[BlockSpec], float],
        *,
        costs_at: Mapping[int, Mapping[BlockSpec, float]] | None = None,
    ) -> None:
        self.space = space
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
            `(n_archs,)` in the unit of `cost_of`; NaN where a block that runs costs NaN.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.space.slots):
            raise InvalidArchError(f"Rows of '{self.space.name}' have {len(self.space.slots)} slots, got {rows.shape}.")
        strides, offsets, entries = self._flat
        # A float product goes through BLAS, an integer one does not; the numbers are small enough to stay exact.
        places = (strides @ rows.T.astype(np.float64)).astype(np.int64) + offsets
        return self._total(entries.take(places))

    def of(self, archs: Sequence[Arch]) -> Values:
        """`__call__` for archs."""
        return self(self.space.to_rows(archs))

    def scaled(self, factor: float) -> Self:
        """The same cost in another unit, or at another quantile: every number times `factor`, which is positive."""
        cost = copy(self)
        cost.__dict__.pop("_flat", None)
        cost.tables = [table * factor for table in self.tables]
        return cost

    @abstractmethod
    def _total(self, costs: Values) -> Values:
        """`(n_positions, n_archs)` costs of blocks to `(n_archs,)` costs of archs."""

    @cached_property
    def _flat(self) -> tuple[Values, NDArray[np.int64], Values]:
        """All tables as one vector, with the depth as an axis of its own: blocks that do not run cost `_skipped`.

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
                table = np.where(runs.reshape(-1, *[1] * table.ndim), table, self._skipped)
                slots = (position.depth_slot, *slots)
            strides[index, slots] = np.cumprod((1, *table.shape[:0:-1]))[::-1]
            offsets[index] = start
            start += table.size
            vectors.append(table.ravel())
        return strides, offsets, np.concatenate(vectors)


class AdditiveCost(BlockCost):
    """The sum over the blocks that run, and a fixed share.

    Args:
        space: See `BlockCost`.
        cost_of: See `BlockCost`.
        fixed: Added once per arch.
        costs_at: See `BlockCost`.
    """

    _skipped = 0.0

    def __init__(
        self,
        space: SearchSpace,
        cost_of: Callable[[BlockSpec], float],
        *,
        fixed: float = 0.0,
        costs_at: Mapping[int, Mapping[BlockSpec, float]] | None = None,
    ) -> None:
        super().__init__(space, cost_of, costs_at=costs_at)
        self.fixed = fixed

    def restricted(self, allowed: Sequence[NDArray[np.bool_]]) -> Self:
        """The same cost, infinite where a block is not allowed.

        Args:
            allowed: Per position, shaped as `tables`.
        """
        cost = self.scaled(1)
        cost.tables = [np.where(may, table, np.inf) for may, table in zip(allowed, self.tables, strict=True)]
        return cost

    def scaled(self, factor: float) -> Self:
        """As `BlockCost.scaled`; the fixed share too."""
        cost = super().scaled(factor)
        cost.fixed = self.fixed * factor
        return cost

    def _total(self, costs: Values) -> Values:
        # numpy adds a single column up in another order: an arch has to cost the same alone and among others.
        total: Values = costs.sum(axis=0) if costs.shape[1] > 1 else np.add.accumulate(costs)[-1]
        return total + self.fixed


class PeakCost(BlockCost):
    """The largest number of any block that runs: what needs room while one block runs and leaves it free after."""

    _skipped = -np.inf

    def _total(self, costs: Values) -> Values:
        largest: Values = costs.max(axis=0)
        return largest


@lru_cache(maxsize=16)
def macs_cost(space: SearchSpace) -> AdditiveCost:
    """MACs of whole populations; compiled once per space."""
    return AdditiveCost(space, lambda spec: spec.macs)


@lru_cache(maxsize=16)
def params_cost(space: SearchSpace) -> AdditiveCost:
    """Parameters of whole populations; compiled once per space."""
    return AdditiveCost(space, lambda spec: spec.params)


@lru_cache(maxsize=16)
def peak_memory_cost(space: SearchSpace) -> PeakCost:
    """Peak memory of whole populations, elements; compiled once per space."""
    return PeakCost(space, lambda spec: spec.peak_memory_elements)
