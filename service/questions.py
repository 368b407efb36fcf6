"""What a search is asked, and the search problem it becomes: budgets by name to costs of a device and a supernet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.errors import ConflictError, InvalidRequestError
from supernet.errors import InvalidConfigError
from supernet.search.limits import cheapest_arch, dearest_arch
from supernet.search.problem import Constraint, Objective, SearchProblem
from supernet.spaces.costs import macs_cost, params_cost, peak_memory_cost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from latency_tables.estimator import LatencyEstimator
    from supernet.predictors.predictor import Predictor
    from supernet.spaces.costs import AdditiveCost, BlockCost
    from supernet.spaces.space import SearchSpace

BYTES_PER_NUMBER = {"fp32": 4, "int8": 1}
ACCURACY = "accuracy"
OBJECTIVES = (ACCURACY, "latency_ms", "energy_mj", "macs", "params", "size_bytes")
CONSTRAINTS = ("energy_mj", "macs", "params", "size_bytes", "peak_memory_bytes", "accuracy_min")
# Budgets that belong to a device; several devices have one each.
LATENCY_BUDGETS = ("latency_ms", "latency_percent")


@dataclass(frozen=True)
class Target:
    """A device to search for.

    Attributes:
        device_id: For messages and answers.
        estimator: Of its table, for the space of the search.
        budget: At most one of `LATENCY_BUDGETS`, with its value.
    """

    device_id: str
    estimator: LatencyEstimator
    budget: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What is asked for, whatever the device.

    Attributes:
        constraints: Upper limits by name: `energy_mj`, `macs`, `params`, `size_bytes`, `peak_memory_bytes`; and
            `accuracy_min`, a fraction.
        objective: One of `OBJECTIVES`; None for the latency of one device where `accuracy_min` is given, else the
            accuracy.
        confidence: Quantile of the latency that is held to the budget; None for the estimate itself.
        precision: Decides the bytes per number.
        evaluations: Upper limit of the archs to look at.
        seed: Same seed, same answer.
        resolutions: To search among; all that are known when None.
        candidates: How many of the best archs to name besides the answer, for whoever wants to measure them.
    """

    constraints: Mapping[str, float] = field(default_factory=dict)
    objective: str | None = None
    confidence: float | None = None
    precision: str = "fp32"
    evaluations: int = 10_000
    seed: int = 0
    resolutions: tuple[int, ...] | None = None
    candidates: int = 0

    def minimised(self, n_devices: int = 1) -> str | None:
        """Name of the cost that is minimised; None where the accuracy is maximised.

        Without an objective a least accuracy asks for the fastest subnet, if there is one device that it is fast on.
        """
        fastest = "latency_ms" if "accuracy_min" in self.constraints and n_devices == 1 else ACCURACY
        wanted = self.objective or fastest
        return None if wanted == ACCURACY else wanted


def common_resolutions(
    space: SearchSpace, estimators: Sequence[LatencyEstimator], predictor: Predictor | None
) -> tuple[int, ...]:
    """The resolutions that space, tables and, where there is one, predictor know; others cannot be searched.

    Raises:
        ConflictError: `no_common_resolution`.
    """
    predicted = predictor.resolutions if predictor else space.resolutions
    covered = [list(estimator.resolutions) for estimator in estimators]
    known = set(predicted).intersection(*covered)
    common = tuple(resolution for resolution in space.resolutions if resolution in known)
    if not common:
        tables = f"table {covered[0]}" if len(covered) == 1 else f"tables {covered}"
        raise ConflictError(
            f"Space {list(space.resolutions)}, {tables} and predictor {list(predicted)} know no resolution in common. "
            "Measure a table with the predictor's resolutions.",
            code="no_common_resolution",
        )
    return common


def build_problem(predictor: Predictor, targets: Sequence[Target], question: Question) -> SearchProblem:
    """The search problem of a question on one or several devices.

    Budgets of several devices are named `latency_ms@DEVICE`. A budget in percent becomes one in milliseconds: 0 is
    the device's fastest subnet, 100 its slowest.

    Raises:
        ConflictError: `no_common_resolution`, or `no_energy`: a table does not know the energy that is asked for.
        InvalidConfigError: A resolution or a limit that is not on offer.
        InvalidRequestError: An objective that several devices do not have in common.
    """
    space = predictor.space
    known = common_resolutions(space, [target.estimator for target in targets], predictor)
    if unknown := sorted(set(question.resolutions or ()) - set(known)):
        raise InvalidConfigError(
            f"Resolutions {unknown} cannot be searched; space, table and predictor all know {list(known)}."
        )
    resolutions = question.resolutions or known
    minimised = question.minimised(len(targets))
    if "energy_mj" in (*question.constraints, minimised):
        # A share of the range is one of what can be searched.
        at = targets[0].estimator.energy_resolutions
        resolutions = tuple(resolution for resolution in resolutions if resolution in at) or resolutions
    limits = [limit for target in targets for limit in _latency_limits(target, targets, question, resolutions)]
    limits += [
        Constraint(name, _cost_of(name, space, targets, question), limit)
        for name, limit in question.constraints.items()
        if name != "accuracy_min"
    ]
    return SearchProblem(
        space=space,
        accuracy=predictor.predict,
        constraints=tuple(limits),
        resolutions=tuple(resolutions),
        objective=None if minimised is None else Objective(minimised, _sum_of(minimised, space, targets, question)),
        accuracy_min=question.constraints.get("accuracy_min"),
    )


def latency_cost(estimator: LatencyEstimator, confidence: float | None) -> AdditiveCost:
    """Milliseconds that are held to a budget: the estimate, or the quantile of it at a confidence.

    A quantile is a multiple of the estimate. The cost is scaled rather than the budget, so that an infeasible budget is
    reported in what was asked for.
    """
    return estimator.cost if confidence is None else estimator.cost.scaled(estimator.ratio_at(confidence))


def _latency_limits(
    target: Target, targets: Sequence[Target], question: Question, resolutions: Sequence[int]
) -> list[Constraint]:
    """The latency budget of one of the devices, if it has one."""
    cost = latency_cost(target.estimator, question.confidence)
    name = "latency_ms" if len(targets) == 1 else f"latency_ms@{target.device_id}"
    if "latency_ms" in target.budget:
        return [Constraint(name, cost, float(target.budget["latency_ms"]))]
    if "latency_percent" in target.budget:
        share = float(target.budget["latency_percent"]) / 100
        least, most = cheapest_arch(cost, resolutions)[1], dearest_arch(cost, resolutions)[1]
        return [Constraint(name, cost, least + share * (most - least))]
    return []


def _cost_of(name: str, space: SearchSpace, targets: Sequence[Target], question: Question) -> BlockCost:
    if name == "peak_memory_bytes":
        return peak_memory_cost(space).scaled(BYTES_PER_NUMBER[question.precision])
    return _sum_of(name, space, targets, question)


def _sum_of(name: str, space: SearchSpace, targets: Sequence[Target], question: Question) -> AdditiveCost:
    """What an objective, or a budget that is no peak, is called after."""
    if name in ("latency_ms", "energy_mj") and len(targets) != 1:
        raise InvalidRequestError(
            f"'{name}' belongs to one device, not to {len(targets)} at once. Ask for each device alone, or for 'macs'."
        )
    match name:
        case "latency_ms":
            return latency_cost(targets[0].estimator, question.confidence)
        case "energy_mj":
            return _energy_of(targets[0])
        case "macs":
            return macs_cost(space)
        case "params":
            return params_cost(space)
        case "size_bytes":
            return params_cost(space).scaled(BYTES_PER_NUMBER[question.precision])
    raise InvalidRequestError(
        f"'{name}' is no constraint; there are {', '.join(CONSTRAINTS)}. Objectives are {', '.join(OBJECTIVES)}."
    )


def _energy_of(target: Target) -> AdditiveCost:
    energy = target.estimator.energy
    if energy is None:
        raise ConflictError(
            f"The table of '{target.device_id}' has no energies that cover a resolution. Register one whose rows have "
            "'energy_mj', or ask for a latency.",
            code="no_energy",
        )
    return energy
