"""check_agreement: how well a table's estimates agree with whole networks that were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latency_tables.errors import InvalidSettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_tables.estimator import LatencyEstimator
    from supernet.spaces.arch import Arch

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """Estimates against measurements; shares and errors are fractions.

    Attributes:
        n: Networks compared.
        mape: Mean of |estimated - measured| / measured.
        within_10_percent: Share of networks estimated within a tenth of their measured latency.
        spearman: Rank correlation; None where it is not defined (fewer than 2 networks, or all equal).
        coverage_90: Share of networks inside the 90 % interval.
    """

    n: int
    mape: float
    within_10_percent: float
    spearman: float | None
    coverage_90: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "n": self.n,
            "mape": self.mape,
            "within_10_percent": self.within_10_percent,
            "spearman": self.spearman,
            "coverage_90": self.coverage_90,
        }


def check_agreement(
    estimator: LatencyEstimator, archs: Sequence[Arch], measured_ms: Sequence[float]
) -> AgreementReport:
    """Compare the estimates of archs with their measured latencies.

    Args:
        estimator: Of the table and the space.
        archs: At least one, of resolutions the table covers.
        measured_ms: Their latencies on the table's device, positive.

    Raises:
        InvalidSettingError: There is no arch, the lengths differ, or a latency is not positive and finite.
        MissingEntryError: The table does not cover an arch's resolution.
    """
    measured = np.asarray(measured_ms, np.float64)
    if len(archs) == 0 or len(archs) != len(measured):
        raise InvalidSettingError(f"Each of at least one arch needs one latency, got {len(archs)} and {len(measured)}.")
    if not (np.isfinite(measured).all() and (measured > 0).all()):
        raise InvalidSettingError("Measured latencies must be positive and finite, in milliseconds.")
    estimates = estimator.estimate(archs, level=0.9)
    estimated = np.array([estimate.estimated_ms for estimate in estimates])
    low, high = (np.array([getattr(estimate, name) for estimate in estimates]) for name in ("low_ms", "high_ms"))
    errors = np.abs(estimated / measured - 1)
    return AgreementReport(
        n=len(archs),
        mape=float(errors.mean()),
        within_10_percent=float((errors <= 0.1).mean()),
        spearman=spearman(estimated, measured),
        coverage_90=float(((low <= measured) & (measured <= high)).mean()),
    )


def spearman(first: Values, second: Values) -> float | None:
    """Rank correlation of two `(n,)` arrays; ties share their mean rank; None where a side has one value only."""
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (first, second)]
    norm = float(np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1]))
    return None if norm == 0 else float(ranks[0] @ ranks[1]) / norm


def _ranks(values: Values) -> Values:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Values = ends - (counts + 1) / 2
    return means[inverse]
