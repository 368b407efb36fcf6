from __future__ import annotations

from dataclasses import replace

from latency_tables.calibration import Calibration
from latency_tables.check import check_table
from latency_tables.device import DeviceProfile
from latency_tables.table import LatencyStats, LatencyTable
from supernet.spaces.blocks import BlockKind, BlockSpec
from supernet.spaces.space import SearchSpace


def changed(table: LatencyTable, spec: BlockSpec, stats: LatencyStats) -> LatencyTable:
    return replace(table, rows={**table.rows, spec: stats})


def test_a_complete_calibrated_table_has_nothing_to_report(table: LatencyTable, small_space: SearchSpace) -> None:
    report = check_table(table.with_calibration(Calibration(residuals=(0.9, 1.1))), small_space)
    assert report.to_dict() == {
        "rows": len(small_space.distinct_blocks()),
        "missing": 0,
        "monotonicity_violations": 0,
        "copied_from": [],
        "noisy_rows": 0,
        "errors": [],
        "warnings": [],
    }


def test_missing_calibration_is_a_warning(table: LatencyTable, small_space: SearchSpace) -> None:
    assert "not calibrated" in check_table(table, small_space).to_dict()["warnings"][0]


def test_energies_that_some_rows_lack_are_a_warning(table: LatencyTable, small_space: SearchSpace) -> None:
    def warnings_of(energy_mj: dict[BlockSpec, float]) -> list[str]:
        report = check_table(replace(table, energy_mj=energy_mj), small_space)
        return [warning for warning in report.warnings if "energies" in warning]

    full = dict.fromkeys(table.rows, 1.0)
    assert warnings_of({}) == warnings_of(full) == []
    (one,) = warnings_of({spec: energy for spec, energy in full.items() if spec.in_size != 24})
    assert "only the resolutions [16] have one for every block" in one
    (none,) = warnings_of({next(iter(full)): 1.0})
    assert "no resolution has one for every block" in none


def test_rows_missing_at_one_resolution_are_a_warning(table: LatencyTable, small_space: SearchSpace) -> None:
    stem = next(spec for spec in table.rows if spec.in_size == 24)
    report = check_table(replace(table, rows={s: t for s, t in table.rows.items() if s != stem}), small_space)
    assert report.missing == (stem,)
    assert report.errors == ()
    assert any("[16]" in warning and "1 blocks" in warning for warning in report.warnings)


def test_rows_missing_at_every_resolution_are_an_error(table: LatencyTable, small_space: SearchSpace) -> None:
    report = check_table(table, small_space.with_classes(7))  # the classifier is a block of every resolution
    assert len(report.missing) == 1
    assert "No resolution" in report.errors[0]
    assert any("belong to no block" in warning for warning in report.warnings)


def test_a_table_of_another_space_is_an_error(table: LatencyTable, small_space: SearchSpace) -> None:
    report = check_table(replace(table, space="other"), small_space)
    assert "'other'" in report.errors[0]


def inverted(table: LatencyTable) -> list[BlockSpec]:
    return [spec for spec in table.rows if spec.kind is BlockKind.INVERTED and spec.stride == 1]


def test_a_larger_kernel_that_is_faster_is_a_violation(table: LatencyTable, small_space: SearchSpace) -> None:
    larger = next(spec for spec in inverted(table) if spec.kernel_size == 5)
    smaller = replace(larger, kernel_size=3)
    fast = changed(table, larger, LatencyStats(table.rows[smaller].value_ms * 0.5, 1e-6, 10))
    report = check_table(fast, small_space)
    assert (smaller, larger) in report.monotonicity_violations
    assert any("A larger block is faster" in warning for warning in report.warnings)


def test_a_wider_block_that_is_faster_is_a_violation(table: LatencyTable, small_space: SearchSpace) -> None:
    wide = max(inverted(table), key=lambda spec: (spec.in_size, -spec.kernel_size, spec.mid_chs))
    report = check_table(changed(table, wide, LatencyStats(1e-4, 1e-6, 10)), small_space)
    assert any(larger == wide and smaller.mid_chs < wide.mid_chs for smaller, larger in report.monotonicity_violations)


def test_a_difference_inside_the_noise_is_no_violation(table: LatencyTable, small_space: SearchSpace) -> None:
    larger = next(spec for spec in inverted(table) if spec.kernel_size == 5)
    value_ms = table.rows[replace(larger, kernel_size=3)].value_ms * 0.9
    report = check_table(changed(table, larger, LatencyStats(value_ms, value_ms, 10)), small_space)
    assert report.monotonicity_violations == ()
    assert report.noisy_rows == (larger,)


def test_each_resolution_is_checked_with_its_own_rows(table: LatencyTable, small_space: SearchSpace) -> None:
    larger = next(spec for spec in inverted(table) if spec.kernel_size == 5)
    smaller = replace(larger, kernel_size=3)
    at = {smaller: LatencyStats(1.0), larger: LatencyStats(0.5, 0.1)}
    report = check_table(replace(table, rows_at={16: at, 24: at, 160: table.rows}), small_space)
    assert report.rows == 2 * len(table.rows) + 4
    assert report.missing == ()
    assert report.monotonicity_violations == ((smaller, larger), (smaller, larger))
    assert report.noisy_rows == (larger, larger)
    assert sum("takes 0.5 ms" in warning for warning in report.warnings) == 2
    # `small` has no 160, and each block of its elastic stage stands at one of its resolutions only.
    assert any(f"{len(table.rows) + 2} rows belong to no block" in warning for warning in report.warnings)


def test_blocks_a_resolution_has_no_row_for_are_missing(table: LatencyTable, small_space: SearchSpace) -> None:
    report = check_table(replace(table, rows={}, rows_at={16: table.rows}), small_space)
    assert any("[16] are complete" in warning for warning in report.warnings)
    assert {spec.in_size for spec in report.missing} >= {24, 1}
    assert report.errors == ()


def test_copied_rows_of_one_resolution_are_reported(
    table: LatencyTable, small_space: SearchSpace, device: DeviceProfile
) -> None:
    placed = replace(table, rows={}, rows_at={16: table.rows})
    copy = replace(placed, device=replace(device, device_id="copycat"))
    assert check_table(copy, small_space, others=[placed]).copied_from == ("board-1t",)
    assert check_table(copy, small_space, others=[table]).copied_from == ()


def test_rows_copied_from_another_device_are_reported(
    table: LatencyTable, small_space: SearchSpace, device: DeviceProfile
) -> None:
    copy = replace(table, device=replace(device, device_id="copycat"))
    honest = replace(
        table,
        device=replace(device, device_id="honest"),
        rows={spec: replace(stats, value_ms=stats.value_ms * 1.01) for spec, stats in table.rows.items()},
    )
    report = check_table(copy, small_space, others=[table, honest, copy])
    assert report.copied_from == ("board-1t",)
    assert any("copy is no measurement" in warning for warning in report.warnings)
