"""The learning rate over a run."""

from __future__ import annotations

from math import cos, pi


def learning_rate_at(step: int, *, steps: int, peak: float, warmup: int = 0, level: int = 0) -> float:
    """Learning rate of one optimizer step: a linear rise, a level stretch at the peak, then a cosine to 0.

    Args:
        step: From 0 to `steps - 1`.
        steps: Of the whole run.
        peak: Reached at the end of the warm-up.
        warmup: Steps that rise.
        level: Steps at the peak after them. As long as a run is there, more of them can still be added to it.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < warmup + level:
        return peak
    falling = steps - warmup - level
    return 0.5 * peak * (1 + cos(pi * (step - warmup - level) / max(1, falling)))
