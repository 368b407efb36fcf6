"""Archs within all budgets: one to start from, repair of those beyond, and the nearest arch where there is none."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from supernet.errors import InfeasibleBudgetError
from supernet.search.limits import cheapest_row, lowest_row
from supernet.spaces.costs import AdditiveCost

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supernet.search.problem import SearchProblem
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows

# Largest share of slots that one attempt of a repair takes from the anchor.
_MIXED = 0.5
_WEIGHTINGS = 30
_DESCENTS, _IDLE = 20, 2
_KEPT = 24


def find_anchor(problem: SearchProblem, rng: np.random.Generator) -> Rows:
    """A row `(1, n_slots)` that keeps every budget with room to spare.

    Exact for one budget, and for one sum beside one peak. Several sums are weighted against each other: weights whose
    cheapest arch keeps all budgets are searched, then the summed relative excess is descended for a bounded time.

    Raises:
        InfeasibleBudgetError: A budget cannot be kept, or no arch was found that keeps all of them.
    """
    space, resolutions = problem.space, problem.resolution_indices
    if not problem.constraints:
        anchor = np.zeros((1, len(space.slots)), np.int16)
        anchor[0, 0] = resolutions[0]
        return anchor
    alone = np.concatenate([lowest_row(limit.cost, resolutions) for limit in problem.constraints])
    excesses = np.diag(problem.excesses(alone))
    if excesses.max() > 0:
        binding = int(excesses.argmax())
        raise _cannot_keep(problem, alone[binding : binding + 1], binding)

    tried = [alone]
    sums = [index for index, limit in enumerate(problem.constraints) if isinstance(limit.cost, AdditiveCost)]
    weights = np.full(len(problem.summed), 1 / len(problem.summed))
    for _ in range(_WEIGHTINGS):
        row = cheapest_row(space, _weighted(problem, weights), resolutions)
        excess = problem.excesses(row)[:, 0]
        if excess.max() <= 0:
            return row
        tried.append(row)
        if not sums or weights @ excess[sums] > 0:
            break  # the cheapest arch under these weights breaks their joint budget: no arch keeps all
        weights = weights * np.exp(np.clip(2 * excess[sums], -2, 2))
        weights /= weights.sum()
    nearest = _descend(problem, np.concatenate(tried), rng)
    if problem.feasible(nearest)[0]:
        return nearest
    raise _cannot_keep_together(problem, nearest)


def repair(problem: SearchProblem, rows: Rows, anchor: Rows, *, rng: np.random.Generator, attempts: int = 4) -> Rows:
    """Mix rows beyond a budget with the anchor until they are within, or leave them out.

    Args:
        problem: The budgets.
        rows: `(n_archs, n_slots)` canonical.
        anchor: `(1, n_slots)` within all budgets.
        rng: Draws which slots come from the anchor: up to half of them, each time of what is left.
        attempts: After which a row is left out.

    Returns:
        Canonical rows within all budgets, the untouched ones first; possibly none.
    """
    kept = problem.feasible(rows)
    within, beyond = [rows[kept]], rows[~kept]
    for _ in range(attempts):
        if not len(beyond):
            break
        share = rng.uniform(0, _MIXED, (len(beyond), 1))
        beyond = problem.space.canonicalize_rows(np.where(rng.random(beyond.shape) < share, anchor, beyond))
        kept = problem.feasible(beyond)
        within.append(beyond[kept])
        beyond = beyond[~kept]
    return np.concatenate(within)


def sample_within(problem: SearchProblem, n_archs: int, anchor: Rows, *, rng: np.random.Generator) -> Rows:
    """Draw rows within all budgets: uniform ones, repaired where needed. Up to `n_archs`, repeats possible."""
    rows = at_resolutions(problem, problem.space.sample_rows(rng, n_archs), rng=rng)
    return repair(problem, rows, anchor, rng=rng)


def at_resolutions(problem: SearchProblem, rows: Rows, *, rng: np.random.Generator) -> Rows:
    """Redraw, in place, resolutions the problem does not offer."""
    wrong = np.flatnonzero(~np.isin(rows[:, 0], problem.resolution_indices))
    rows[wrong, 0] = rng.choice(problem.resolution_indices, len(wrong))
    return rows


def neighbours(problem: SearchProblem, row: Rows) -> Rows:
    """Every arch that differs from `(1, n_slots)` in one slot; a block that begins to run takes its first choices.

    Returns:
        `(n_neighbours, n_slots)` canonical rows, budgets not regarded; repeats are possible.
    """
    columns, choices = changes(problem, row)
    rows = np.repeat(row, len(columns), axis=0)
    rows[np.arange(len(columns)), columns] = choices
    return problem.space.canonicalize_rows(rows)


def changes(problem: SearchProblem, row: Rows) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Column and new choice of every change of one slot of `(1, n_slots)`, each `(n_changes,)`."""
    offered = [np.arange(len(slot.choices), dtype=np.int16) for slot in problem.space.slots]
    offered[0] = problem.resolution_indices.astype(np.int16)
    columns = np.repeat(np.arange(len(offered), dtype=np.int16), [len(choices) for choices in offered])
    choices = np.concatenate(offered)
    differs = choices != row[0, columns]
    return columns[differs], choices[differs]


def _weighted(problem: SearchProblem, weights: Values) -> list[Values]:
    """Tables of the weighted sum of all additive costs, each over its budget."""
    maxima = [limit.maximum for limit in problem.constraints if isinstance(limit.cost, AdditiveCost)] or [1.0]
    shares = weights / maxima
    by_position = zip(*(cost.tables for cost in problem.summed), strict=True)
    return [
        sum((share * table for share, table in zip(shares, tables, strict=True)), np.zeros(()))
        for tables in by_position
    ]


def _descend(problem: SearchProblem, rows: Rows, rng: np.random.Generator) -> Rows:
    """The row with the least summed relative excess that a bounded descent finds."""
    least, idle = np.inf, 0
    for _ in range(_DESCENTS):
        rows = np.unique(rows, axis=0)
        violations = np.maximum(problem.excesses(rows), 0).sum(axis=0)
        rows = rows[np.argsort(violations, kind="stable")[:_KEPT]]
        least, idle = violations.min(), 0 if violations.min() < least else idle + 1
        if least == 0 or idle == _IDLE:
            break
        mutants = problem.space.mutate_rows(np.repeat(rows, 4, axis=0), rng, probability=0.05)
        mixed = problem.space.crossover_rows(rows, rng.permutation(rows), rng)
        children = at_resolutions(problem, np.concatenate([mutants, mixed]), rng=rng)
        rows = np.concatenate([rows, neighbours(problem, rows[:1]), children])
    violations = np.maximum(problem.excesses(rows), 0).sum(axis=0)
    return rows[[int(violations.argmin())]]


def not_accurate_enough(problem: SearchProblem, nearest: Rows, accuracy: float) -> InfeasibleBudgetError:
    """The error where the most accurate arch found, `(1, n_slots)`, is less accurate than asked for."""
    within = " within the budgets" if problem.constraints else ""
    # Rounded down: an accuracy lowered to what is shown can be met.
    reached = floor(accuracy * 10_000) / 100
    return InfeasibleBudgetError(
        f"No arch of '{problem.space.name}' at {_resolutions(problem)} was found{within} whose accuracy is at least "
        f"{100 * (problem.accuracy_min or 0):g} %: the most accurate one reaches {reached:g} %. Ask for at most that, "
        "or raise a budget.",
        binding="accuracy_min",
        best_achievable={"accuracy": accuracy, **problem.named_costs(nearest)},
        arch=problem.space.from_rows(nearest)[0],
    )


def _cannot_keep(problem: SearchProblem, nearest: Rows, binding: int) -> InfeasibleBudgetError:
    constraint = problem.constraints[binding]
    values = problem.named_costs(nearest)
    least = _shown(constraint.name, values[constraint.name])
    return InfeasibleBudgetError(
        f"{_label(constraint.name)} budget {_shown(constraint.name, constraint.maximum)} cannot be met: the nearest "
        f"arch of '{problem.space.name}' at {_resolutions(problem)} needs {least}. Raise the budget to at least "
        f"{least} or choose another supernet or device.",
        binding=constraint.name,
        best_achievable=values,
        arch=problem.space.from_rows(nearest)[0],
    )


def _cannot_keep_together(problem: SearchProblem, nearest: Rows) -> InfeasibleBudgetError:
    values = problem.named_costs(nearest)
    binding = problem.constraints[int(problem.excesses(nearest)[:, 0].argmax())].name
    budgets = " and ".join(_shown_as(limit.name, limit.maximum) for limit in problem.constraints)
    reached = " and ".join(_shown_as(name, value) for name, value in values.items())
    return InfeasibleBudgetError(
        f"The budgets {budgets} cannot be met together: the nearest arch found in '{problem.space.name}' at "
        f"{_resolutions(problem)} needs {reached}. Raise a budget to what it needs.",
        binding=binding,
        best_achievable=values,
        arch=problem.space.from_rows(nearest)[0],
    )


def _resolutions(problem: SearchProblem) -> str:
    sizes = problem.searched_resolutions
    return f"resolution {sizes[0]}" if len(sizes) == 1 else f"resolutions {sizes[0]} to {sizes[-1]}"


_UNITS = ("ms", "mj", "bytes")


def _label(name: str) -> str:
    quantity, _, device = name.partition("@")
    stem, _, unit = quantity.rpartition("_")
    words = (stem if unit in _UNITS and stem else quantity).replace("_", " ")
    return words[:1].upper() + words[1:] + (f" on {device}" if device else "")


def _shown_as(name: str, value: float) -> str:
    label = _label(name)
    return f"{label[:1].lower()}{label[1:]} {_shown(name, value)}"


def _shown(name: str, value: float) -> str:
    """A value with its unit, rounded up: a budget raised to what is shown can be met."""
    unit = name.partition("@")[0].rpartition("_")[2]
    if value >= 1000:
        number = f"{ceil(value):,}"
    else:
        number = f"{ceil(value * 1000) / 1000:g}" if value >= 0.001 else str(float(value))
    return f"{number} {unit}" if unit in _UNITS else number
