"""SearchProblem: what is asked of a search, and SearchResult: what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.search.limits import cheapest_values
from supernet.spaces.costs import AdditiveCost, BlockCost, PeakCost, Values, macs_cost
from supernet.spaces.space import Rows, SearchSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supernet.spaces.arch import Arch

# Places on an axis have a logarithm.
_LEAST_PLACE = 1e-12


@dataclass(frozen=True, slots=True)
class Constraint:
    """A budget: a cost and its largest allowed value.

    Attributes:
        name: With its unit: `latency_ms`, `macs`, `size_bytes`, …
        cost: Prices archs in that unit; infinite for archs it does not know, such as those at resolutions a latency
            table lacks.
        maximum: Positive and finite.
    """

    name: str
    cost: BlockCost
    maximum: float

    def __post_init__(self) -> None:
        """Refuse budgets that are no positive number."""
        if not _is_number(self.maximum) or not isfinite(self.maximum) or self.maximum <= 0:
            raise InvalidConfigError(f"The budget '{self.name}' must be a positive number, got {self.maximum!r}.")


@dataclass(frozen=True, slots=True)
class Objective:
    """A cost to keep as low as an accuracy allows.

    Attributes:
        name: With its unit, as of a `Constraint`.
        cost: Prices archs in that unit, all of them positive.
    """

    name: str
    cost: AdditiveCost


@dataclass(frozen=True)
class SearchProblem:
    """The most accurate arch of a space within budgets, or the one with the lowest objective that is accurate enough.

    Attributes:
        space: The search space.
        accuracy: Top-1 accuracies `(n_archs,)` of canonical rows `(n_archs, n_slots)`; higher is better.
        constraints: Names are unique; all costs belong to the space. Without any, every arch is allowed.
        resolutions: Those the caller allows, such as what a predictor knows; all when None.
        objective: What is minimised; the accuracy is maximised when None.
        accuracy_min: Least accuracy of the answer, a fraction.
    """

    space: SearchSpace
    accuracy: Callable[[Rows], Values]
    constraints: tuple[Constraint, ...] = ()
    resolutions: tuple[int, ...] | None = None
    objective: Objective | None = None
    accuracy_min: float | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        names = [constraint.name for constraint in self.constraints]
        if len(set(names)) < len(names):
            raise InvalidConfigError(f"Budgets have unique names, got {names}; keep the smallest of each.")
        for priced in self._priced:
            if priced.cost.space.fingerprint != self.space.fingerprint:
                raise InvalidConfigError(
                    f"The costs of '{priced.name}' belong to space '{priced.cost.space.name}', "
                    f"not to '{self.space.name}' with {self.space.classes} classes."
                )
        least = self.accuracy_min
        if least is not None and not (_is_number(least) and 0 < least < 1):
            raise InvalidConfigError(f"The least accuracy is a fraction between 0 and 1, got {least!r}.")
        if not len(self.resolution_indices):
            asked = list(self.space.resolutions if self.resolutions is None else self.resolutions)
            raise InvalidConfigError(
                f"No resolution is left to search: '{self.space.name}' has {list(self.space.resolutions)}, {asked} are "
                f"asked for, and the costs {names} may know others only. Ask for resolutions that all of them know."
            )

    @cached_property
    def resolution_indices(self) -> NDArray[np.intp]:
        """Choice indices of the resolutions to search, ascending: allowed, offered and known to every cost."""
        known = np.ones(len(self.space.resolutions), bool)
        if self.resolutions is not None:
            known &= np.isin(self.space.resolutions, self.resolutions)
        for priced in self._priced:
            if isinstance(priced.cost, AdditiveCost):
                known &= np.isfinite(cheapest_values(priced.cost))
        return np.flatnonzero(known)

    @property
    def searched_resolutions(self) -> tuple[int, ...]:
        """The same in pixels."""
        return tuple(self.space.resolutions[index] for index in self.resolution_indices)

    @cached_property
    def maxima(self) -> Values:
        """`(n_constraints,)`."""
        return np.array([constraint.maximum for constraint in self.constraints], np.float64)

    def costs(self, rows: Rows) -> Values:
        """`(n_constraints, n_archs)`, in the order of the constraints."""
        return np.array([constraint.cost(rows) for constraint in self.constraints]).reshape(
            len(self.constraints), len(rows)
        )

    def excesses(self, rows: Rows) -> Values:
        """`(n_constraints, n_archs)`: cost over budget minus 1; above 0 where the budget is broken."""
        with np.errstate(over="ignore"):  # a budget next to 0 is broken by any factor
            return self.costs(rows) / self.maxima[:, None] - 1

    def feasible(self, rows: Rows) -> NDArray[np.bool_]:
        """`(n_archs,)`: whether all budgets are kept."""
        kept = np.ones(len(rows), bool)
        for constraint in self.constraints:
            kept &= constraint.cost(rows) <= constraint.maximum
        return kept

    def within(self, rows: Rows) -> Rows:
        """Those that keep all budgets, in order."""
        return rows[self.feasible(rows)]

    def places(self, rows: Rows) -> Values:
        """`(n_archs,)`: where archs lie on the axis along which the answer is sought, positive.

        The objective; without one the share of its budget that an arch uses up, of all budgets the largest; without
        budgets the MACs.
        """
        if self.objective is not None:
            return self.objective.cost(rows)
        if not self.constraints:
            return macs_cost(self.space)(rows)
        shares: Values = np.maximum(self.excesses(rows).max(axis=0) + 1, _LEAST_PLACE)
        return shares

    def restricted(self, cost: AdditiveCost) -> AdditiveCost:
        """The same cost, infinite for blocks that alone exceed a budget of a peak: its archs keep these budgets."""
        allowed = [np.ones(table.shape, bool) for table in cost.tables]
        for limit in self.constraints:
            if isinstance(limit.cost, PeakCost):
                allowed = [
                    may & (table <= limit.maximum) for may, table in zip(allowed, limit.cost.tables, strict=True)
                ]
        return cost.restricted(allowed)

    @cached_property
    def summed(self) -> tuple[AdditiveCost, ...]:
        """The additive costs of the constraints, restricted; where there is none, the MACs."""
        costs = [limit.cost for limit in self.constraints if isinstance(limit.cost, AdditiveCost)]
        return tuple(self.restricted(cost) for cost in costs or [macs_cost(self.space)])

    @cached_property
    def traced(self) -> tuple[AdditiveCost, ...]:
        """The costs over which fronts of additive models are worth tracing: each one, and all together."""
        if self.objective is not None:
            return (self.restricted(self.objective.cost),)
        if len(self.summed) < 2:
            return self.summed
        maxima = [limit.maximum for limit in self.constraints if isinstance(limit.cost, AdditiveCost)]
        shares = [cost.scaled(1 / maximum) for cost, maximum in zip(self.summed, maxima, strict=True)]
        together = shares[0].scaled(1)
        together.tables = [np.sum(tables, axis=0) for tables in zip(*(cost.tables for cost in shares), strict=True)]
        together.fixed = sum(cost.fixed for cost in shares)
        return (*self.summed, together)

    def named_costs(self, row: Rows) -> dict[str, float]:
        """What `(1, n_slots)` costs, by the names of constraints and objective."""
        return {priced.name: float(priced.cost(row)[0]) for priced in self._priced}

    @property
    def _priced(self) -> tuple[Constraint | Objective, ...]:
        return self.constraints if self.objective is None else (*self.constraints, self.objective)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The best arch a search found.

    Attributes:
        arch: Canonical; keeps every budget.
        accuracy: What the problem's function says of it.
        costs: Of the arch, by the name of the constraint or the objective.
        evaluations: Distinct archs whose accuracy was asked.
        generations: Rounds of the search.
        seconds: Wall-clock time.
        candidates: `(n_archs, n_slots)` what else it came upon: archs that keep every budget and that none it tried
            beats in accuracy and cost at once. The answer comes first, then the next best.
    """

    arch: Arch
    accuracy: float
    costs: dict[str, float]
    evaluations: int
    generations: int
    seconds: float
    candidates: Rows = field(compare=False, repr=False)
