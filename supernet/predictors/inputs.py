"""Archs as a predictor sees them: one bit per step of each slot, and numbers that the accuracy follows."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from supernet.errors import InvalidArchError
from supernet.spaces.costs import AdditiveCost, macs_cost

if TYPE_CHECKING:
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace, Slot

Bits = NDArray[np.float32]

# Slots with more choices than this become one number; a bit per step would let them outweigh all others.
MAX_STEPS = 8


class ArchInputs:
    """Turns rows of choice indices into numbers.

    A slot with the choices 3, 5, 7 becomes the bits "at least 5" and "at least 7", so that neighbouring choices are
    closer than distant ones, and a skipped block is closest to the smallest one.
    Differs from `spaces.encoding.encode`: one-hot bits hold every two choices equally far apart, which costs accuracy.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._counts = np.array([len(slot.choices) for slot in space.slots])

    def check(self, rows: Rows) -> Rows:
        """Canonical rows.

        Raises:
            InvalidArchError: The array has another shape, or an index that the space does not offer.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self._counts) or rows.dtype.kind not in "iu":
            raise InvalidArchError(
                f"Rows of '{self.space.name}' are whole numbers of shape (n_archs, {len(self._counts)}), "
                f"got {rows.dtype} of {rows.shape}."
            )
        if rows.size and (rows.min() < 0 or (rows.max(axis=0) >= self._counts).any()):
            raise InvalidArchError(f"Rows hold a choice index that space '{self.space.name}' does not offer.")
        return self.space.canonicalize_rows(rows)

    @cached_property
    def n_resolution_bits(self) -> int:
        """How many of the first bits belong to the resolution."""
        return _width_of(self.space.slots[0])

    @cached_property
    def n_bits(self) -> int:
        """How many bits describe an arch."""
        return sum(map(_width_of, self.space.slots))

    def bits(self, rows: Rows) -> Bits:
        """`(n_bits, n_archs)`: one row per bit, the resolution's first."""
        bits = np.empty((self.n_bits, len(rows)), np.float32)
        bit = 0
        for slot, indices in zip(self.space.slots, np.ascontiguousarray(rows.T), strict=True):
            if len(slot.choices) > MAX_STEPS:
                choices = np.asarray(slot.choices, np.float32)
                np.take((choices - choices[0]) / (choices[-1] - choices[0]), indices, out=bits[bit])
                bit += 1
                continue
            for step in range(1, len(slot.choices)):
                np.greater_equal(indices, step, out=bits[bit])
                bit += 1
        return bits

    @property
    def n_trends(self) -> int:
        """How many trends there are."""
        return 1

    def trends(self, rows: Rows) -> Values:
        """`(n_trends, n_archs)`: what accuracy follows beyond the archs seen, here the logarithm of MACs."""
        return np.log(self._macs(np.asfortranarray(rows)))[None]  # columns in one piece halve the time of the look-ups

    @cached_property
    def _macs(self) -> AdditiveCost:
        return macs_cost(self.space)


def _width_of(slot: Slot) -> int:
    return 1 if len(slot.choices) > MAX_STEPS else len(slot.choices) - 1
