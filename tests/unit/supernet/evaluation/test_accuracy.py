"""Accuracy on predictions known in advance, and Wilson's interval against its definition."""

from __future__ import annotations

from math import comb, sqrt

import pytest
import torch
from torch import Tensor, nn

from supernet.errors import InvalidConfigError, InvalidDatasetError
from supernet.evaluation.accuracy import AccuracyResult, evaluate_accuracy

Z_90 = 1.6448536269514722


class Constant(nn.Module):
    """Says the same class for every image; in train mode another one."""

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 3)
        logits[:, 0 if self.training else 2] = 1
        return logits


def test_correct_answers_are_counted_over_all_batches() -> None:
    labels = [torch.tensor([2, 2, 0]), torch.tensor([1, 2])]
    result = evaluate_accuracy(Constant().train(), [(torch.zeros(len(part), 3, 4, 4), part) for part in labels])
    assert (result.correct, result.total, result.top1) == (3, 5, 0.6)


def test_no_image_is_refused() -> None:
    with pytest.raises(InvalidDatasetError, match="at least one"):
        evaluate_accuracy(Constant(), [])


@pytest.mark.parametrize(
    ("correct", "total", "level", "low", "high"),
    [
        # Worked out by hand from the roots of (p̂ - p)² = z² p (1 - p) / n.
        (0, 10, 0.95, 0.0, 0.2775),
        (5, 10, 0.95, 0.2366, 0.7634),
        (10, 10, 0.95, 0.7225, 1.0),
        (81, 263, 0.95, 0.2553, 0.3662),
    ],
)
def test_interval_has_the_known_values(correct: int, total: int, level: float, low: float, high: float) -> None:
    assert AccuracyResult(correct, total).interval(level) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (7, 9), (4321, 5000)])
def test_interval_ends_where_the_observed_share_is_just_z_deviations_off(correct: int, total: int) -> None:
    for bound in AccuracyResult(correct, total).interval(0.9):
        assert 0 <= round(bound, 12) <= 1
        deviation = sqrt(max(bound * (1 - bound), 0) / total)
        assert abs(correct / total - bound) == pytest.approx(Z_90 * deviation, abs=1e-9)


@pytest.mark.parametrize("accuracy", [0.02, 0.5, 0.9, 0.99])
def test_interval_covers_the_true_accuracy_as_often_as_it_says(accuracy: float) -> None:
    """Exact over all outcomes of 500 images; the coverage of any such interval oscillates around its level."""
    total = 500
    covered = 0.0
    for correct in range(total + 1):
        low, high = AccuracyResult(correct, total).interval(0.9)
        if low <= accuracy <= high:
            covered += comb(total, correct) * accuracy**correct * (1 - accuracy) ** (total - correct)
    assert covered == pytest.approx(0.9, abs=0.04)


def test_interval_widens_with_the_level_and_shrinks_with_the_images() -> None:
    def width(total: int, level: float) -> float:
        low, high = AccuracyResult(total // 2, total).interval(level)
        return high - low

    assert width(100, 0.5) < width(100, 0.9) < width(100, 0.99)
    assert width(400, 0.9) == pytest.approx(width(100, 0.9) / 2, rel=0.02)


@pytest.mark.parametrize("level", [0, 1, -0.5, 90])
def test_a_level_that_is_no_probability_is_refused(level: float) -> None:
    with pytest.raises(InvalidConfigError, match="level"):
        AccuracyResult(5, 10).interval(level)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 5)])
def test_counts_that_no_evaluation_gives_are_refused(correct: int, total: int) -> None:
    with pytest.raises(InvalidDatasetError):
        AccuracyResult(correct, total)
