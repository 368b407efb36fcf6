"""LatencyEstimator: what whole networks cost by a table, without the hardware. numpy and spaces only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum, hypot, inf
from typing import TYPE_CHECKING

from latency_tables.calibration import Calibration, fit_calibration
from latency_tables.errors import DeviceMismatchError, InvalidSettingError, MissingEntryError, TableFormatError
from supernet.spaces.costs import AdditiveCost, blocks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_tables.table import LatencyStats, LatencyTable
    from supernet.spaces.arch import Arch
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace

LEVEL = 0.9
_ROUNDING = 1e-9
# Of a sum of rows, relative. Beyond it a table says nothing, and larger numbers would end in infinite intervals.
_MOST_SPREAD = 1.0


@dataclass(frozen=True, slots=True)
class LatencyEstimate:
    """Latency of one network with its interval.

    Attributes:
        estimated_ms: What the table adds up to.
        low_ms: Lower end of the interval.
        high_ms: Upper end of the interval.
        level: Share of networks whose measured latency lies inside.
    """

    estimated_ms: float
    low_ms: float
    high_ms: float
    level: float


class LatencyEstimator:
    """Adds up a table for the archs of a space.

    Args:
        table: Of the device.
        space: With the number of classes in use: the classifier is a block too.

    Attributes:
        resolutions: Those whose every block has a row, ascending.
        missing: Blocks without a row at each other resolution of the space.
        cost: Calibrated milliseconds of populations; infinite at resolutions that are not covered.
        calibration: The table's, or the identity.
        energy: Millijoules of populations, the plain sum of the rows: a calibration is of latencies and does not apply.
            Infinite at all resolutions but `energy_resolutions`; None where there are none.
        energy_resolutions: Those of `resolutions` at which every block's row has an energy, ascending.

    Raises:
        DeviceMismatchError: The table belongs to another space.
        MissingEntryError: No resolution is complete; carries the missing blocks of the most complete one.
        TableFormatError: The calibration would make small archs cost less than nothing.
    """

    def __init__(self, table: LatencyTable, space: SearchSpace) -> None:
        if table.space != space.name:
            raise DeviceMismatchError(
                f"The table of '{table.device.device_id}' is for the space '{table.space}', not for '{space.name}'. "
                "Register or measure a table for this space."
            )
        by_resolution = missing_blocks(table, space)
        self.table = table
        self.space = space
        self.calibration = table.calibration or Calibration()
        self.resolutions = tuple(resolution for resolution, blocks in by_resolution.items() if not blocks)
        self.missing = {resolution: blocks for resolution, blocks in by_resolution.items() if blocks}
        if not self.resolutions:
            nearest = min(self.missing, key=lambda resolution: len(self.missing[resolution]))
            raise self._missing_entry(nearest)
        fewest = _fewest_blocks(space)
        least_ms = self.calibration.per_block_ms * fewest
        # A fit that ends where nothing is left is off by a rounding error.
        if self.calibration.call_ms + least_ms < -_ROUNDING * least_ms:
            raise TableFormatError(
                f"The calibration of '{table.device.device_id}' takes {-self.calibration.call_ms:g} ms off every call, "
                f"more than the {fewest} blocks of the smallest arch add at {self.calibration.per_block_ms:g} ms each. "
                "Measure whole networks again, small ones among them."
            )
        at = {
            size: {spec: self._block_ms(stats) for spec, stats in rows.items()} for size, rows in table.rows_at.items()
        }
        self.cost = AdditiveCost(
            space, lambda spec: self._block_ms(table.rows.get(spec)), fixed=self.calibration.call_ms, costs_at=at
        )
        energies = energies_by_resolution(table, space)
        self.energy_resolutions = tuple(energies)
        self.energy = AdditiveCost(space, lambda _: inf, costs_at=energies) if energies else None

    def estimate(self, archs: Sequence[Arch], *, level: float = LEVEL) -> list[LatencyEstimate]:
        """Latencies of archs, in their order.

        Args:
            archs: Of resolutions the table covers; none give an empty list.
            level: Share of networks the interval shall hold, between 0 and 1, exclusive.

        Raises:
            MissingEntryError: The table does not cover an arch's resolution.
            InvalidArchError: An arch lies outside the space.
            InvalidSettingError: The level is out of range.
        """
        low, high = self.ratio_at((1 - level) / 2), self.ratio_at((1 + level) / 2)
        if not archs:
            return []
        estimated = self.cost.of(archs)
        for arch in archs:
            if arch.resolution in self.missing:
                raise self._missing_entry(arch.resolution)
        return [
            LatencyEstimate(estimated_ms=ms, low_ms=ms * low, high_ms=ms * high, level=level)
            for ms in map(float, estimated)
        ]

    def ratio_at(self, quantile: float) -> float:
        """Measured over estimated latency at a confidence; see `Calibration.ratio_at`."""
        return self.calibration.ratio_at(quantile, row_spread=self.row_spread)

    @cached_property
    def row_spread(self) -> float:
        """Standard deviation of a sum of rows between repetitions, relative: the largest of a few archs.

        Rows are taken as independent, and more runs do not narrow it: they were timed on the same evening.
        """
        ends = (self.space.largest(), self.space.smallest())
        spreads = [
            self._spread_of(replace(arch, resolution=resolution)) for arch in ends for resolution in self.resolutions
        ]
        return min(max(spreads), _MOST_SPREAD)

    def _spread_of(self, arch: Arch) -> float:
        stats = [self.table.stats_of(spec, resolution=arch.resolution) for spec in blocks_of(self.space, arch)]
        known = [one for one in stats if one is not None]
        return hypot(*(one.std_ms for one in known)) / fsum(one.value_ms for one in known)

    def _block_ms(self, stats: LatencyStats | None) -> float:
        if stats is None:
            return inf
        return self.calibration.per_block_ms + self.calibration.slope * stats.value_ms

    def _missing_entry(self, resolution: int) -> MissingEntryError:
        missing = self.missing[resolution]
        device_id = self.table.device.device_id
        covered = f"the resolutions {list(self.resolutions)}" if self.resolutions else "no resolution"
        return MissingEntryError(
            f"The table of '{device_id}' covers {covered} of '{self.space.name}'. At {resolution} pixels "
            f"{len(missing)} blocks have no row, such as {', '.join(map(str, missing[:3]))}. Add these rows or choose "
            "another resolution.",
            device_id=device_id,
            missing=missing,
        )


def missing_blocks(table: LatencyTable, space: SearchSpace) -> dict[int, tuple[BlockSpec, ...]]:
    """Blocks without a row at each resolution of a space, sorted; empty where the resolution is complete."""
    return {
        resolution: tuple(sorted(spec for spec in blocks if table.stats_of(spec, resolution=resolution) is None))
        for resolution, blocks in blocks_by_resolution(space).items()
    }


def energies_by_resolution(table: LatencyTable, space: SearchSpace) -> dict[int, dict[BlockSpec, float]]:
    """Millijoules of every block of a space at each resolution where all of them are known, ascending."""
    if not table.energy_mj and not table.energy_mj_at:
        return {}
    energies: dict[int, dict[BlockSpec, float]] = {}
    for resolution, blocks in blocks_by_resolution(space).items():
        known = {spec: table.energy_of(spec, resolution=resolution) for spec in blocks}
        at = {spec: energy_mj for spec, energy_mj in known.items() if energy_mj is not None}
        if len(at) == len(blocks):
            energies[resolution] = at
    return energies


def blocks_by_resolution(space: SearchSpace) -> dict[int, set[BlockSpec]]:
    """The distinct blocks of a space at each of its resolutions."""
    blocks: dict[int, set[BlockSpec]] = {resolution: set() for resolution in space.resolutions}
    for index in range(len(space.positions)):
        for choices, spec in space.blocks_at(index):
            blocks[space.resolutions[choices[0]]].add(spec)
    return blocks


def recalibrate_table(
    table: LatencyTable, space: SearchSpace, archs: Sequence[Arch], *, measured_ms: Sequence[float]
) -> LatencyTable:
    """Fit a table's calibration to whole networks that were measured; the rows stay.

    Args:
        table: With or without a calibration.
        space: With the number of classes in use.
        archs: At least 6, of resolutions the table covers.
        measured_ms: Their latencies on the table's device.

    Returns:
        A new table; `source.calibration_networks` says how many networks it saw.

    Raises:
        InvalidSettingError: Too few networks, or lengths that differ, or a latency that is not positive.
        MissingEntryError: The table does not cover an arch's resolution.
    """
    if len(archs) != len(measured_ms):
        raise InvalidSettingError(f"Each of the {len(archs)} archs needs one latency, got {len(measured_ms)}.")
    plain = LatencyEstimator(table.with_calibration(None), space)
    sums = [estimate.estimated_ms for estimate in plain.estimate(archs)]
    counts = [len(blocks_of(space, arch)) for arch in archs]
    return table.with_calibration(
        fit_calibration(sums, counts, measured_ms, fewest_blocks=_fewest_blocks(space)), calibration_networks=len(archs)
    )


def _fewest_blocks(space: SearchSpace) -> int:
    return len(blocks_of(space, space.smallest()))
