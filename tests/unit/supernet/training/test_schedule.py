"""The learning rate over a run."""

from __future__ import annotations

import pytest

from supernet.training.schedule import learning_rate_at


def rates(steps: int, *, warmup: int = 0, level: int = 0) -> list[float]:
    return [learning_rate_at(step, steps=steps, peak=0.4, warmup=warmup, level=level) for step in range(steps)]


def test_rate_rises_linearly_to_the_peak_and_falls_to_nearly_0() -> None:
    values = rates(100, warmup=20)
    assert values[0] == pytest.approx(0.4 / 20)
    assert values[9] == pytest.approx(0.2)
    assert values[19] == pytest.approx(0.4)
    assert values[20] == pytest.approx(0.4)
    assert values[60] == pytest.approx(0.2)
    assert 0 < values[99] < 0.4 * 0.001
    assert values[:20] == sorted(values[:20])
    assert values[20:] == sorted(values[20:], reverse=True)


def test_a_level_stretch_keeps_the_peak_and_is_followed_by_the_same_fall() -> None:
    level = rates(150, warmup=20, level=50)
    assert level[20:70] == [0.4] * 50
    assert level[:20] + level[70:] == rates(100, warmup=20)


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert rates(10)[0] == pytest.approx(0.4)


@pytest.mark.parametrize(("warmup", "level"), [(0, 0), (1, 0), (0, 1), (1, 1), (1, 2), (3, 0)])
def test_short_runs_have_a_rate_above_0_in_every_step(warmup: int, level: int) -> None:
    assert all(0 < rate <= 0.4 + 1e-9 for rate in rates(3, warmup=warmup, level=level))
