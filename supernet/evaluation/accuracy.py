"""Top-1 accuracy with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch

from supernet.errors import InvalidConfigError, InvalidDatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn


@dataclass(frozen=True)
class AccuracyResult:
    """Outcome of an evaluation on at least one image."""

    correct: int
    total: int

    def __post_init__(self) -> None:
        """Refuse counts no evaluation gives."""
        if not 0 <= self.correct <= self.total or self.total == 0:
            raise InvalidDatasetError(
                f"An accuracy needs at least one labelled image, got {self.correct} right of {self.total}."
            )

    @property
    def top1(self) -> float:
        """Share of images whose highest logit is the label's."""
        return self.correct / self.total

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Wilson's interval for the accuracy on all images of this kind.

        Raises:
            InvalidConfigError: The level is not between 0 and 1.

        Source: Wilson 1927; unlike the normal interval it stays in [0, 1] and holds near its ends.
        """
        if not 0 < level < 1:
            raise InvalidConfigError(f"The level of an interval lies between 0 and 1, got {level}.")
        z = NormalDist().inv_cdf(0.5 + level / 2)
        centre = (self.correct + z * z / 2) / (self.total + z * z)
        spread = z / (self.total + z * z) * sqrt(self.correct * (self.total - self.correct) / self.total + z * z / 4)
        return centre - spread, centre + spread


@torch.inference_mode()
def evaluate_accuracy(subnet: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> AccuracyResult:
    """Count the images a subnet classifies rightly.

    Args:
        subnet: With statistics of its own; put in eval mode.
        batches: Normalised images `(n, chs, height, width)` and labels `(n,)`.

    Raises:
        InvalidDatasetError: No image at all.
    """
    subnet.eval()
    correct = total = 0
    for images, labels in batches:
        correct += int((subnet(images).argmax(1) == labels).sum())
        total += len(labels)
    return AccuracyResult(correct, total)
