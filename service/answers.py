"""The answer to a search, from values alone: no database, no HTTP. The API and `tailor search` share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.errors import ConflictError
from supernet.errors import InvalidConfigError
from supernet.predictors.predictor import Predictor, describe_accuracy
from supernet.search.evolution import evolve
from supernet.search.problem import Constraint, SearchProblem
from supernet.spaces.costs import macs, macs_cost, params, params_cost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from latency_tables.estimator import LatencyEstimator
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

BYTES_PER_PARAM = {"fp32": 4}


def common_resolutions(space: SearchSpace, estimator: LatencyEstimator, predictor: Predictor | None) -> tuple[int, ...]:
    """The resolutions that space, table and, where there is one, predictor know; others cannot be searched.

    Raises:
        ConflictError: `no_common_resolution`.
    """
    predicted = predictor.resolutions if predictor else space.resolutions
    known = set(estimator.resolutions) & set(predicted)
    common = tuple(resolution for resolution in space.resolutions if resolution in known)
    if not common:
        raise ConflictError(
            f"Space {list(space.resolutions)}, table {list(estimator.resolutions)} and predictor {list(predicted)} "
            "know no resolution in common. Measure a table with the predictor's resolutions.",
            code="no_common_resolution",
        )
    return common


def find_best(
    predictor: Predictor,
    estimator: LatencyEstimator,
    *,
    constraints: Mapping[str, float],
    confidence: float | None,
    precision: str,
    evaluations: int,
    seed: int,
    resolutions: Sequence[int] | None = None,
) -> tuple[Arch, dict[str, Any]]:
    """Search for the most accurate arch within the constraints.

    Args:
        predictor: Of the supernet.
        estimator: Of the device, for the predictor's space.
        constraints: Upper limit by name: `latency_ms`, `macs`, `params`, `size_bytes`.
        confidence: Quantile of the latency that is held to the budget; None for the estimate itself.
        precision: Decides the bytes per parameter.
        evaluations: Upper limit of the archs to look at.
        seed: Same seed, same answer.
        resolutions: To search among; by default all that are known.

    Returns:
        The arch, and the parts of the search object that describe it and the search.

    Raises:
        ConflictError: `no_common_resolution`.
        InvalidConfigError: A resolution or a limit that is not on offer.
        InfeasibleBudgetError: Nothing meets the constraints.
    """
    space = predictor.space
    known = common_resolutions(space, estimator, predictor)
    if unknown := sorted(set(resolutions or ()) - set(known)):
        raise InvalidConfigError(
            f"Resolutions {unknown} cannot be searched; space, table and predictor all know {list(known)}."
        )
    costs = {
        # A quantile of the latency is a multiple of the estimate. The cost is scaled rather than the budget, so that an
        # infeasible budget is reported in what was asked for.
        "latency_ms": estimator.cost if confidence is None else estimator.cost.scaled(estimator.ratio_at(confidence)),
        "macs": macs_cost(space),
        "params": params_cost(space),
        "size_bytes": params_cost(space).scaled(BYTES_PER_PARAM[precision]),
    }
    problem = SearchProblem(
        space=space,
        accuracy=predictor.predict,
        constraints=tuple(Constraint(name, costs[name], float(limit)) for name, limit in constraints.items()),
        resolutions=tuple(resolutions or known),
    )
    found = evolve(problem, evaluations=evaluations, seed=seed)
    return found.arch, {
        "arch": found.arch.to_dict(),
        "arch_id": found.arch.arch_id,
        "accuracy": describe_accuracy(predictor, found.arch),
        "latency_ms": estimate_latency(estimator, found.arch),
        "latencies": None,
        **sizes_of(space, found.arch, precision=precision),
        "peak_memory_bytes": None,
        "evaluations": found.evaluations,
        "seconds": found.seconds,
        "source": "evolution",
    }


def estimate_latency(estimator: LatencyEstimator, arch: Arch) -> dict[str, Any]:
    """`{estimated, low, high, level}` in milliseconds."""
    (estimate,) = estimator.estimate([arch])
    return {
        "estimated": estimate.estimated_ms,
        "low": estimate.low_ms,
        "high": estimate.high_ms,
        "level": estimate.level,
    }


def sizes_of(space: SearchSpace, arch: Arch, *, precision: str) -> dict[str, int]:
    """`{macs, params, size_bytes}` of one arch."""
    count = params(space, arch)
    return {"macs": macs(space, arch), "params": count, "size_bytes": count * BYTES_PER_PARAM[precision]}
