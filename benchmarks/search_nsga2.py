"""NSGA-II of pymoo on the question of search.py: our predictor and our cost, so that only the search differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from search_peers import POPULATION, RESOLUTIONS, Question, Stopwatch, points_of
from search_runs import Run

from supernet.search.front import Front

if TYPE_CHECKING:
    from search_runs import Task

    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows


class Tradeoff(Problem):  # type: ignore[misc]
    """Latency and accuracy of archs; with a limit, latencies beyond it are infeasible.

    Variables are choice indices, that of the resolution among those searched.
    """

    def __init__(self, question: Question, limit_ms: float | None) -> None:
        self._question, self._limit_ms = question, limit_ms
        self._sizes = np.array([question.space.resolutions.index(size) for size in RESOLUTIONS])
        self.evaluated: list[tuple[Rows, Values, Values]] = []
        highest = [len(RESOLUTIONS) - 1, *(len(slot.choices) - 1 for slot in question.space.slots[1:])]
        n_limits = int(limit_ms is not None)
        super().__init__(n_var=len(highest), n_obj=2, n_ieq_constr=n_limits, xl=0, xu=np.array(highest), vtype=int)

    def to_rows(self, variables: Any) -> Rows:
        rows = np.around(variables).astype(np.int16)
        rows[:, 0] = self._sizes[rows[:, 0]]
        return self._question.space.canonicalize_rows(rows)

    def from_rows(self, rows: Rows) -> Any:
        variables = rows.astype(int)
        variables[:, 0] = np.searchsorted(self._sizes, rows[:, 0])
        return variables

    def _evaluate(self, variables: Any, out: dict[str, Any], *_arguments: Any, **_options: Any) -> None:
        rows = self.to_rows(variables)
        costs, accuracies = self._question.cost(rows), self._question.predictor.predict(rows)
        self.evaluated.append((rows, costs, accuracies))
        out["F"] = np.column_stack([costs, -accuracies])
        if self._limit_ms is not None:
            out["G"] = (costs / self._limit_ms - 1)[:, None]


class Canonical(Repair):  # type: ignore[misc]
    """Rounds, so that archs which differ in skipped blocks alone count as one: NSGA-II drops duplicates."""

    def _do(self, problem: Tradeoff, variables: Any, **_options: Any) -> Any:
        return problem.from_rows(problem.to_rows(variables))


@dataclass(frozen=True)
class Nsga2:
    """NSGA-II with the operators its documentation gives for whole numbers.

    Answers are read from all archs it ever evaluated, its last population among them.

    Source: Deb et al. 2002; pymoo 0.6.2, "Discrete variables": simulated binary crossover and polynomial mutation.
    """

    question: Question
    budgets_ms: list[float]

    def __call__(self, task: Task) -> Run:
        """With the budget as a constraint, or a whole front where the task has none."""
        problem = Tradeoff(self.question, task.budget_ms)
        operators = {"prob": 1.0, "eta": 3.0, "vtype": float, "repair": Canonical()}
        algorithm = NSGA2(
            pop_size=POPULATION,
            sampling=IntegerRandomSampling(),
            crossover=SBX(**operators),
            mutation=PM(**operators),
            eliminate_duplicates=True,
        )
        watch = Stopwatch()
        minimize(problem, algorithm, ("n_eval", task.evaluations), seed=task.seed, verbose=False)
        times = watch.read()
        rows, costs, accuracies = (np.concatenate(parts) for parts in zip(*problem.evaluated, strict=True))
        front = Front.of(rows, costs, accuracies)
        if task.budget_ms is not None:
            return Run(task, *times, len(rows), self.question.read_out(front, [task.budget_ms]))
        return Run(task, *times, len(rows), self.question.read_out(front, self.budgets_ms), points_of(front))
