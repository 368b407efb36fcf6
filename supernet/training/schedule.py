"""The learning rate over a run."""

from __future__ import annotations

from math import cos, pi


def learning_rate_at(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Learning rate of one optimizer step: a linear rise, then a cosine to 0.

    Args:
        step: From 0 to `steps - 1`.
        steps: Of the whole run.
        peak: Reached at the end of the warm-up.
        warmup: Share of the steps that rise.
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return 0.5 * peak * (1 + cos(pi * (step - rising) / max(1, steps - rising)))
