"""SearchSpace: every choice a supernet offers, as one value.

All archs of a space are rows of choice indices too, so that populations are sampled, mutated and priced as arrays.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import product
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from supernet.errors import InvalidArchError, InvalidSpaceError
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockSpec, out_size_of
from supernet.spaces.stage import LARGEST, Stage, is_finite_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_RESOLUTION = 4096
MAX_NAME = 200
# Blocks that can stand at all positions together, each counted where it can: what every cost of the space holds.
MAX_BLOCKS = 10_000_000

# Indices of choices, one row per arch and one column per slot.
Rows = NDArray[np.int16]


class Dimension(StrEnum):
    """The elastic dimensions, named as the fields of `Arch` that hold them."""

    RESOLUTION = "resolution"
    DEPTH = "depths"
    KERNEL_SIZE = "kernel_sizes"
    EXPAND_RATIO = "expand_ratios"
    WIDTH = "widths"


@dataclass(frozen=True, slots=True)
class Slot:
    """One coordinate that can vary: a column of a population.

    Attributes:
        choices: The values on offer, ascending.
        stage: Index of its stage; -1 for the resolution.
        block: Index of its block inside the stage; -1 where it governs the whole stage.
    """

    dimension: Dimension
    choices: tuple[float, ...]
    stage: int = -1
    block: int = -1


@dataclass(frozen=True, slots=True)
class Position:
    """One place of the deepest network where a block may stand, and the slots that shape it (-1: fixed).

    Attributes:
        in_sizes: Size of the input map at each resolution of the space.
        fixed_in_chs: Input channels where no slot chooses them.
        fixed_out_chs: Output channels where no slot chooses them.
    """

    stage: int
    block: int
    in_sizes: tuple[int, ...]
    depth_slot: int
    kernel_slot: int
    expand_slot: int
    in_width_slot: int
    out_width_slot: int
    fixed_in_chs: int
    fixed_out_chs: int


@dataclass(frozen=True)
class SearchSpace:
    """The set of all archs of one supernet.

    Attributes:
        name: What latency tables, bundles and requests call it.
        stages: From the stem to the classifier, in the order they run.
        resolutions: Input sizes in pixels, ascending.
        in_chs: Channels of the image.
        divisor: Inner widths are multiples of it.
        norm_eps: Epsilon of batch normalisation.
    """

    name: str
    stages: tuple[Stage, ...]
    resolutions: tuple[int, ...]
    in_chs: int = 3
    divisor: int = 8
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse spaces that no network can be built from."""
        if not isinstance(self.name, str) or not 0 < len(self.name) <= MAX_NAME or not self.name.isprintable():
            raise InvalidSpaceError(
                f"A space needs a name of 1 to {MAX_NAME} printable characters, got {reprlib.repr(self.name)}."
            )
        for key, value in (("in_chs", self.in_chs), ("divisor", self.divisor)):
            if type(value) is not int or not 1 <= value <= LARGEST["widths"]:
                raise InvalidSpaceError(
                    f"'{key}' of a space must be a whole number from 1 to {LARGEST['widths']}, got {value!r}."
                )
        if not is_finite_number(self.norm_eps) or not 0 < self.norm_eps <= 1:
            raise InvalidSpaceError(
                f"'norm_eps' of a space must be a number above 0 and up to 1, got {self.norm_eps!r}."
            )
        if any(type(resolution) is not int for resolution in self.resolutions):
            raise InvalidSpaceError(f"Resolutions must be whole numbers, got {list(self.resolutions)}.")
        if not self.stages:
            raise InvalidSpaceError(f"Space '{self.name}' has no stages.")
        if not self.resolutions or list(self.resolutions) != sorted(set(self.resolutions)) or self.resolutions[0] < 1:
            raise InvalidSpaceError(f"Resolutions must be positive and ascend, got {list(self.resolutions)}.")
        if self.resolutions[-1] > MAX_RESOLUTION:
            raise InvalidSpaceError(f"Resolutions may be at most {MAX_RESOLUTION}, got {self.resolutions[-1]}.")
        if len(self.stages[-1].widths) != 1:
            raise InvalidSpaceError("The last stage is the classifier: give it one width, the number of classes.")
        if (blocks := self._count_blocks()) > MAX_BLOCKS:
            raise InvalidSpaceError(
                f"Space '{self.name}' offers {blocks} blocks over all positions, the most is {MAX_BLOCKS}: list fewer "
                "choices."
            )

    # ------------------------------------------------------------------ structure

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return self.stages[-1].widths[0]

    def with_classes(self, classes: int) -> SearchSpace:
        """The same space with another number of outputs."""
        if classes < 1:
            raise InvalidSpaceError(f"A classifier needs at least one class, got {classes}.")
        return replace(self, stages=(*self.stages[:-1], replace(self.stages[-1], widths=(classes,))))

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """What varies, column by column: resolution first, then depths, kernel sizes, expand ratios and widths.

        A stage or block with a single choice has no slot in that dimension.
        """
        slots = [Slot(Dimension.RESOLUTION, self.resolutions)]
        for index, stage in enumerate(self.stages):
            if len(stage.depths) > 1:
                slots.append(Slot(Dimension.DEPTH, stage.depths, index))
        for dimension in (Dimension.KERNEL_SIZE, Dimension.EXPAND_RATIO):
            for index, stage in enumerate(self.stages):
                choices = stage.kernel_sizes if dimension is Dimension.KERNEL_SIZE else stage.expand_ratios
                if len(choices) > 1:
                    slots += [Slot(dimension, choices, index, block) for block in range(stage.depths[-1])]
        for index, stage in enumerate(self.stages):
            if len(stage.widths) > 1:
                slots.append(Slot(Dimension.WIDTH, stage.widths, index))
        return tuple(slots)

    @cached_property
    def positions(self) -> tuple[Position, ...]:
        """Every place where a block may stand, in network order."""
        column = {(slot.dimension, slot.stage, slot.block): index for index, slot in enumerate(self.slots)}
        positions: list[Position] = []
        in_sizes = self.resolutions
        in_width_slot, in_chs = -1, self.in_chs
        for index, stage in enumerate(self.stages):
            out_width_slot = column.get((Dimension.WIDTH, index, -1), -1) if stage.widths else in_width_slot
            out_chs = stage.widths[-1] if stage.widths else in_chs
            for block in range(stage.depths[-1]):
                positions.append(
                    Position(
                        stage=index,
                        block=block,
                        in_sizes=in_sizes,
                        depth_slot=column.get((Dimension.DEPTH, index, -1), -1),
                        kernel_slot=column.get((Dimension.KERNEL_SIZE, index, block), -1),
                        expand_slot=column.get((Dimension.EXPAND_RATIO, index, block), -1),
                        in_width_slot=in_width_slot,
                        out_width_slot=out_width_slot,
                        fixed_in_chs=in_chs,
                        fixed_out_chs=out_chs,
                    )
                )
                if block == 0:
                    in_sizes = tuple(out_size_of(stage.kind, size, stage.stride) for size in in_sizes)
                    in_width_slot, in_chs = out_width_slot, out_chs
        return tuple(positions)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything but the name: equal fingerprints mean interchangeable weights."""
        content = {key: value for key, value in self.to_dict().items() if key != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def size(self) -> int:
        """Number of distinct archs: choices of blocks beyond a stage's depth do not count."""
        total = len(self.resolutions)
        for stage in self.stages:
            per_block = len(stage.kernel_sizes) * len(stage.expand_ratios)
            total *= sum(per_block**depth for depth in stage.depths) * max(1, len(stage.widths))
        return total

    # ------------------------------------------------------------------ archs

    def canonicalize(self, arch: Arch) -> Arch:
        """Check an arch and write 0 for the kernel sizes and expand ratios of skipped blocks.

        Raises:
            InvalidArchError: A tuple has the wrong length or a value the space does not offer.
        """
        return self.from_rows(self.to_rows([arch]))[0]

    def contains(self, arch: Arch) -> bool:
        """Whether `canonicalize` accepts the arch."""
        try:
            self.to_rows([arch])
        except InvalidArchError:
            return False
        return True

    def to_rows(self, archs: Sequence[Arch]) -> Rows:
        """Write archs as canonical rows of choice indices.

        Returns:
            `(n_archs, n_slots)` int16, in input order; slots of skipped blocks are 0.

        Raises:
            InvalidArchError: As `canonicalize`.
        """
        if not archs:
            return np.zeros((0, len(self.slots)), np.int16)
        rows = np.stack([self._row_of(arch) for arch in archs])
        return self.canonicalize_rows(rows)

    def from_rows(self, rows: Rows) -> list[Arch]:
        """Turn rows of choice indices into canonical archs, in order."""
        skipped = self.skipped_slots(rows)
        archs = []
        for row, skip in zip(rows, skipped, strict=True):
            values: dict[Dimension, list[Any]] = {dimension: [] for dimension in Dimension}
            for slot, index, is_skipped in zip(self.slots, row, skip, strict=True):
                values[slot.dimension].append(0 if is_skipped else slot.choices[index])
            (resolution,) = values.pop(Dimension.RESOLUTION)
            archs.append(Arch(resolution, **{str(dimension): tuple(listed) for dimension, listed in values.items()}))
        return archs

    def canonicalize_rows(self, rows: Rows) -> Rows:
        """A copy with index 0 in the slots of skipped blocks, so that equal networks are equal rows."""
        return np.where(self.skipped_slots(rows), np.int16(0), rows)

    def skipped_slots(self, rows: Rows) -> NDArray[np.bool_]:
        """Mark the slots of blocks beyond their stage's depth; same shape as `rows`."""
        depth_slots, least = self._depths_of_slots
        return rows[:, depth_slots] < least

    def active_blocks(self, rows: Rows) -> NDArray[np.bool_]:
        """Mark the blocks that run.

        Returns:
            `(n_archs, n_positions)` bool.
        """
        depth_slots, least = self._depths_of_positions
        return rows[:, depth_slots] >= least

    def smallest(self) -> Arch:
        """The first choice everywhere."""
        return self.from_rows(np.zeros((1, len(self.slots)), np.int16))[0]

    def largest(self) -> Arch:
        """The last choice everywhere."""
        return self.from_rows(np.array([[len(slot.choices) - 1 for slot in self.slots]], np.int16))[0]

    def sample(self, rng: np.random.Generator) -> Arch:
        """Draw one arch as `sample_rows` does."""
        return self.from_rows(self.sample_rows(rng, 1))[0]

    def sample_rows(self, rng: np.random.Generator, n_archs: int, *, least: Rows | None = None) -> Rows:
        """Draw archs: every slot independently and uniformly over its choices.

        Args:
            rng: Source of the draws.
            n_archs: How many.
            least: `(n_slots,)` first choice index on offer per slot, as from `least_choices`; by default 0.

        Returns:
            `(n_archs, n_slots)` canonical rows; repeats are possible.

        Source: OFA `sample_active_subnet`. Uniform over slots, not over distinct archs: depths are equally likely.
        """
        counts = np.array([len(slot.choices) for slot in self.slots])
        low = 0 if least is None else least
        return self.canonicalize_rows(rng.integers(low, counts, (n_archs, len(counts))).astype(np.int16))

    def least_choices(self, kept: Mapping[Dimension, int]) -> Rows:
        """First choice index of every slot where only the largest so many choices of a dimension are on offer.

        Args:
            kept: How many of the largest choices; dimensions that are absent keep all.

        Returns:
            `(n_slots,)`.
        """
        numbers = [len(slot.choices) - min(kept.get(slot.dimension, inf), len(slot.choices)) for slot in self.slots]
        return np.array(numbers, np.int16)

    def mutate(self, arch: Arch, rng: np.random.Generator, *, probability: float) -> Arch:
        """Redraw each slot with the given probability; see `mutate_rows`."""
        return self.from_rows(self.mutate_rows(self.to_rows([arch]), rng, probability=probability))[0]

    def mutate_rows(self, rows: Rows, rng: np.random.Generator, *, probability: float) -> Rows:
        """Redraw slots uniformly, each with the given probability; the result is canonical.

        A block that was skipped and now runs gets random choices, since its old ones were forgotten.
        """
        counts = np.array([len(slot.choices) for slot in self.slots])
        fresh = rng.integers(0, counts, rows.shape).astype(np.int16)
        redraw = (rng.random(rows.shape) < probability) | self.skipped_slots(rows)
        return self.canonicalize_rows(np.where(redraw, fresh, rows))

    def crossover(self, first: Arch, second: Arch, rng: np.random.Generator) -> Arch:
        """Take each slot from either parent; see `crossover_rows`."""
        rows = self.to_rows([first, second])
        return self.from_rows(self.crossover_rows(rows[:1], rows[1:], rng))[0]

    def crossover_rows(self, first: Rows, second: Rows, rng: np.random.Generator) -> Rows:
        """Take each slot from either parent with equal chance, row by row; the result is canonical.

        Where a parent skips a block, the other parent's choices for it are taken.
        """
        from_first = rng.random(first.shape) < 0.5
        from_first = (from_first | self.skipped_slots(second)) & ~self.skipped_slots(first)
        return self.canonicalize_rows(np.where(from_first, first, second))

    # ------------------------------------------------------------------ shapes

    def walk(self, arch: Arch) -> Iterator[tuple[int, BlockSpec]]:
        """Yield the index of every active position with its block, in the order they run."""
        (row,) = self.to_rows([arch])
        (active,) = self.active_blocks(row[None])
        for index, position in enumerate(self.positions):
            if active[index]:
                yield index, self.block_at(index, tuple(int(row[slot]) for slot in self.slots_of(position)))

    def slots_of(self, position: Position) -> tuple[int, ...]:
        """Columns of the slots that shape a block, in a fixed order, the resolution first."""
        columns = (position.kernel_slot, position.expand_slot, position.in_width_slot, position.out_width_slot)
        return (0, *dict.fromkeys(column for column in columns if column >= 0))

    def block_at(self, index: int, choices: tuple[int, ...]) -> BlockSpec:
        """Shape the block of one position.

        Args:
            index: Of the position.
            choices: Choice index of each slot in `slots_of(position)`.
        """
        position = self.positions[index]
        stage = self.stages[position.stage]
        slots = self.slots_of(position)
        chosen = {slot: self.slots[slot].choices[choice] for slot, choice in zip(slots, choices, strict=True)}
        return stage.block(
            position.block,
            in_size=position.in_sizes[choices[0]],
            in_chs=int(chosen.get(position.in_width_slot, position.fixed_in_chs)),
            out_chs=int(chosen.get(position.out_width_slot, position.fixed_out_chs)),
            kernel_size=int(chosen.get(position.kernel_slot, stage.kernel_sizes[0])),
            expand_ratio=chosen.get(position.expand_slot, stage.expand_ratios[0]),
            divisor=self.divisor,
        )

    def blocks_at(self, index: int) -> Iterator[tuple[tuple[int, ...], BlockSpec]]:
        """Yield every block that can stand at a position, with the choices of `slots_of` that make it."""
        counts = [len(self.slots[slot].choices) for slot in self.slots_of(self.positions[index])]
        for choices in product(*map(range, counts)):
            yield choices, self.block_at(index, choices)

    def distinct_blocks(self) -> tuple[BlockSpec, ...]:
        """Every block that occurs in any arch, each once, sorted: what a latency table has to hold."""
        return tuple(sorted({spec for index in range(len(self.positions)) for _, spec in self.blocks_at(index)}))

    # ------------------------------------------------------------------ files

    def to_dict(self) -> dict[str, Any]:
        """The whole definition as JSON values."""
        return {
            "name": self.name,
            "resolutions": list(self.resolutions),
            "in_chs": self.in_chs,
            "divisor": self.divisor,
            "norm_eps": self.norm_eps,
            "stages": [stage.to_dict() for stage in self.stages],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SearchSpace:
        """Read what `to_dict` wrote; raises `InvalidSpaceError` for anything else."""
        allowed = {"name", "resolutions", "in_chs", "divisor", "norm_eps", "stages"}
        try:
            unknown, missing = sorted(set(data) - allowed), sorted({"name", "resolutions", "stages"} - set(data))
            if unknown or missing:
                raise InvalidSpaceError(
                    f"A space has the keys {sorted(allowed)}; unknown {unknown}, missing {missing}."
                )
            stages = tuple(Stage.from_dict(stage) for stage in data["stages"])
            return cls(**{**data, "stages": stages, "resolutions": tuple(data["resolutions"])})
        except (TypeError, AttributeError) as error:
            raise InvalidSpaceError(f"This space cannot be read: {error}") from error

    # ------------------------------------------------------------------ private

    def _count_blocks(self) -> int:
        """Blocks of all positions, each counted where it can stand."""
        total, in_widths = 0, 1
        for stage in self.stages:
            out_widths = len(stage.widths) or in_widths
            per_block = len(self.resolutions) * len(stage.kernel_sizes) * len(stage.expand_ratios)
            # Only the first block of a stage can change the width.
            first = in_widths * out_widths if stage.widths else in_widths
            total += per_block * (first + (stage.depths[-1] - 1) * out_widths)
            in_widths = out_widths
        return total

    @cached_property
    def _depths_of_positions(self) -> tuple[NDArray[np.intp], Rows]:
        """Per position: the slot of its stage's depth, and the least index of it at which the block runs.

        Where the depth is fixed any slot with the index 0 says "always".
        """
        slots = [max(position.depth_slot, 0) for position in self.positions]
        least = [
            sum(depth <= position.block for depth in self.stages[position.stage].depths) for position in self.positions
        ]
        return np.array(slots), np.array(least, np.int16)

    @cached_property
    def _depths_of_slots(self) -> tuple[NDArray[np.intp], Rows]:
        """Per slot: the same for its block; a slot of no single block is never skipped."""
        slots, least = np.zeros(len(self.slots), np.intp), np.zeros(len(self.slots), np.int16)
        for position, slot_of_depth, needed in zip(self.positions, *self._depths_of_positions, strict=True):
            for slot in (position.kernel_slot, position.expand_slot):
                if slot >= 0:
                    slots[slot], least[slot] = slot_of_depth, needed
        return slots, least

    def _row_of(self, arch: Arch) -> Rows:
        row = np.zeros(len(self.slots), np.int16)
        values = self._slot_values(arch)
        refused = []
        for column, (slot, value) in enumerate(zip(self.slots, values, strict=True)):
            if value in slot.choices:
                row[column] = slot.choices.index(value)
            else:
                refused.append(column)
        skipped = self.skipped_slots(row[None])[0]
        for column in refused:
            if not (skipped[column] and values[column] == 0):
                slot = self.slots[column]
                block = f", block {slot.block}" if slot.block >= 0 else ""
                where = f" of stage {slot.stage}{block}" if slot.stage >= 0 else ""
                raise InvalidArchError(
                    f"'{slot.dimension}'{where} of space '{self.name}' must be one of {list(slot.choices)}, "
                    f"got {values[column]}."
                )
        return row

    def _slot_values(self, arch: Arch) -> list[float]:
        """The arch's value for each slot, after a check that every tuple has the length the space declares."""
        values: list[float] = [arch.resolution]
        for dimension in (Dimension.DEPTH, Dimension.KERNEL_SIZE, Dimension.EXPAND_RATIO, Dimension.WIDTH):
            listed = getattr(arch, dimension)
            expected = sum(slot.dimension is dimension for slot in self.slots)
            if len(listed) != expected:
                raise InvalidArchError(
                    f"'{dimension}' of space '{self.name}' needs {expected} values, the arch has {len(listed)}."
                )
            values += listed
        return values
