from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_tables.calibration import Calibration, fit_calibration
from latency_tables.errors import InvalidSettingError, TableFormatError

QUANTILES = st.floats(0.001, 0.999)


def networks(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(0.2, 2.0, n), rng.integers(8, 30, n)


def test_fit_recovers_exact_coefficients(rng: np.random.Generator) -> None:
    sums, counts = networks(rng, 20)
    fitted = fit_calibration(sums, counts, 0.05 + 0.01 * counts + 1.2 * sums, fewest_blocks=8)
    assert (fitted.call_ms, fitted.per_block_ms, fitted.slope) == pytest.approx((0.05, 0.01, 1.2), rel=1e-6)
    assert fitted.residuals == pytest.approx([1] * 20)


def test_what_blocks_of_every_network_cost_too_much_is_taken_off_the_call(rng: np.random.Generator) -> None:
    sums, counts = networks(rng, 20)
    fitted = fit_calibration(sums, counts, 0.01 * (counts - 8) + 0.9 * sums, fewest_blocks=8)
    assert (fitted.call_ms, fitted.per_block_ms, fitted.slope) == pytest.approx((-0.08, 0.01, 0.9), rel=1e-6)


def test_no_block_and_no_network_costs_less_than_its_rows(rng: np.random.Generator) -> None:
    sums, counts = networks(rng, 20)
    squeezed = fit_calibration(sums, counts, 2 * sums - 0.1, fewest_blocks=8)
    assert squeezed.call_ms == squeezed.per_block_ms == 0
    assert squeezed.slope == pytest.approx(1.9, abs=0.1)
    cheaper_blocks = fit_calibration(sums, counts, 3 * sums + 1.0 - 0.02 * counts, fewest_blocks=8)
    assert cheaper_blocks.per_block_ms == 0
    assert cheaper_blocks.call_ms >= 0


def test_residuals_are_of_networks_held_out(rng: np.random.Generator) -> None:
    sums, counts = networks(rng, 12)
    measured = 1.1 * sums
    measured[0] *= 3  # a network like no other
    fitted = fit_calibration(sums, counts, measured, fewest_blocks=8)
    assert fitted.residuals[-1] > 2.5  # in-sample it would have pulled the fit towards itself


def test_fit_weighs_relative_errors(rng: np.random.Generator) -> None:
    sums = np.geomspace(0.01, 100, 12)
    measured = sums.copy()
    measured[-1] *= 1.5  # absolute least squares would follow the largest network
    assert fit_calibration(sums, np.full(12, 10), measured, fewest_blocks=8).slope == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("sums", "counts", "measured"),
    [
        ([1.0] * 5, [3] * 5, [1.0] * 5),
        ([1.0] * 6, [3] * 6, [1.0] * 7),
        ([1.0] * 6, [3] * 6, [1.0] * 5 + [0.0]),
        ([1.0] * 5 + [float("nan")], [3] * 6, [1.0] * 6),
    ],
)
def test_fit_refuses_too_few_uneven_or_impossible_networks(
    sums: list[float], counts: list[int], measured: list[float]
) -> None:
    with pytest.raises(InvalidSettingError):
        fit_calibration(sums, counts, measured, fewest_blocks=8)


def test_without_residuals_the_band_is_the_documented_one() -> None:
    identity = Calibration()
    assert identity.ratio_at(0.05) == pytest.approx(0.8)
    assert identity.ratio_at(0.5) == pytest.approx(1.0)
    assert identity.ratio_at(0.95) == pytest.approx(1.25)


def test_quantiles_are_interpolated_between_ranks() -> None:
    calibration = Calibration(residuals=(1.3, 0.9, 1.0, 1.1))  # n + 1 = 5, so 0.4 is the second of them
    assert calibration.ratio_at(0.4) == pytest.approx(1.0)
    assert calibration.ratio_at(0.5) == pytest.approx(1.05)


def test_few_networks_are_extrapolated_beyond_the_worst() -> None:
    calibration = Calibration(residuals=(0.95, 1.0, 1.05))
    assert calibration.ratio_at(0.99) > 1.05
    assert calibration.ratio_at(0.01) < 0.95


@given(st.lists(st.floats(0.5, 2.0), max_size=30), QUANTILES, QUANTILES)
def test_ratio_never_falls_as_the_quantile_rises(residuals: list[float], first: float, second: float) -> None:
    calibration = Calibration(residuals=tuple(residuals))
    low, high = sorted((first, second))
    assert calibration.ratio_at(low) <= calibration.ratio_at(high) * (1 + 1e-12)


def test_intervals_cover_new_networks_at_their_level(rng: np.random.Generator) -> None:
    # 200 devices with 24 networks each: the share covered has a standard error of about 0.4 points.
    covered = []
    for _ in range(200):
        calibration = Calibration(residuals=tuple(np.exp(rng.normal(0, 0.03, 24))))
        fresh = np.exp(rng.normal(0, 0.03, 50))
        low, high = calibration.ratio_at(0.05), calibration.ratio_at(0.95)
        covered.append(((low <= fresh) & (fresh <= high)).mean())
    assert 0.88 <= np.mean(covered) <= 0.93


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_a_quantile_out_of_range_is_refused(quantile: float) -> None:
    with pytest.raises(InvalidSettingError, match="between 0 and 1"):
        Calibration().ratio_at(quantile)


@pytest.mark.parametrize(
    "change",
    [
        {"slope": -1.0},
        {"slope": 0.0},
        {"slope": True},
        {"call_ms": float("inf")},
        {"call_ms": 10**400},
        {"per_block_ms": "0"},
        {"residuals": [1.0, 0.0]},
        {"residuals": [1.0, float("nan")]},
        {"residuals": "1"},
        {"gain": 1.0},
    ],
)
def test_broken_calibrations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TableFormatError):
        Calibration.from_dict(Calibration().to_dict() | change)


def test_calibration_survives_its_dict() -> None:
    calibration = Calibration(0.01, 0.001, 1.05, (1.1, 0.9))
    assert Calibration.from_dict(calibration.to_dict()) == calibration
