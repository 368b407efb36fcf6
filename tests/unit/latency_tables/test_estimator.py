from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latency_tables.agreement import check_agreement, spearman
from latency_tables.calibration import Calibration
from latency_tables.errors import (
    DeviceMismatchError,
    InvalidSettingError,
    LatencyError,
    MissingEntryError,
    TableFormatError,
)
from latency_tables.estimator import LatencyEstimator, recalibrate_table
from latency_tables.table import LatencyStats, LatencyTable
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind
from supernet.spaces.costs import blocks_of
from supernet.spaces.space import SearchSpace


@pytest.fixture
def archs(small_space: SearchSpace, rng: np.random.Generator) -> list[Arch]:
    return [small_space.sample(rng) for _ in range(20)]


def sums(table: LatencyTable, space: SearchSpace, archs: list[Arch]) -> list[float]:
    return [sum(table.rows[spec].value_ms for spec in blocks_of(space, arch)) for arch in archs]


def test_without_calibration_an_estimate_is_the_sum_of_rows(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    estimates = LatencyEstimator(table, small_space).estimate(archs)
    assert [estimate.estimated_ms for estimate in estimates] == pytest.approx(sums(table, small_space, archs))
    assert estimates[0].level == 0.9
    assert estimates[0].low_ms == pytest.approx(0.8 * estimates[0].estimated_ms)
    assert estimates[0].high_ms == pytest.approx(1.25 * estimates[0].estimated_ms)


def test_rows_that_spread_widen_what_nobody_measured(table: LatencyTable, small_space: SearchSpace) -> None:
    noisy = replace(table, rows={spec: replace(stats, std_ms=stats.value_ms) for spec, stats in table.rows.items()})
    arch = small_space.largest()
    calm, wide = (LatencyEstimator(one, small_space).estimate([arch])[0] for one in (table, noisy))
    assert wide.estimated_ms == calm.estimated_ms
    assert wide.low_ms < 0.75 * calm.low_ms
    assert wide.high_ms > 1.3 * calm.high_ms
    spread = LatencyEstimator(noisy, small_space).row_spread
    assert 1 / len(blocks_of(small_space, arch)) ** 0.5 < spread < 1, "most where one row is most of the sum"


def test_a_spread_of_other_units_does_not_end_in_infinity(table: LatencyTable, small_space: SearchSpace) -> None:
    wrong = replace(table, rows={spec: replace(stats, std_ms=1e6) for spec, stats in table.rows.items()})
    (estimate,) = LatencyEstimator(wrong, small_space).estimate([small_space.largest()], level=0.999)
    assert 0 < estimate.low_ms < estimate.estimated_ms < estimate.high_ms < 1e3 * estimate.estimated_ms


def test_residuals_hold_the_spread_of_rows_already(table: LatencyTable, small_space: SearchSpace) -> None:
    calibrated = table.with_calibration(Calibration(residuals=tuple(np.linspace(0.9, 1.1, 30))))
    noisy = replace(
        calibrated, rows={spec: replace(stats, std_ms=stats.value_ms) for spec, stats in table.rows.items()}
    )
    assert LatencyEstimator(noisy, small_space).ratio_at(0.95) == LatencyEstimator(calibrated, small_space).ratio_at(
        0.95
    )


def test_calibration_adds_call_and_blocks_and_scales_rows(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    calibrated = table.with_calibration(Calibration(0.5, 0.01, 2.0, tuple(np.linspace(0.9, 1.2, 40))))
    estimator = LatencyEstimator(calibrated, small_space)
    expected = [
        0.5 + 0.01 * len(blocks_of(small_space, arch)) + 2 * total
        for arch, total in zip(archs, sums(table, small_space, archs), strict=True)
    ]
    assert estimator.cost.of(archs) == pytest.approx(expected)
    (estimate,) = estimator.estimate(archs[:1], level=0.5)
    assert estimate.low_ms == pytest.approx(expected[0] * estimator.ratio_at(0.25))
    assert estimate.high_ms == pytest.approx(expected[0] * estimator.ratio_at(0.75))


def test_a_calibration_that_gives_latencies_for_nothing_is_refused(
    table: LatencyTable, small_space: SearchSpace
) -> None:
    fewest = len(blocks_of(small_space, small_space.smallest()))
    just = table.with_calibration(Calibration(-0.01 * fewest, 0.01, 1.0))
    (least,) = LatencyEstimator(just, small_space).estimate([small_space.smallest()])
    assert least.estimated_ms == pytest.approx(sums(table, small_space, [small_space.smallest()])[0])
    with pytest.raises(TableFormatError, match=r"takes 5 ms off every call, more than the \d+ blocks"):
        LatencyEstimator(table.with_calibration(Calibration(-5.0, 0.01, 1.0)), small_space)


def test_a_confidence_is_a_smaller_budget(table: LatencyTable, small_space: SearchSpace, archs: list[Arch]) -> None:
    estimator = LatencyEstimator(table.with_calibration(Calibration(residuals=(0.9, 1.0, 1.1))), small_space)
    budget_ms, confidence = 0.2, 0.95
    upper = np.array([estimate.high_ms for estimate in estimator.estimate(archs, level=2 * confidence - 1)])
    assert ((upper <= budget_ms) == (estimator.cost.of(archs) <= budget_ms / estimator.ratio_at(confidence))).all()


def test_no_archs_give_no_estimates(table: LatencyTable, small_space: SearchSpace) -> None:
    assert LatencyEstimator(table, small_space).estimate([]) == []


def test_a_level_out_of_range_is_refused(table: LatencyTable, small_space: SearchSpace, archs: list[Arch]) -> None:
    with pytest.raises(InvalidSettingError):
        LatencyEstimator(table, small_space).estimate(archs, level=1.0)


def test_a_partly_covered_resolution_is_excluded(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    stem = next(spec for spec in table.rows if spec.in_size == 24)
    estimator = LatencyEstimator(
        replace(table, rows={spec: stats for spec, stats in table.rows.items() if spec != stem}), small_space
    )
    assert estimator.resolutions == (16,)
    assert estimator.missing == {24: (stem,)}
    covered = np.array([arch.resolution == 16 for arch in archs])
    assert covered.any()
    assert not covered.all()
    assert (np.isfinite(estimator.cost.of(archs)) == covered).all()
    estimator.estimate([arch for arch in archs if arch.resolution == 16])
    with pytest.raises(MissingEntryError, match="At 24 pixels 1 blocks"):
        estimator.estimate(archs)


def test_rows_of_a_resolution_go_before_the_others(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    head = next(spec for spec in table.rows if spec.kind is BlockKind.LINEAR)
    added = LatencyStats(table.rows[head].value_ms + 3.0)
    calibrated = table.with_calibration(Calibration(0.5, 0.25, 2.0))
    plain = LatencyEstimator(calibrated, small_space).cost.of(archs)
    estimator = LatencyEstimator(replace(calibrated, rows_at={24: {head: added}}), small_space)
    more = [2.0 * 3.0 if arch.resolution == 24 else 0.0 for arch in archs]
    assert estimator.cost.of(archs) - plain == pytest.approx(more)
    assert recalibrate_table(estimator.table, small_space, archs, measured_ms=plain.tolist()).rows_at == {
        24: {head: added}
    }


def test_rows_of_another_resolution_do_not_fill_gaps(table: LatencyTable, small_space: SearchSpace) -> None:
    head = next(spec for spec in table.rows if spec.kind is BlockKind.LINEAR)
    rest = {spec: stats for spec, stats in table.rows.items() if spec != head}
    estimator = LatencyEstimator(replace(table, rows=rest, rows_at={24: {head: table.rows[head]}}), small_space)
    assert estimator.resolutions == (24,)
    assert estimator.missing == {16: (head,)}


def with_energies(table: LatencyTable) -> LatencyTable:
    """Millijoules of a block: the number of its row."""
    return replace(table, energy_mj={spec: float(number) for number, spec in enumerate(table.rows, 1)})


def test_energy_is_the_sum_of_rows_without_calibration(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    calibrated = with_energies(table).with_calibration(Calibration(0.5, 0.01, 2.0))
    estimator = LatencyEstimator(calibrated, small_space)
    assert estimator.energy is not None
    assert estimator.energy_resolutions == estimator.resolutions == (16, 24)
    expected = [sum(calibrated.energy_mj[spec] for spec in blocks_of(small_space, arch)) for arch in archs]
    assert estimator.energy.of(archs).tolist() == expected


def test_a_table_without_energies_gives_none(table: LatencyTable, small_space: SearchSpace) -> None:
    estimator = LatencyEstimator(table, small_space)
    assert estimator.energy is None
    assert estimator.energy_resolutions == ()


def test_energy_is_infinite_at_a_resolution_where_a_row_lacks_it(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    full = with_energies(table)
    # The deepest block, which not every arch runs: all archs of the resolution are refused nevertheless.
    last = max((spec for spec in table.rows if spec.in_size == 6), key=lambda spec: (spec.shortcut, spec.mid_chs))
    partial = replace(full, energy_mj={spec: energy for spec, energy in full.energy_mj.items() if spec != last})
    estimator = LatencyEstimator(partial, small_space)
    assert estimator.energy is not None
    assert estimator.resolutions == (16, 24)
    assert estimator.energy_resolutions == (16,)
    at_24 = [arch.resolution == 24 for arch in archs]
    assert any(last not in blocks_of(small_space, arch) for arch in archs if arch.resolution == 24)
    assert np.isinf(estimator.energy.of(archs)).tolist() == at_24


def test_energies_that_are_complete_nowhere_are_none(table: LatencyTable, small_space: SearchSpace) -> None:
    full = with_energies(table)
    head = next(spec for spec in table.rows if spec.kind is BlockKind.LINEAR)
    partial = replace(full, energy_mj={spec: energy for spec, energy in full.energy_mj.items() if spec != head})
    assert LatencyEstimator(partial, small_space).energy is None


def test_energy_comes_from_the_row_that_the_latency_comes_from(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    full = with_energies(table)
    head = next(spec for spec in table.rows if spec.kind is BlockKind.LINEAR)
    rows_at = {24: {head: table.rows[head]}}
    plain = LatencyEstimator(full, small_space).energy
    special = LatencyEstimator(replace(full, rows_at=rows_at, energy_mj_at={24: {head: 1000.0}}), small_space).energy
    assert plain is not None
    assert special is not None
    more = [1000.0 - full.energy_mj[head] if arch.resolution == 24 else 0.0 for arch in archs]
    assert (special.of(archs) - plain.of(archs)).tolist() == more
    without = LatencyEstimator(replace(full, rows_at=rows_at), small_space)
    assert without.energy_resolutions == (16,)


def test_energy_is_not_known_where_latency_is_not(table: LatencyTable, small_space: SearchSpace) -> None:
    full = with_energies(table)
    stem = next(spec for spec in table.rows if spec.in_size == 24)
    rows, energy_mj = ({s: v for s, v in old.items() if s != stem} for old in (full.rows, full.energy_mj))
    estimator = LatencyEstimator(replace(full, rows=rows, energy_mj=energy_mj), small_space)
    assert estimator.energy_resolutions == estimator.resolutions == (16,)


def test_no_complete_resolution_names_device_and_blocks(table: LatencyTable, small_space: SearchSpace) -> None:
    with pytest.raises(MissingEntryError) as caught:
        LatencyEstimator(table, small_space.with_classes(7))
    error = caught.value
    assert error.device_id == "board-1t"
    assert [spec.out_chs for spec in error.missing] == [7]
    assert "1 blocks have no row" in str(error)
    assert str(error)[0] != "'"
    assert isinstance(error, KeyError)
    assert isinstance(error, LatencyError)


def test_a_table_of_another_space_is_refused(table: LatencyTable, small_space: SearchSpace) -> None:
    with pytest.raises(DeviceMismatchError, match="'other', not for 'small'"):
        LatencyEstimator(replace(table, space="other"), small_space)


def test_recalibration_follows_measured_networks(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    measured = [0.02 + 1.3 * total for total in sums(table, small_space, archs)]
    calibrated = recalibrate_table(table, small_space, archs, measured_ms=measured)
    assert calibrated.rows == table.rows
    assert calibrated.source["calibration_networks"] == 20
    assert LatencyEstimator(calibrated, small_space).cost.of(archs) == pytest.approx(measured)
    again = recalibrate_table(calibrated, small_space, archs, measured_ms=measured)
    assert again.calibration is not None
    assert again.calibration.slope == pytest.approx(1.3)


def test_recalibration_needs_a_latency_for_each_arch(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    with pytest.raises(InvalidSettingError, match="needs one latency"):
        recalibrate_table(table, small_space, archs, measured_ms=[1.0])


def test_agreement_of_exact_estimates_is_perfect(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    report = check_agreement(LatencyEstimator(table, small_space), archs, sums(table, small_space, archs))
    assert report.n == 20
    assert report.mape == pytest.approx(0, abs=1e-12)
    assert report.within_10_percent == 1
    assert report.spearman == pytest.approx(1)
    assert report.coverage_90 == 1


def test_agreement_counts_what_is_off(table: LatencyTable, small_space: SearchSpace, archs: list[Arch]) -> None:
    measured = np.array(sums(table, small_space, archs))
    measured[:5] /= 1.5  # estimated half as much again
    report = check_agreement(LatencyEstimator(table, small_space), archs, measured.tolist())
    assert report.mape == pytest.approx(5 / 20 * 0.5)
    assert report.within_10_percent == report.coverage_90 == 0.75
    assert set(report.to_dict()) == {"n", "mape", "within_10_percent", "spearman", "coverage_90"}


@pytest.mark.parametrize("measured", [[], [1.0] * 19, [1.0] * 19 + [0.0], [1.0] * 19 + [float("nan")]])
def test_agreement_refuses_what_cannot_be_compared(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch], measured: list[float]
) -> None:
    with pytest.raises(InvalidSettingError):
        check_agreement(LatencyEstimator(table, small_space), archs if measured else [], measured)


def test_spearman_shares_ranks_among_ties() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([9.0, 4, 1])) == pytest.approx(-1)
    # Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3, by hand: 4.5 / sqrt(4.5 * 5).
    assert spearman(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(4.5 / np.sqrt(22.5))
    assert spearman(np.array([1.0, 1]), np.array([1.0, 2])) is None
