from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from supernet.errors import InvalidConfigError
from supernet.predictors.evaluate import evaluate_predictor, kendall_tau
from supernet.spaces.costs import Values
from supernet.spaces.space import Rows


class Told:
    """A predictor that says what it was told."""

    def __init__(self, predicted: Values, half_width: float) -> None:
        self.predicted, self.half_width = predicted, half_width

    def predict(self, rows: Rows) -> Values:
        return self.predicted

    def interval(self, rows: Rows, level: float = 0.9) -> tuple[Values, Values]:
        return self.predicted - self.half_width, self.predicted + self.half_width


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=40))
def test_kendall_tau_agrees_with_scipy_on_ties(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, float).T
    if len(set(first)) > 1 and len(set(second)) > 1:
        assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic)
    else:
        assert kendall_tau(first, second) == 0


def test_the_report_counts_in_percentage_points() -> None:
    top1 = np.array([0.70, 0.72, 0.74, 0.76])
    report = evaluate_predictor(Told(top1 + np.array([0.01, 0.01, 0.01, 0.05]), 0.02), np.zeros((4, 3), np.int16), top1)
    assert report.to_dict() == pytest.approx(
        {
            "n": 4,
            "rmse_pp": np.sqrt((1 + 1 + 1 + 25) / 4),
            "kendall_tau": 1.0,
            "bias_pp": 2.0,
            "coverage_90": 0.75,
            "width_90_pp": 4.0,
        }
    )


@pytest.mark.parametrize(
    ("top1", "message"),
    [
        ([0.5], "at least 2"),
        ([0.5, 0.6, 0.7], "one accuracy per arch"),
        ([0.5, 75.5], "divide percents"),
        ([0.5, np.nan], "nan"),
    ],
)
def test_accuracies_that_cannot_be_compared_are_refused(top1: list[float], message: str) -> None:
    rows = np.zeros((min(len(top1), 2), 3), np.int16)
    with pytest.raises(InvalidConfigError, match=message):
        evaluate_predictor(Told(np.array(top1), 0.1), rows, np.array(top1))
