"""Calibration: how sums of rows relate to whole networks on one device, and how far off the estimates are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import exp, hypot, isfinite, log
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latency_tables.errors import InvalidSettingError, TableFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

Values = NDArray[np.float64]

# What sums of rows were off by, at most, on devices nobody calibrated: an assumption, not a measurement.
DEFAULT_LEVEL = 0.9
DEFAULT_RATIO = 1.25

MIN_NETWORKS = 6
_NAMES = ("call_ms", "per_block_ms", "slope")


@dataclass(frozen=True, slots=True)
class Calibration:
    """`latency = call_ms + per_block_ms * n_blocks + slope * sum(rows)`, and the residuals of networks held out.

    Without residuals the ratio of measured to estimated latency is taken as log-normal, 0.8 to 1.25 at level 0.9.

    Attributes:
        call_ms: What one call costs besides its blocks. Below 0 where `per_block_ms` says too much of the blocks that
            every network has, such as stem and head.
        per_block_ms: What each block costs besides its row.
        slope: Whole networks over sums of rows.
        residuals: Measured over estimated latency of networks the fit had not seen, ascending.
    """

    call_ms: float = 0.0
    per_block_ms: float = 0.0
    slope: float = 1.0
    residuals: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values no fit can give; sort the residuals."""
        for name in _NAMES:
            value = getattr(self, name)
            if not _is_number(value) or (value < 0 and name != "call_ms"):
                least = "" if name == "call_ms" else " from 0"
                raise TableFormatError(f"'{name}' of a calibration must be a finite number{least}, got {value!r}.")
        if self.slope == 0 and self.per_block_ms == 0:
            raise TableFormatError("A calibration whose 'slope' and 'per_block_ms' are 0 tells no networks apart.")
        if not isinstance(self.residuals, list | tuple) or not all(_is_number(r) and r > 0 for r in self.residuals):
            raise TableFormatError("'residuals' of a calibration must be a list of positive finite ratios.")
        object.__setattr__(self, "residuals", tuple(sorted(float(ratio) for ratio in self.residuals)))

    def ratio_at(self, quantile: float, *, row_spread: float = 0.0) -> float:
        """Measured over estimated latency that a share `quantile` of networks stays below.

        A confidence Q at a budget B is therefore the same as the budget `B / ratio_at(Q)`.

        Args:
            quantile: Between 0 and 1, exclusive.
            row_spread: Of sums of rows, relative. It widens what is assumed without residuals, and nothing else:
                residuals hold it already.

        Returns:
            The value at rank `quantile * (n + 1)`, interpolated. Beyond the outermost residuals the farther one of the
            residual and a log-normal fit, so that few networks never look safer than many.

        Raises:
            InvalidSettingError: The quantile is out of range.

        Source: rank of split conformal prediction, Lei et al. 2018 (arXiv 1604.04173). Differs: interpolated, and
            extrapolated instead of infinite.
        """
        if not 0 < quantile < 1:
            raise InvalidSettingError(f"A quantile lies between 0 and 1, exclusive; got {quantile!r}.")
        score = NormalDist().inv_cdf(quantile)
        if not self.residuals:
            assumed = log(DEFAULT_RATIO) / NormalDist().inv_cdf((1 + DEFAULT_LEVEL) / 2)
            return exp(score * hypot(assumed, row_spread))
        n = len(self.residuals)
        rank = quantile * (n + 1)
        if 1 <= rank <= n:
            return float(np.interp(rank, np.arange(1, n + 1), self.residuals))
        logs = np.log(self.residuals)
        spread = float(logs.std(ddof=1)) if n > 1 else log(DEFAULT_RATIO)
        fitted = exp(float(logs.mean()) + score * spread * (1 + 1 / n) ** 0.5)
        return max(fitted, self.residuals[-1]) if rank > n else min(fitted, self.residuals[0])

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {name: getattr(self, name) for name in _NAMES} | {"residuals": list(self.residuals)}

    @classmethod
    def from_dict(cls, data: Any) -> Calibration:
        """Read what `to_dict` wrote; raises `TableFormatError` for unknown or missing keys and wrong values."""
        known = [*_NAMES, "residuals"]
        if not isinstance(data, dict) or set(data) != set(known):
            given = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise TableFormatError(f"A calibration is null or an object with the keys {known}, got {given}.")
        return cls(**data)


def fit_calibration(
    sums_ms: Sequence[float], block_counts: Sequence[int], measured_ms: Sequence[float], *, fewest_blocks: int
) -> Calibration:
    """Fit how whole networks follow from sums of rows, by relative errors.

    The slope, the cost of a block and what the network with the fewest blocks costs besides its rows are not negative.

    Args:
        sums_ms: Sum of the rows of each network, positive.
        block_counts: Number of blocks of each.
        measured_ms: Latency of each whole network, positive.
        fewest_blocks: That any network to be estimated has.

    Returns:
        Coefficients from all networks; each residual comes from a fit without its own network.

    Raises:
        InvalidSettingError: Fewer than 6 networks, lengths that differ, or a value that is not positive and finite.
    """
    sums, counts, measured = (np.asarray(values, np.float64) for values in (sums_ms, block_counts, measured_ms))
    if not len(sums) == len(counts) == len(measured) >= MIN_NETWORKS:
        raise InvalidSettingError(
            f"A calibration needs at least {MIN_NETWORKS} networks, each with a sum of rows, a number of blocks and a "
            f"latency; got {len(sums)}, {len(counts)} and {len(measured)}."
        )
    for name, values in (("sums", sums), ("block counts", counts), ("latencies", measured)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise InvalidSettingError(f"The {name} of a calibration must be positive and finite, got {values}.")
    features = np.stack([np.ones_like(sums), counts - fewest_blocks, sums], 1)
    least_ms, per_block_ms, slope = _fit(features, measured)
    residuals = []
    for left_out in range(len(measured)):
        kept = np.arange(len(measured)) != left_out
        residuals.append(measured[left_out] / (features[left_out] @ _fit(features[kept], measured[kept])))
    call_ms = least_ms - per_block_ms * fewest_blocks
    return Calibration(float(call_ms), float(per_block_ms), float(slope), tuple(float(ratio) for ratio in residuals))


def _fit(features: Values, measured: Values) -> Values:
    """Least squares on relative errors over every subset of features that has the slope; the best without negatives."""
    design = features / measured[:, None]
    best, least = np.zeros(features.shape[1]), np.inf
    for size in range(features.shape[1]):
        for others in combinations(range(features.shape[1] - 1), size):
            columns = [*others, features.shape[1] - 1]
            solution = np.linalg.lstsq(design[:, columns], np.ones(len(measured)), rcond=None)[0]
            error = float(((design[:, columns] @ solution - 1) ** 2).sum())
            if (solution >= 0).all() and error < least - 1e-12:
                best = np.zeros(features.shape[1])
                best[columns], least = solution, error
    return best


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isfinite(value) if isinstance(value, float) else abs(value) < 1e300
