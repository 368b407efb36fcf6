"""Networks a device reports: the table's estimates follow them, its rows stay."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from latency_tables.calibration import Calibration
from latency_tables.errors import InvalidSettingError, MissingEntryError, TableFormatError
from latency_tables.estimator import LatencyEstimator, recalibrate_table
from latency_tables.reports import BEFORE, REPORTED, report_networks, reported_networks
from latency_tables.table import LatencyTable, parse_table
from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch
from supernet.spaces.costs import blocks_of
from supernet.spaces.space import SearchSpace


@pytest.fixture
def archs(small_space: SearchSpace, rng: np.random.Generator) -> list[Arch]:
    """Twenty different ones."""
    ends = (small_space.largest(), small_space.smallest())
    return list(dict.fromkeys([*ends, *(small_space.sample(rng) for _ in range(200))]))[:20]


@pytest.fixture
def calibrated(table: LatencyTable, small_space: SearchSpace, archs: list[Arch]) -> LatencyTable:
    """A table whose calibration was fitted to 20 networks that are within 2 % of its estimates."""
    noise = np.random.default_rng(3).uniform(0.98, 1.02, len(archs))
    measured = LatencyEstimator(table, small_space).cost.of(archs) * 1.2 * noise
    return recalibrate_table(table, small_space, archs, measured_ms=measured.tolist())


def estimated(table: LatencyTable, space: SearchSpace, archs: list[Arch]) -> list[float]:
    return [estimate.estimated_ms for estimate in LatencyEstimator(table, space).estimate(archs)]


def test_without_a_calibration_a_few_networks_scale_the_estimates(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    before = estimated(table, small_space, archs)
    outcome = report_networks(table, small_space, archs[:2], measured_ms=[1.5 * before[0], 1.5 * before[1]])
    assert estimated(outcome.table, small_space, archs) == pytest.approx([1.5 * ms for ms in before])
    assert (outcome.networks, outcome.refitted) == (2, False)
    assert outcome.agreement.mape == pytest.approx(1 / 3), "judged by the table that had not seen them"
    assert outcome.table.rows == table.rows
    ratio = LatencyEstimator(outcome.table, small_space).ratio_at(0.95)
    assert ratio == pytest.approx(1.25), "two networks that agree promise nothing of others"


def test_networks_of_a_calibration_outweigh_a_few_reported_ones(
    calibrated: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    before = estimated(calibrated, small_space, archs)
    outcome = report_networks(calibrated, small_space, archs[:5], measured_ms=[1.1 * ms for ms in before[:5]])
    scale = 1.1 ** (5 / 25)
    assert estimated(outcome.table, small_space, archs) == pytest.approx([scale * ms for ms in before])
    assert outcome.table.calibration is not None
    residuals = outcome.table.calibration.residuals
    assert len(residuals) == 25
    assert sum(ratio > 1.07 for ratio in residuals) == 5, "the reported ones widen the interval"


@pytest.mark.parametrize("name", ["table", "calibrated"])
def test_reports_one_by_one_give_what_they_give_together(
    name: str, request: pytest.FixtureRequest, small_space: SearchSpace, archs: list[Arch]
) -> None:
    before: LatencyTable = request.getfixturevalue(name)
    measured = [
        ratio * ms for ratio, ms in zip((1.1, 0.95, 1.2), estimated(before, small_space, archs[:3]), strict=True)
    ]
    together = report_networks(before, small_space, archs[:3], measured_ms=measured).table
    one_by_one = before
    for arch, latency_ms in zip(archs, measured, strict=False):
        one_by_one = report_networks(one_by_one, small_space, [arch], measured_ms=[latency_ms]).table
    assert estimated(one_by_one, small_space, archs) == pytest.approx(estimated(together, small_space, archs))
    assert reported_networks(one_by_one, small_space) == reported_networks(together, small_space)


def test_as_many_networks_as_the_calibration_saw_refit_it(
    calibrated: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    truth = [0.01 + 2 * ms for ms in estimated(calibrated, small_space, archs)]
    first = report_networks(calibrated, small_space, archs[:19], measured_ms=truth[:19])
    assert not first.refitted
    outcome = report_networks(first.table, small_space, archs[19:], measured_ms=truth[19:])
    assert outcome.refitted
    assert outcome.networks == 20
    assert estimated(outcome.table, small_space, archs) == pytest.approx(truth)


def test_networks_of_one_size_are_not_fitted_several_coefficients(
    table: LatencyTable, small_space: SearchSpace, rng: np.random.Generator
) -> None:
    every = list(dict.fromkeys(small_space.sample(rng) for _ in range(500)))
    latencies = dict(zip(every, estimated(table, small_space, every), strict=True))
    middle = float(np.median(list(latencies.values())))
    alike = [arch for arch, ms in latencies.items() if middle / 1.2 < ms < 1.2 * middle]
    # One at either end makes no range.
    chosen = [min(latencies, key=latencies.__getitem__), *alike, max(latencies, key=latencies.__getitem__)]
    assert len(chosen) >= 6
    measured = [1.2 * ms for ms in estimated(table, small_space, chosen)]
    outcome = report_networks(table, small_space, chosen, measured_ms=measured)
    assert not outcome.refitted
    assert estimated(outcome.table, small_space, chosen) == pytest.approx(measured)


def test_of_a_network_reported_again_the_newest_latency_counts(
    calibrated: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    before = estimated(calibrated, small_space, archs)
    measured = [1.1 * before[0], 1.2 * before[1]]
    once = report_networks(calibrated, small_space, archs[:2], measured_ms=measured)
    old = report_networks(calibrated, small_space, archs[1:2], measured_ms=[1.5 * before[1]]).table
    again = report_networks(old, small_space, archs[:2], measured_ms=measured)
    assert again.networks == 2
    assert again.table == once.table
    assert report_networks(once.table, small_space, archs[:2], measured_ms=measured).table == once.table, "idempotent"
    many = report_networks(calibrated, small_space, archs[1:2] * 300, measured_ms=[1.2 * before[1]] * 300)
    assert many.networks == 1
    assert many.table.calibration is not None
    assert len(many.table.calibration.residuals) == 21, "three hundred runs of one network are one network"


def test_what_was_reported_travels_with_the_table(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    measured = estimated(table, small_space, archs)
    reported = report_networks(table, small_space, archs, measured_ms=measured).table
    for text in (reported.to_json(), reported.to_csv()):
        assert list(reported_networks(parse_table(text), small_space).items()) == list(
            zip(map(small_space.canonicalize, archs), measured, strict=True)
        )


def test_only_the_newest_networks_are_kept(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latency_tables.reports.MAX_REPORTED", 5)
    measured = estimated(table, small_space, archs)
    first = report_networks(table, small_space, archs[:8], measured_ms=measured[:8])
    assert list(reported_networks(first.table, small_space)) == archs[3:8]
    second = report_networks(first.table, small_space, [archs[3], archs[9]], measured_ms=[measured[3], measured[9]])
    assert list(reported_networks(second.table, small_space)) == [*archs[5:8], archs[3], archs[9]]


def test_a_calibration_at_its_bound_survives_any_scale(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    # The smallest networks cost their rows alone, which is where a fit may end.
    per_block = 0.02138
    fewest = min(len(blocks_of(small_space, arch)) for arch in archs)
    bound = table.with_calibration(Calibration(-per_block * fewest, per_block, 1.0, (0.9, 1.0, 1.1)))
    (ms,) = estimated(bound, small_space, archs[:1])
    for ratio in np.linspace(0.8, 1.295, 100):
        outcome = report_networks(bound, small_space, archs[:1], measured_ms=[ratio * ms])
        assert np.isfinite(estimated(outcome.table, small_space, archs)).all()


@pytest.mark.parametrize(
    ("measured", "message"),
    [([], "needs one latency"), ([1.0, 2.0], "needs one latency"), ([0.0], "positive"), ([math.nan], "positive")],
)
def test_measurements_no_clock_gives_are_refused(
    table: LatencyTable, small_space: SearchSpace, measured: list[float], message: str
) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        report_networks(table, small_space, [small_space.largest()], measured_ms=measured)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_other_units_are_refused(table: LatencyTable, small_space: SearchSpace, factor: float) -> None:
    arch = small_space.largest()
    (ms,) = estimated(table, small_space, [arch])
    with pytest.raises(InvalidSettingError, match="Report milliseconds per image"):
        report_networks(table, small_space, [arch], measured_ms=[factor * ms])


def test_archs_the_table_cannot_estimate_are_refused(
    table: LatencyTable, small_space: SearchSpace, archs: list[Arch]
) -> None:
    with pytest.raises(InvalidArchError):
        report_networks(table, small_space, [Arch(resolution=999)], measured_ms=[1.0])
    large = max(small_space.resolutions)
    few = replace(table, rows={spec: stats for spec, stats in table.rows.items() if spec.in_size != large})
    with pytest.raises(MissingEntryError):
        report_networks(few, small_space, [replace(archs[0], resolution=large)], measured_ms=[1.0])


@pytest.mark.parametrize(
    "listed",
    [
        "abc",
        5,
        [1],
        [{"arch": {"resolution": 16}}],
        [{"arch": {}, "latency_ms": 1.0}],
        [{"arch": None, "latency_ms": -1}],
    ],
)
def test_a_list_nobody_can_read_is_refused(table: LatencyTable, small_space: SearchSpace, listed: Any) -> None:
    foreign = table.with_calibration(None, **{REPORTED: listed})
    with pytest.raises(TableFormatError, match=REPORTED):
        report_networks(foreign, small_space, [small_space.largest()], measured_ms=[1.0])


@pytest.mark.parametrize("latency_ms", [1e-320, -1.0, 0, 1e15])
def test_latencies_in_the_list_that_no_clock_gives_are_refused(
    table: LatencyTable, small_space: SearchSpace, latency_ms: float
) -> None:
    listed = [{"arch": small_space.smallest().to_dict(), "latency_ms": latency_ms}]
    foreign = table.with_calibration(None, **{REPORTED: listed})
    (ms,) = estimated(table, small_space, [small_space.largest()])
    with pytest.raises(InvalidSettingError, match="Report milliseconds per image"):
        report_networks(foreign, small_space, [small_space.largest()], measured_ms=[ms])


@pytest.mark.parametrize("noted", [5, {}, {"networks": 3}, {"networks": 3, "slope": "fast"}])
def test_a_calibration_of_before_that_nobody_can_read_is_refused(
    table: LatencyTable, small_space: SearchSpace, noted: Any
) -> None:
    foreign = table.with_calibration(None, **{REPORTED: [], BEFORE: noted})
    with pytest.raises(TableFormatError):
        report_networks(foreign, small_space, [small_space.largest()], measured_ms=[1.0])


@pytest.mark.parametrize("stated", ["many", 10**400, -3, True, None])
def test_a_calibration_that_does_not_say_what_it_saw_counts_its_residuals(
    table: LatencyTable, small_space: SearchSpace, stated: Any
) -> None:
    arch = small_space.largest()
    foreign = table.with_calibration(Calibration(residuals=(0.9, 1.0, 1.1)), calibration_networks=stated)
    (ms,) = estimated(foreign, small_space, [arch])
    outcome = report_networks(foreign, small_space, [arch], measured_ms=[1.2 * ms])
    assert estimated(outcome.table, small_space, [arch]) == pytest.approx([ms * 1.2 ** (1 / 4)])
