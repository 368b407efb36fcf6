"""The answer to a search, from values alone: no database, no HTTP. The API and the commands share it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from service.questions import BYTES_PER_NUMBER, build_problem
from supernet.predictors.predictor import Predictor, describe_accuracies, describe_accuracy
from supernet.search.evolution import evolve
from supernet.spaces.costs import macs_cost, params_cost, peak_memory_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from latency_tables.estimator import LatencyEstimator
    from service.questions import Question, Target
    from supernet.search.front import Front
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import Rows, SearchSpace


def find_best(
    predictor: Predictor,
    targets: Sequence[Target],
    question: Question,
    *,
    front: Front | None = None,
    start: Rows | None = None,
    refine: Callable[[list[Arch]], tuple[Arch, dict[str, Any]]] | None = None,
) -> tuple[Arch, dict[str, Any]]:
    """Answer a question.

    Args:
        predictor: Of the supernet.
        targets: At least one device; an arch is found that suits all.
        question: What is asked for.
        front: Of the one device, over estimated latencies at all known resolutions: where it holds the answer, nothing
            is searched; else the search starts from it.
        start: `(n_archs, n_slots)` other archs to start from.
        refine: Chooses among the best archs that were found, the best first; what it says of its choice becomes
            `measured`.

    Returns:
        The arch, and the parts of the search object that describe it and the search.

    Raises:
        ConflictError: `no_common_resolution` or `no_energy`.
        InvalidConfigError: A resolution or a limit that is not on offer.
        InvalidRequestError: Budgets or objectives that cannot be asked for together.
        InfeasibleBudgetError: Nothing meets the constraints.
    """
    started = perf_counter()
    space, measured = predictor.space, None
    candidates = np.zeros((0, len(space.slots)), np.int16)
    row = None if front is None else look_up(front, targets[0], question)
    if row is not None:
        (arch,), evaluations, budgets = space.from_rows(row), 0, dict(targets[0].budget)
    else:
        problem = build_problem(predictor, targets, question)
        found = evolve(
            problem,
            evaluations=question.evaluations,
            seed=question.seed,
            start=front.rows if front is not None and start is None else start,
        )
        arch, evaluations = found.arch, found.evaluations
        if refine is not None:
            arch, measured = refine(space.from_rows(found.candidates))
        candidates = found.candidates[: question.candidates]
        budgets = {limit.name: limit.maximum for limit in problem.constraints if limit.name.startswith("latency_ms")}
    latencies = {target.device_id: estimate_latencies(target.estimator, [arch])[0] for target in targets}
    (latency, *others) = latencies.values()
    percents = {name: value for target in targets for name, value in target.budget.items() if name not in budgets}
    return arch, {
        "constraints": {**(percents if not others else {}), **budgets, **question.constraints},
        "objective": question.minimised(len(targets)) or "accuracy",
        "arch": arch.to_dict(),
        "arch_id": arch.arch_id,
        "accuracy": describe_accuracy(predictor, arch),
        "latency_ms": None if others else latency,
        "latencies": latencies if others else None,
        "energy_mj": None if others else _energy(targets[0], arch),
        **sizes_of(space, arch, precision=question.precision),
        "evaluations": evaluations,
        "seconds": perf_counter() - started,
        "source": "evolution" if row is None else "front",
        **({"candidates": _describe_candidates(predictor, targets, candidates)} if len(candidates) else {}),
        **({} if measured is None else {"measured": measured}),
    }


def _describe_candidates(predictor: Predictor, targets: Sequence[Target], rows: Rows) -> list[dict[str, Any]]:
    """`{arch, arch_id, accuracy, latencies}` of each."""
    archs = predictor.space.from_rows(rows)
    by_device = {target.device_id: estimate_latencies(target.estimator, archs) for target in targets}
    return [
        {
            "arch": arch.to_dict(),
            "arch_id": arch.arch_id,
            "accuracy": accuracy,
            "latencies": {device_id: latencies[index] for device_id, latencies in by_device.items()},
        }
        for index, (arch, accuracy) in enumerate(zip(archs, describe_accuracies(predictor, rows), strict=True))
    ]


def estimate_latencies(estimator: LatencyEstimator, archs: Sequence[Arch]) -> list[dict[str, Any]]:
    """`{estimated, low, high, level}` of each, in milliseconds."""
    return [
        {
            "estimated": estimate.estimated_ms,
            "low": estimate.low_ms,
            "high": estimate.high_ms,
            "level": estimate.level,
        }
        for estimate in estimator.estimate(archs)
    ]


def sizes_of(space: SearchSpace, arch: Arch, *, precision: str) -> dict[str, int]:
    """`{macs, params, size_bytes, peak_memory_bytes}` of one arch."""
    rows, width = space.to_rows([arch]), BYTES_PER_NUMBER[precision]
    macs, params, peak = (int(cost(space)(rows)[0]) for cost in (macs_cost, params_cost, peak_memory_cost))
    return {"macs": macs, "params": params, "size_bytes": params * width, "peak_memory_bytes": peak * width}


def look_up(front: Front, target: Target, question: Question) -> Rows | None:
    """The front's row `(1, n_slots)` that answers a question of one device; None where only a search can tell."""
    if question.resolutions is not None or question.candidates or set(question.constraints) - {"accuracy_min"}:
        return None
    least = question.constraints.get("accuracy_min")
    budget = target.budget.get("latency_ms")
    if set(target.budget) - {"latency_ms"}:
        return None
    ratio = 1.0 if question.confidence is None else target.estimator.ratio_at(question.confidence)
    if question.minimised() is None and budget is not None:
        index = front.most_accurate(budget / ratio)
        found = index is not None and (least is None or front.accuracies[index] >= least)
    elif question.minimised() == "latency_ms" and least is not None:
        index = front.cheapest(least)
        found = index is not None and (budget is None or front.costs[index] * ratio <= budget)
    else:
        return None
    return front.rows[index : index + 1] if found and index is not None else None


def _energy(target: Target, arch: Arch) -> float | None:
    """Millijoules; None where the table does not know them."""
    energy = target.estimator.energy
    if energy is None or arch.resolution not in target.estimator.energy_resolutions:
        return None
    return float(energy.of([arch])[0])
