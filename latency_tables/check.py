"""check_table: what a latency table lacks and what looks wrong in it, before anything relies on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from math import hypot
from typing import TYPE_CHECKING, Any

from latency_tables.estimator import blocks_by_resolution, energies_by_resolution, missing_blocks
from supernet.spaces.blocks import BlockKind
from supernet.spaces.stage import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from latency_tables.table import LatencyStats, LatencyTable
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace

    Rows = Mapping[BlockSpec, LatencyStats]

NOISY_SHARE = 0.1
# A larger block is called faster only beyond this share and beyond twice the spread of both rows.
FASTER_SHARE = 0.97
COPIED_SHARE = 0.9
MIN_SHARED_ROWS = 5


@dataclass(frozen=True, slots=True)
class TableReport:
    """What was found; the table is usable for its space if `errors` is empty.

    Attributes:
        rows: Number of rows. A block that several resolutions have rows for is looked at in each of them.
        missing: Blocks of the space without a row, sorted.
        monotonicity_violations: Pairs (smaller, larger) of blocks that differ only in kernel size or inner width,
            where the larger one is measurably faster.
        copied_from: Ids of other devices whose tables hold the same numbers to the digit.
        noisy_rows: Blocks whose spread is above a tenth of their latency.
        errors: Why the table cannot be used for the space.
        warnings: What to look at before trusting it.
    """

    rows: int
    missing: tuple[BlockSpec, ...]
    monotonicity_violations: tuple[tuple[BlockSpec, BlockSpec], ...]
    copied_from: tuple[str, ...]
    noisy_rows: tuple[BlockSpec, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Counts, ids and messages as JSON values."""
        return {
            "rows": self.rows,
            "missing": len(self.missing),
            "monotonicity_violations": len(self.monotonicity_violations),
            "copied_from": list(self.copied_from),
            "noisy_rows": len(self.noisy_rows),
            "errors": list(self.errors),
            "warnings": list(self.warnings),
        }


def space_of(table: LatencyTable, space: SearchSpace) -> SearchSpace:
    """The space with the number of classes the table's classifier was measured with.

    A table belongs to a space by its name; supernets of that space differ in their classes. Unchanged where the table
    has the space's own classifier, none, several, or one larger than any space may have.
    """
    classes = {spec.out_chs for _, rows in table.row_groups() for spec in rows if spec.kind is BlockKind.LINEAR}
    if space.classes in classes or len(classes) != 1 or max(classes) > LARGEST["widths"]:
        return space
    return space.with_classes(classes.pop())


def check_table(table: LatencyTable, space: SearchSpace, *, others: Iterable[LatencyTable] = ()) -> TableReport:
    """Compare a table with a space and, for copied rows, with tables of other devices.

    Args:
        table: To look at.
        space: With the number of classes in use.
        others: Tables known already; those of the same device are skipped.
    """
    by_resolution = missing_blocks(table, space)
    complete = [resolution for resolution, blocks in by_resolution.items() if not blocks]
    missing = tuple(sorted({block for blocks in by_resolution.values() for block in blocks}))
    violations = [found for _, rows in table.row_groups() for found in _monotonicity_violations(rows)]
    noisy = tuple(
        spec
        for _, rows in table.row_groups()
        for spec, stats in rows.items()
        if stats.std_ms > NOISY_SHARE * stats.value_ms
    )
    copied = _copied_from(table, others)
    foreign = _n_foreign(table, space)
    errors, warnings = [], []
    if table.space != space.name:
        errors.append(f"The table is for the space '{table.space}', not for '{space.name}'.")
    if not complete:
        errors.append(f"No resolution of '{space.name}' is complete: {describe_missing(missing)}.")
    elif missing:
        warnings.append(f"Only the resolutions {complete} are complete: {describe_missing(missing)}.")
    if foreign:
        warnings.append(f"{foreign} rows belong to no block of '{space.name}'.")
    for rows, smaller, larger in violations[:3]:
        warnings.append(
            f"A larger block is faster: {larger} takes {rows[larger].value_ms:.4g} ms, {smaller} takes "
            f"{rows[smaller].value_ms:.4g} ms."
        )
    if noisy:
        warnings.append(
            f"{len(noisy)} rows spread by more than {NOISY_SHARE:.0%} of their latency; measure them again."
        )
    if copied:
        warnings.append(f"Rows equal those of {list(copied)} to the digit: a copy is no measurement.")
    if table.calibration is None or not table.calibration.residuals:
        warnings.append(
            "The table is not calibrated with whole networks: intervals are the default 0.8 to 1.25 of the estimate, "
            "wider where rows spread."
        )
    with_energy = list(energies_by_resolution(table, space))
    if (table.energy_mj or table.energy_mj_at) and with_energy != complete:
        where = f"only the resolutions {with_energy} have" if with_energy else "no resolution has"
        warnings.append(f"Rows lack energies: {where} one for every block, and only there are they added up.")
    pairs = tuple((smaller, larger) for _, smaller, larger in violations)
    return TableReport(table.n_rows, missing, pairs, copied, noisy, tuple(errors), tuple(warnings))


def describe_missing(missing: tuple[BlockSpec, ...]) -> str:
    """How many blocks are missing, and the first few of them."""
    more = ", …" if len(missing) > 3 else ""
    return f"{len(missing)} blocks have no row, such as {', '.join(map(str, missing[:3]))}{more}"


def _n_foreign(table: LatencyTable, space: SearchSpace) -> int:
    at = blocks_by_resolution(space)
    every = set().union(*at.values())
    return sum(
        len(rows.keys() - (every if resolution is None else at.get(resolution, set())))
        for resolution, rows in table.row_groups()
    )


def _monotonicity_violations(rows: Rows) -> list[tuple[Rows, BlockSpec, BlockSpec]]:
    groups: dict[tuple[str, BlockSpec], list[BlockSpec]] = {}
    for spec in rows:
        groups.setdefault(("kernel_size", replace(spec, kernel_size=0)), []).append(spec)
        # Squeeze-excite follows the inner width.
        groups.setdefault(("mid_chs", replace(spec, mid_chs=0, se_chs=int(spec.se_chs > 0))), []).append(spec)
    found = []
    for (dimension, _), specs in groups.items():
        for smaller, larger in combinations(sorted(specs, key=lambda spec: int(getattr(spec, dimension))), 2):
            few, many = rows[smaller], rows[larger]
            noise_ms = 2 * hypot(few.std_ms, many.std_ms)
            if many.value_ms < min(FASTER_SHARE * few.value_ms, few.value_ms - noise_ms):
                found.append((smaller, larger))
    return [(rows, smaller, larger) for smaller, larger in sorted(found)]


def _copied_from(table: LatencyTable, others: Iterable[LatencyTable]) -> tuple[str, ...]:
    copied = set()
    for other in others:
        pairs = ((rows, other.rows if at is None else other.rows_at.get(at, {})) for at, rows in table.row_groups())
        shared = [(ours[spec], theirs[spec]) for ours, theirs in pairs for spec in ours if spec in theirs]
        if other.device.device_id == table.device.device_id or len(shared) < MIN_SHARED_ROWS:
            continue
        equal = sum(stats.value_ms == known.value_ms for stats, known in shared)
        if equal >= COPIED_SHARE * len(shared):
            copied.add(other.device.device_id)
    return tuple(sorted(copied))
