"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np

    from latency_tables.measure import MeasurePlan

# Read when torch and numpy load, here and in the processes of tests: sums have one order, small networks run faster,
# and a busy machine does not matter.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture
def shared_data() -> Path:
    """The folder of third-party data that TAILOR_SHARED_DATA names; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("TAILOR_SHARED_DATA", ""))
    if not os.environ.get("TAILOR_SHARED_DATA") or not folder.is_dir():
        pytest.skip("TAILOR_SHARED_DATA names no folder: this test needs the third-party data")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator of its own for each test."""
    import numpy as np

    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def hasty_plan() -> MeasurePlan:
    """For whole tables in seconds; tests run beside others, so no visit is refused for its pace."""
    from latency_tables.measure import MeasurePlan

    return MeasurePlan(
        warmup_s=0,
        burst_s=0.002,
        reference_s=0.001,
        min_runs=3,
        rounds=1,
        limit_s=0,
        coverage=1,
        networks=6,
        min_covered_share=0,
        max_drift=100,
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where every test has to run (TAILOR_TESTS_MUST_RUN), a skipped one fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("TAILOR_TESTS_MUST_RUN") and skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"TAILOR_TESTS_MUST_RUN is set, but {len(skipped)} tests were skipped.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
