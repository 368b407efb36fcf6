"""How good a predictor is on accuracies it never saw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.errors import InvalidConfigError

if TYPE_CHECKING:
    from supernet.predictors.predictor import Predictor
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows


@dataclass(frozen=True, slots=True)
class PredictorReport:
    """A predictor against measured accuracies; `_pp` are percentage points.

    Attributes:
        n: Archs compared.
        rmse_pp: Root of the mean squared error.
        kendall_tau: Rank agreement, tau-b; 1 is the same order. 0 where one side is constant.
        bias_pp: Mean of predicted minus measured.
        coverage_90: Fraction of measured accuracies inside their 90 % interval; None without intervals.
        width_90_pp: Mean width of these intervals; None without.
    """

    n: int
    rmse_pp: float
    kendall_tau: float
    bias_pp: float
    coverage_90: float | None
    width_90_pp: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


def evaluate_predictor(predictor: Predictor, rows: Rows, top1: Values) -> PredictorReport:
    """Compare predictions with accuracies.

    Args:
        predictor: See `Predictor`.
        rows: `(n_archs, n_slots)` choice indices, at least two.
        top1: `(n_archs,)` fractions.

    Raises:
        InvalidConfigError: Fewer than two archs, another number of accuracies, or one outside [0, 1].
    """
    top1 = validate_top1(rows, top1, least=2)
    return report_on(predictor.predict(rows), predictor.interval(rows, 0.9), top1)


def report_on(predicted: Values, interval: tuple[Values, Values] | None, top1: Values) -> PredictorReport:
    """Compare predictions that are already made; all arrays `(n_archs,)` fractions."""
    errors_pp = 100 * (predicted - top1)
    coverage = width_pp = None
    if interval is not None:
        low, high = interval
        coverage, width_pp = float(np.mean((low <= top1) & (top1 <= high))), float(100 * np.mean(high - low))
    return PredictorReport(
        n=len(top1),
        rmse_pp=float(np.sqrt(np.mean(errors_pp**2))),
        kendall_tau=kendall_tau(predicted, top1),
        bias_pp=float(errors_pp.mean()),
        coverage_90=coverage,
        width_90_pp=width_pp,
    )


def validate_top1(rows: Rows, top1: Values, *, least: int) -> Values:
    """Accuracies as float64.

    Raises:
        InvalidConfigError: See `evaluate_predictor`; `least` is the number of archs that are needed.
    """
    top1 = np.asarray(top1, np.float64)
    if top1.shape != (len(rows),) or len(rows) < least:
        raise InvalidConfigError(
            f"A predictor needs one accuracy per arch and at least {least} archs, "
            f"got {len(rows)} archs and accuracies of shape {top1.shape}."
        )
    wrong = np.flatnonzero(~((top1 >= 0) & (top1 <= 1)))
    if len(wrong):
        raise InvalidConfigError(
            f"Accuracies are fractions between 0 and 1, got {top1[wrong[0]]} in row {wrong[0]}; divide percents by 100."
        )
    return top1


def kendall_tau(first: Values, second: Values) -> float:
    """Kendall's tau-b of two samples `(n,)`: rank agreement in [-1, 1], ties accounted for.

    Returns:
        0 where a sample is constant or has fewer than two values.

    Source: Kendall 1945. Compares all pairs, row by row: n² comparisons, n of memory.
    """
    concordance = first_ties = second_ties = 0
    for index in range(len(first) - 1):
        of_first = np.sign(first[index + 1 :] - first[index])
        of_second = np.sign(second[index + 1 :] - second[index])
        concordance += int(of_first @ of_second)
        first_ties += int(np.count_nonzero(of_first == 0))
        second_ties += int(np.count_nonzero(of_second == 0))
    pairs = len(first) * (len(first) - 1) // 2
    scale = np.sqrt(float(pairs - first_ties) * float(pairs - second_ties))
    return float(concordance / scale) if scale > 0 else 0.0
