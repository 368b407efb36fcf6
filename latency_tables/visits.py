"""From visits to latencies: which ones saw the machine at its usual speed, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.errors import MeasurementError
from latency_tables.table import LatencyStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STEADY_SHARE = 0.08
# A speed this much less common than the most common one still is the usual speed, if it is faster: a neighbour on the
# same core, another virtual machine say, can be busy for most of a measurement.
COMMON_SHARE = 0.2
# Beyond this spread inside a burst the machine ran at two speeds: another program came or went.
MIXED_SHARE = 0.15
WARN_DRIFT = 1.25
# A block that costs less than a call can measure still costs something.
MIN_LATENCY_MS = 1e-4


@dataclass(frozen=True, slots=True)
class Visit:
    """One burst, and the reference network just before and after it.

    Attributes:
        ms: Median of each call.
        spread_ms: Spread of each call inside the burst.
        runs: Passes that counted.
        reference_ms: Medians before and after; empty where there is no reference.
    """

    ms: tuple[float, ...]
    spread_ms: tuple[float, ...]
    runs: int
    reference_ms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """The machine's usual speed, by the reference network.

    Attributes:
        usual_ms: Latency of the reference around which many bursts lie; of several such speeds the fastest, which is
            the quiet machine.
        drift: Slowest over fastest reference.
    """

    usual_ms: float
    drift: float

    @classmethod
    def of(cls, visits: Iterable[Visit]) -> Pace:
        """Find the pace of all visits of one measurement."""
        references = [ms for visit in visits for ms in visit.reference_ms]
        if not references:
            return cls(0.0, 1.0)
        ordered = np.sort(references)
        first = np.searchsorted(ordered, ordered * (1 - STEADY_SHARE), "left")
        last = np.searchsorted(ordered, ordered * (1 + STEADY_SHARE), "right")
        near = last - first
        fastest = int(np.argmax(near >= COMMON_SHARE * near.max()))
        usual_ms = float(np.median(ordered[first[fastest] : last[fastest]]))
        return cls(usual_ms, float(ordered[-1] / ordered[0]))

    def factor(self, visit: Visit) -> float:
        """How much slower than usual the machine was during a visit."""
        return float(np.mean(visit.reference_ms)) / self.usual_ms if visit.reference_ms else 1.0

    def is_steady(self, visit: Visit) -> bool:
        """Whether the machine had its usual speed before and after a visit, and one speed inside it."""
        usual = all(abs(ms / self.usual_ms - 1) <= STEADY_SHARE for ms in visit.reference_ms)
        shares = [spread / max(ms, MIN_LATENCY_MS) for ms, spread in zip(visit.ms, visit.spread_ms, strict=True)]
        return usual and float(np.median(shares)) <= MIXED_SHARE


def summarise(samples: Sequence[tuple[Visit, int]], pace: Pace) -> LatencyStats:
    """Latency of one block or network from all its visits.

    Only steady visits count; each is divided by its small change of pace. Where none is steady all count, which is
    crude: blocks do not all slow down alike.

    Args:
        samples: Visits with the index of the call in them.
        pace: Of the whole measurement.

    Returns:
        Median over visits of their medians. The spread is the standard deviation between visits, for a single visit
        that inside it; the count is of runs.

    Raises:
        MeasurementError: There is no visit.
    """
    if not samples:
        raise MeasurementError("Nothing was measured for a block; this is a fault of the plan.")
    steady = [sample for sample in samples if pace.is_steady(sample[0])] or list(samples)
    values = [visit.ms[call] / pace.factor(visit) for visit, call in steady]
    value_ms = max(float(np.median(values)), MIN_LATENCY_MS)
    if len(values) > 1:
        std_ms = float(np.std(values, ddof=1))
    else:
        visit, call = steady[0]
        std_ms = visit.spread_ms[call]
    return LatencyStats(value_ms, std_ms, sum(visit.runs for visit, _ in steady))
