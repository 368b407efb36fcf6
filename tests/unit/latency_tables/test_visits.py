from __future__ import annotations

import numpy as np
import pytest

from latency_tables.errors import MeasurementError
from latency_tables.visits import MIN_LATENCY_MS, Pace, Visit, summarise


def visit(ms: float, *reference_ms: float, spread_ms: float = 0.0, runs: int = 10) -> Visit:
    return Visit((ms,), (spread_ms,), runs, reference_ms)


QUIET = [visit(2.0, 1.0, 1.0), visit(2.02, 1.0, 1.01), visit(1.98, 1.01, 1.0)]


def test_the_value_is_the_median_of_visits() -> None:
    stats = summarise([(one, 0) for one in QUIET], Pace.of(QUIET))
    assert stats.value_ms == pytest.approx(2.0, rel=0.01)
    assert stats.std_ms == pytest.approx(0.02, rel=0.2)
    assert stats.count == 30
    assert stats.statistic == "median"


def test_visits_to_a_busy_machine_do_not_count() -> None:
    visits = [*QUIET, visit(3.9, 1.9, 1.8), visit(3.5, 1.0, 1.8), visit(3.5, 1.8, 1.0)]
    pace = Pace.of(visits)
    assert pace.usual_ms == pytest.approx(1.0, rel=0.01)
    assert pace.drift == pytest.approx(1.9)
    assert summarise([(one, 0) for one in visits], pace).value_ms == pytest.approx(2.0, rel=0.01)


def test_a_burst_at_two_speeds_does_not_count() -> None:
    mixed = visit(3.0, 1.0, 1.0, spread_ms=1.0)
    pace = Pace.of([*QUIET, mixed])
    assert not pace.is_steady(mixed)
    assert summarise([(one, 0) for one in [*QUIET, mixed]], pace).count == 30


def test_of_two_common_speeds_the_faster_is_usual() -> None:
    slow = [visit(3.0, 1.5, 1.5)] * 4
    assert Pace.of([*QUIET, *slow]).usual_ms == pytest.approx(1.0, rel=0.01)


def test_a_rare_fast_moment_is_not_usual() -> None:
    slow = [visit(3.0, 1.5, 1.5)] * 20
    assert Pace.of([visit(2.0, 1.0, 1.0), *slow]).usual_ms == pytest.approx(1.5)


def test_where_no_visit_is_steady_all_count_at_their_pace() -> None:
    pace = Pace.of(QUIET)
    stats = summarise([(visit(4.0, 2.0, 2.0), 0), (visit(6.0, 3.0, 3.0), 0)], pace)
    assert stats.value_ms == pytest.approx(2.0, rel=0.02)


def test_a_small_change_of_pace_is_taken_out() -> None:
    pace = Pace(usual_ms=1.0, drift=1.05)
    assert summarise([(visit(2.1, 1.05, 1.05), 0)], pace).value_ms == pytest.approx(2.0)


def test_a_single_visit_has_the_spread_inside_it() -> None:
    assert summarise([(visit(2.0, spread_ms=0.1), 0)], Pace.of([])).std_ms == 0.1


def test_each_call_of_a_visit_is_its_own() -> None:
    chain = Visit((1.0, 5.0), (0.0, 0.0), 10)
    assert summarise([(chain, 1)], Pace.of([chain])).value_ms == 5.0


def test_a_block_cheaper_than_a_call_still_costs_something() -> None:
    assert summarise([(visit(-0.001), 0)], Pace.of([])).value_ms == MIN_LATENCY_MS


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(MeasurementError):
        summarise([], Pace.of([]))


def test_pace_survives_noise(rng: np.random.Generator) -> None:
    references = np.concatenate([rng.normal(1.0, 0.02, 60), rng.uniform(1.2, 3.0, 40)])
    pace = Pace.of([visit(1.0, float(ms), float(ms)) for ms in references])
    assert pace.usual_ms == pytest.approx(1.0, rel=0.02)
