"""Refinement: the best candidates of a search are really timed, and really evaluated, and the answer is one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from latency_tables.build import measure_networks
from latency_tables.measure import QUICK_PLAN
from service.errors import InvalidRequestError
from supernet.errors import InfeasibleBudgetError
from supernet.spaces.arch_csv import arch_columns, write_arch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from latency_tables.estimator import LatencyEstimator
    from latency_tables.measure import MeasurePlan
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace


@dataclass(frozen=True)
class Candidate:
    """A subnet with what was said of it and what was seen.

    Attributes:
        estimated_ms: By the table.
        measured_ms: On this machine.
        predicted: Accuracy, a fraction.
        evaluated: Accuracy on labelled images, a fraction; None where there were none.
    """

    arch: Arch
    estimated_ms: float
    measured_ms: float
    predicted: float
    evaluated: float | None = None

    @property
    def accuracy(self) -> float:
        """What is known best of its accuracy."""
        return self.predicted if self.evaluated is None else self.evaluated

    def to_row(self, space: SearchSpace) -> dict[str, str]:
        """A CSV row, as `tailor predictor fit` and `tailor table evaluate` read it."""
        top1 = "" if self.evaluated is None else repr(100 * self.evaluated)
        return {**write_arch(space, self.arch), "latency_ms": repr(self.measured_ms), "top1_percent": top1}


def csv_columns(space: SearchSpace) -> list[str]:
    """Of `Candidate.to_row`."""
    return [*arch_columns(space), "latency_ms", "top1_percent"]


def measure_candidates(
    archs: Sequence[Arch],
    predicted: Sequence[float],
    estimator: LatencyEstimator,
    *,
    plan: MeasurePlan = QUICK_PLAN,
    report: Callable[[str], None] | None = None,
) -> list[Candidate]:
    """Time subnets on this machine, in their order, at the pace its table was measured at.

    Subnets that were only seen at another pace are left out, unless all were.

    Args:
        archs: To time.
        predicted: The accuracy of each, a fraction.
        estimator: Of this machine's table.
        plan: How long to measure.
        report: Called with a line of progress now and then.

    Raises:
        InvalidSettingError: The table was not measured here, or does not say what its reference was.
        UnstableMeasurementError: The machine is too busy.
    """
    threads = estimator.table.device.threads
    measured = measure_networks(
        archs, estimator.space, threads=threads, plan=plan, report=report, table=estimator.table
    )
    estimated = estimator.estimate(archs)
    any_steady = any(network.is_steady for network in measured)
    return [
        Candidate(arch, estimate.estimated_ms, network.stats.value_ms, float(accuracy))
        for arch, estimate, network, accuracy in zip(archs, estimated, measured, predicted, strict=True)
        if network.is_steady or not any_steady
    ]


def evaluate_candidates(candidates: Sequence[Candidate], evaluate: Callable[[Arch], float]) -> list[Candidate]:
    """The same with the accuracy that each was evaluated to."""
    return [replace(candidate, evaluated=evaluate(candidate.arch)) for candidate in candidates]


def choose(candidates: Sequence[Candidate], budget_ms: float) -> Candidate:
    """The most accurate candidate whose measured latency keeps the budget.

    Raises:
        InfeasibleBudgetError: None of them keeps it; carries the fastest one.
    """
    if not candidates:
        raise InvalidRequestError("There is nothing to choose from: no candidate was measured.")
    within = [candidate for candidate in candidates if candidate.measured_ms <= budget_ms]
    if not within:
        fastest = min(candidates, key=lambda candidate: candidate.measured_ms)
        raise InfeasibleBudgetError(
            f"None of the {len(candidates)} candidates was measured within {budget_ms:g} ms; the fastest one took "
            f"{fastest.measured_ms:.4g} ms where {fastest.estimated_ms:.4g} ms were estimated. Ask with a confidence "
            "such as 0.95, for more candidates, or for a larger budget.",
            binding="latency_ms",
            best_achievable={"latency_ms": fastest.measured_ms},
            arch=fastest.arch,
        )
    return max(within, key=lambda candidate: candidate.accuracy)


def describe_choice(chosen: Candidate, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What an answer says of it: `{latency_ms, accuracy, candidates}`."""
    return {"latency_ms": chosen.measured_ms, "accuracy": chosen.evaluated, "candidates": len(candidates)}
