"""Encodings of the once-for-all reference project: archs as the bits its accuracy predictors were trained on.

Every slot with bits is one-hot, a skipped block has none set, and depths are told by the blocks that run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidArchError, InvalidSpaceError
from supernet.spaces.blocks import make_divisible
from supernet.spaces.families.ofa import RESNET_WIDTH_MULTIPLIERS
from supernet.spaces.space import Dimension

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from supernet.spaces.space import Rows, SearchSpace, Slot

    Bits = NDArray[np.float32]

# The tutorial's own resolutions: 112, 128, …, 224; others are floored.
TUTORIAL_STEP = 16
TUTORIAL_SIZES = tuple(range(112, 225, TUTORIAL_STEP))
_TUTORIAL_BLOCKS = 20
_TUTORIAL_CHOICES = {Dimension.KERNEL_SIZE: (3, 5, 7), Dimension.EXPAND_RATIO: (3, 4, 6)}


@dataclass(frozen=True, slots=True)
class OneHot:
    """The bits of one slot, of which one is set, or none where its block is skipped.

    Attributes:
        column: Of the slot.
        bit_of: Per choice, its bit; -1 where the encoding has none for it.
        choice_of: Per bit, the choice it stands for; -1 where the space does not offer it.
    """

    column: int
    bit_of: tuple[int, ...]
    choice_of: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class OfaEncoding:
    """Turns rows of choice indices into bits and back; made by the functions below.

    Attributes:
        space: The search space.
        groups: In the order of their bits.
        resolution_bits: What `resolution_first_encoding` was given; None for the tutorial's own.
    """

    space: SearchSpace
    groups: tuple[OneHot, ...]
    resolution_bits: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse spaces with a choice that no bits tell.

        Raises:
            InvalidSpaceError: Names the first such slot.
        """
        told = {group.column for group in self.groups} | set(self._counted_depths)
        for column, slot in enumerate(self.space.slots):
            if column not in told:
                raise InvalidSpaceError(
                    f"'{slot.dimension}' of stage {slot.stage} of space '{self.space.name}' has no bits in this "
                    "encoding of the once-for-all project. Use a space of its MobileNetV3, Proxyless or ResNet50."
                )

    @cached_property
    def n_bits(self) -> int:
        """How many bits describe an arch."""
        return sum(len(group.choice_of) for group in self.groups)

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions of the space that it has a bit for, ascending, pixels."""
        (group,) = (group for group in self.groups if group.column == 0)
        return tuple(size for size, bit in zip(self.space.resolutions, group.bit_of, strict=True) if bit >= 0)

    def encode(self, rows: Rows) -> Bits:
        """Write archs as bits.

        Args:
            rows: `(n_archs, n_slots)` choice indices, within the space.

        Returns:
            `(n_archs, n_bits)` float32, 0 or 1.

        Raises:
            InvalidArchError: A resolution has no bit.
        """
        set_bits = self._bit_table[np.arange(rows.shape[1]), rows]
        unknown = set_bits[:, 0] < 0
        if unknown.any():
            raise InvalidArchError(
                f"This encoding has no bit for resolution {self.space.resolutions[rows[unknown][0, 0]]}; "
                f"it knows {list(self.resolutions)}."
            )
        set_bits[self.space.skipped_slots(rows)] = -1
        # Bit by bit, each for all archs: half the time of scattering ones.
        bits = np.empty((self.n_bits, len(rows)), np.float32)
        set_bits = np.ascontiguousarray(set_bits.T)
        np.equal(set_bits[self._column_of], np.arange(self.n_bits, dtype=np.int16)[:, None], out=bits)
        return bits.T

    def decode(self, bits: Bits) -> Rows:
        """Read archs from bits.

        Args:
            bits: `(n_archs, n_bits)`, as `encode` writes them.

        Returns:
            `(n_archs, n_slots)` canonical rows of choice indices. Where bits stand for several choices (resolutions
            the tutorial floors), the smallest is meant.

        Raises:
            InvalidArchError: The array has another shape, or a row is no encoding of an arch of the space; names the
                row and the bits.
        """
        bits = np.asarray(bits, np.float32)
        if bits.ndim != 2 or bits.shape[1] != self.n_bits:
            raise InvalidArchError(
                f"Encodings of '{self.space.name}' have the shape (n_archs, {self.n_bits}), got {bits.shape}."
            )
        bits = self._without_synonyms(bits)
        rows = np.zeros((len(bits), len(self.space.slots)), np.int16)
        runs = {}
        for group, part in self._parts():
            slot = self.space.slots[group.column]
            choices = np.array(group.choice_of)
            choices[choices < 0] = choices.max()
            rows[:, group.column] = choices[bits[:, part].argmax(axis=1)]
            runs[slot.stage, slot.block] = (bits[:, part] != 0).any(axis=1)
        for column, (stage, blocks) in self._counted_depths.items():
            depth = sum(runs[stage, block].astype(np.intp) for block in blocks)
            for index, choice in enumerate(self.space.slots[column].choices):
                rows[depth == choice, column] = index
        # What is no encoding (two bits of a slot, a hole between blocks, a depth that is not offered) differs from the
        # encoding of whatever was read.
        rows = self.space.canonicalize_rows(rows)
        wrong = np.argwhere(self.encode(rows) != bits)
        if len(wrong):
            row, bit = wrong[0]
            raise InvalidArchError(f"Row {row} is no encoding of an arch of '{self.space.name}': {self._rule_of(bit)}.")
        return rows

    # ------------------------------------------------------------------ private

    def _parts(self) -> Iterator[tuple[OneHot, slice]]:
        """Every group with where its bits lie."""
        start = 0
        for group in self.groups:
            yield group, slice(start, start + len(group.choice_of))
            start += len(group.choice_of)

    @cached_property
    def _bit_table(self) -> NDArray[np.int16]:
        """`(n_slots, most choices)`: the bit of each choice; -1 where there is none."""
        most = max(len(slot.choices) for slot in self.space.slots)
        table = np.full((len(self.space.slots), most), -1, np.int16)
        for group, part in self._parts():
            table[group.column, : len(group.bit_of)] = [bit if bit < 0 else part.start + bit for bit in group.bit_of]
        return table

    @cached_property
    def _column_of(self) -> NDArray[np.intp]:
        """`(n_bits,)`: the slot each bit belongs to."""
        return np.repeat([group.column for group in self.groups], [len(group.choice_of) for group in self.groups])

    @cached_property
    def _counted_depths(self) -> dict[int, tuple[int, range]]:
        """By column of each depth without bits: its stage, and the blocks that tell it."""
        encoded = {group.column for group in self.groups}
        stages = {self.space.slots[column].stage for column in encoded if self.space.slots[column].block >= 0}
        return {
            column: (slot.stage, range(int(slot.choices[-1])))
            for column, slot in enumerate(self.space.slots)
            if slot.dimension is Dimension.DEPTH and column not in encoded and slot.stage in stages
        }

    def _without_synonyms(self, bits: Bits) -> Bits:
        """The bits, each moved to the one `encode` sets for the same choice."""
        bits = bits.copy()
        for group, part in self._parts():
            for bit, choice in enumerate(group.choice_of):
                if choice >= 0 and group.bit_of[choice] != bit:
                    bits[:, part.start + group.bit_of[choice]] += bits[:, part.start + bit]
                    bits[:, part.start + bit] = 0
        return bits

    def _rule_of(self, bit: int) -> str:
        """What holds for a bit and its neighbours."""
        ((group, part),) = ((group, part) for group, part in self._parts() if part.start <= bit < part.stop)
        slot = self.space.slots[group.column]
        where = "" if slot.stage < 0 else f" of stage {slot.stage}"
        bits = f"of the bits {part.start} to {part.stop - 1}, '{slot.dimension}'{where}"
        if slot.block < 0:
            return f"{bits}, one is 1, a choice of the space, and the others 0"
        return (
            f"{bits}, block {slot.block}, one is 1 and the others 0 where the block runs, all 0 where it is skipped; "
            "the first blocks of a stage run, as many as the space offers"
        )


def tutorial_encoding(space: SearchSpace) -> OfaEncoding:
    """The encoding of the reference's tutorial: kernel sizes, expand ratios, then the resolution; 128 bits.

    Resolutions are floored to a multiple of 16, so several share a bit.

    Raises:
        InvalidSpaceError: The space is not one of 20 blocks with its choices, or has a resolution it has no bit for.

    Source: `ofa/tutorial/accuracy_predictor.py`.
    Differs: bits ascend with the choices by rule, not by the order a set happens to have.
    """
    blocks = [slot for slot in space.slots if slot.block >= 0]
    for dimension, choices in _TUTORIAL_CHOICES.items():
        found = [slot.choices for slot in blocks if slot.dimension is dimension]
        if found != [choices] * _TUTORIAL_BLOCKS:
            raise InvalidSpaceError(
                f"The tutorial's encoding is one of {_TUTORIAL_BLOCKS} blocks with '{dimension}' {list(choices)}; "
                f"space '{space.name}' has others. Use one of the reference's MobileNetV3."
            )
    bit_of = [(size - TUTORIAL_SIZES[0]) // TUTORIAL_STEP for size in space.resolutions]
    if not all(0 <= bit < len(TUTORIAL_SIZES) for bit in bit_of):
        raise InvalidSpaceError(
            f"The tutorial's encoding has bits for resolutions from {TUTORIAL_SIZES[0]} to "
            f"{TUTORIAL_SIZES[-1] + TUTORIAL_STEP - 1}, space '{space.name}' has {list(space.resolutions)}."
        )
    choice_of = [bit_of.index(bit) if bit in bit_of else -1 for bit in range(len(TUTORIAL_SIZES))]
    groups = (
        *_per_choice(space, Dimension.KERNEL_SIZE),
        *_per_choice(space, Dimension.EXPAND_RATIO),
        OneHot(0, tuple(bit_of), tuple(choice_of)),
    )
    return OfaEncoding(space, groups)


def resolution_first_encoding(space: SearchSpace, resolutions: Sequence[int]) -> OfaEncoding:
    """The encoding of the reference's `ofa.nas`: resolution, skippable stages, widths, kernel sizes, expand ratios.

    What the space fixes has no bits: `|R| + 120` for MobileNetV3, `|R| + 126` for Proxyless, `|R| + 74` for ResNet50.

    Args:
        space: The search space.
        resolutions: One per bit, in the order of the bits; those the space does not offer may be among them.

    Raises:
        InvalidSpaceError: A choice of the space has no bits, or a width is none of the reference's multiples.
        InvalidArchError: A resolution occurs twice, or the space offers none of them.

    Source: `ofa/nas/accuracy_predictor/arch_encoder.py`.
    Differs: widths are channels. Where two multipliers give the same channels, the bit of the larger one is set; both
    are read.
    """
    if len(set(resolutions)) < len(resolutions) or not set(resolutions) & set(space.resolutions):
        raise InvalidArchError(
            f"An encoding needs resolutions without repeats, some of them of space '{space.name}' "
            f"({list(space.resolutions)}); got {list(resolutions)}."
        )
    choice_of = tuple(space.resolutions.index(size) if size in space.resolutions else -1 for size in resolutions)
    bit_of = tuple(resolutions.index(size) if size in resolutions else -1 for size in space.resolutions)
    groups = (
        OneHot(0, bit_of, choice_of),
        *(group for group in _per_choice(space, Dimension.DEPTH) if space.slots[group.column].choices[0] == 0),
        *_per_multiplier(space),
        *_per_choice(space, Dimension.KERNEL_SIZE),
        *_per_choice(space, Dimension.EXPAND_RATIO),
    )
    return OfaEncoding(space, groups, tuple(resolutions))


def _slots_of(space: SearchSpace, dimension: Dimension) -> Iterator[tuple[int, Slot]]:
    return ((column, slot) for column, slot in enumerate(space.slots) if slot.dimension is dimension)


def _per_choice(space: SearchSpace, dimension: Dimension) -> Iterator[OneHot]:
    for column, slot in _slots_of(space, dimension):
        bits = tuple(range(len(slot.choices)))
        yield OneHot(column, bits, bits)


def _per_multiplier(space: SearchSpace) -> Iterator[OneHot]:
    for column, slot in _slots_of(space, Dimension.WIDTH):
        widths = [
            make_divisible(slot.choices[-1] * multiplier, space.divisor) for multiplier in RESNET_WIDTH_MULTIPLIERS
        ]
        if sorted(set(widths)) != list(slot.choices):
            raise InvalidSpaceError(
                f"The widths of stage {slot.stage} of space '{space.name}' must be {list(RESNET_WIDTH_MULTIPLIERS)} of "
                f"the widest, so {sorted(set(widths))}, to have the reference's encoding; got {list(slot.choices)}."
            )
        choice_of = tuple(slot.choices.index(width) for width in widths)
        # The last bit of each choice, as `ofa_from_arch` writes the largest multiplier.
        bit_of = {choice: bit for bit, choice in enumerate(choice_of)}
        yield OneHot(column, tuple(bit_of[choice] for choice in range(len(slot.choices))), choice_of)
