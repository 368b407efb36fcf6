"""The question that search.py asks, and two who answer: our search and the reference's finder.

The reference has a predictor and a table of its own, from the same files.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from reference_differences import load_reference, seeded
from search_runs import Answer, Run

from latency_tables.convert import import_ofa_tables
from latency_tables.estimator import LatencyEstimator
from supernet.errors import InfeasibleBudgetError
from supernet.ofa.predictors import import_predictor
from supernet.search.evolution import evolve
from supernet.search.front import Front, trace_front
from supernet.search.limits import cheapest_arch
from supernet.search.problem import Constraint, Objective, SearchProblem
from supernet.spaces.arch import Arch
from supernet.spaces.costs import macs_cost
from supernet.spaces.presets import load_space

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search_runs import Task

    from supernet.predictors.ofa_network import OfaPredictor
    from supernet.spaces.costs import AdditiveCost
    from supernet.spaces.space import SearchSpace

    Searcher = Callable[[Task], Run]

SPACE = "ofa_mbv3_w1.2"
RESOLUTIONS = (160, 176, 192, 208, 224)
FIRST, SECOND = "latency_ms@note10", "latency_ms@macs_proportional"
# Of the reference and of NSGA-II: the default of both.
POPULATION = 100
_DRAWN, _CALLS = 10_000, 20
_BATCH = 1000


@dataclass(frozen=True)
class Question:
    """What everybody is asked: the files, read once.

    Attributes:
        space: The search space.
        predictor: Of accuracies.
        cost: Latency on the phone, ms.
        second: Latency on a device that does not exist: proportional to the MACs, and such that the median arch takes
            as long as on the phone. No second table of this space is public.
        data: The folder.
    """

    space: SearchSpace
    predictor: OfaPredictor
    cost: AdditiveCost
    second: AdditiveCost
    data: Path

    @classmethod
    def read(cls, data: Path) -> Question:
        """Read the predictor and the tables."""
        space = load_space(SPACE)
        table = import_ofa_tables(data / "ofa_note10", space, "note10", resolutions=RESOLUTIONS)
        cost, macs = LatencyEstimator(table, space).cost, macs_cost(space)
        rng = np.random.default_rng(0)
        rows = space.sample_rows(rng, _DRAWN)
        rows[:, 0] = rng.choice([space.resolutions.index(size) for size in RESOLUTIONS], _DRAWN)
        second = macs.scaled(float(np.median(cost(rows)) / np.median(macs(rows))))
        return cls(space, import_predictor(data / "ofa_acc_predictor.pth", space), cost, second, data)

    def problem(self, **budgets_ms: float) -> SearchProblem:
        """The most accurate arch within `first` and `second`, as far as they are given."""
        limits = {"first": (FIRST, self.cost), "second": (SECOND, self.second)}
        constraints = tuple(Constraint(*limits[name], budget_ms) for name, budget_ms in budgets_ms.items())
        return SearchProblem(self.space, self.predictor.predict, constraints, RESOLUTIONS)

    def answer(self, budget_ms: float, arch: Arch, **own: float) -> Answer:
        """An answer as our table and our predictor see it."""
        rows = self.space.to_rows([arch])
        return Answer(
            budget_ms=budget_ms,
            latency_ms=float(self.cost(rows)[0]),
            second_ms=float(self.second(rows)[0]),
            accuracy=float(self.predictor.predict(rows)[0]),
            arch=arch.to_dict(),
            **own,
        )

    def read_out(self, front: Front, budgets_ms: list[float]) -> tuple[Answer, ...]:
        """The most accurate archs of a front within each budget."""
        found = [(budget_ms, front.most_accurate(budget_ms)) for budget_ms in budgets_ms]
        return tuple(
            self.answer(budget_ms, self.space.from_rows(front.rows[index : index + 1])[0])
            for budget_ms, index in found
            if index is not None
        )


class Stopwatch:
    """Runs since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds on the wall and of the process."""
        return time.perf_counter() - self._started[0], time.process_time() - self._started[1]


# ---------------------------------------------------------------------- ours


def search_once(question: Question, task: Task, devices: tuple[str, ...]) -> Run:
    """`evolve` with the task's budget on each of the devices, `first` and `second`."""
    watch = Stopwatch()
    budgets_ms = dict.fromkeys(devices, budget_of(task))
    found = evolve(question.problem(**budgets_ms), evaluations=task.evaluations, seed=task.seed)
    return Run(task, *watch.read(), found.evaluations, (question.answer(budget_of(task), found.arch),))


def trace_once(question: Question, task: Task, budgets_ms: list[float]) -> Run:
    """`trace_front` of the phone."""
    shares: list[float] = []
    watch = Stopwatch()
    front = trace_front(
        question.problem(),
        Objective(FIRST, question.cost),
        evaluations=task.evaluations,
        seed=task.seed,
        on_progress=shares.append,
    )
    times = watch.read()
    asked = round(shares[-1] * task.evaluations)
    return Run(task, *times, asked, question.read_out(front, budgets_ms), points_of(front))


def points_of(front: Front) -> tuple[tuple[float, float], ...]:
    return tuple(zip(front.costs.tolist(), front.accuracies.tolist(), strict=True))


def budget_of(task: Task) -> float:
    assert task.budget_ms is not None
    return task.budget_ms


# ---------------------------------------------------------------------- the reference


class ReferenceFinder:
    """The tutorial's `EvolutionFinder` with its predictor and its latency table, on one thread."""

    def __init__(self, question: Question) -> None:
        torch.set_num_threads(1)
        self._question = question
        self._finders = load_reference("tutorial.evolution_finder")
        # Progress bars are left out.
        self._finders.tqdm = lambda rounds, **_options: rounds
        self.predictor = load_reference("tutorial.accuracy_predictor").AccuracyPredictor(pretrained=False, device="cpu")
        file = question.data / "ofa_acc_predictor.pth"
        self.predictor.model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        tables = load_reference("tutorial.latency_table")
        # It calls `yaml.load` without a loader, which PyYAML has refused since version 6, and would download the files.
        tables.yaml = SimpleNamespace(load=yaml.safe_load)
        self._table = tables.LatencyTable(resolutions=())
        for size in RESOLUTIONS:
            path = question.data / "ofa_note10" / f"{size}_lookup_table.yaml"
            self._table.latency_tables[size] = tables.LatencyEstimator(url=str(path))

    def __call__(self, task: Task) -> Run:
        """Search as often as the evaluations allow; those of the last generation it never reads come on top."""
        budget_ms, generations = budget_of(task), task.evaluations // POPULATION
        finder = self._finders.EvolutionFinder(
            "note10",
            budget_ms,
            self._table,
            self.predictor,
            population_size=POPULATION,
            max_time_budget=generations,
        )
        # It draws from the generators of the whole process.
        np.random.seed(task.seed)  # noqa: NPY002, TID251
        with seeded(task.seed):
            watch = Stopwatch()
            _, (accuracy, choice, latency_ms) = finder.run_evolution_search()
            times = watch.read()
        arch = Arch.from_ofa(choice, self._question.space)
        answer = self._question.answer(budget_ms, arch, own_latency_ms=float(latency_ms), own_accuracy=float(accuracy))
        return Run(task, *times, POPULATION * (generations + 1), (answer,))

    def predictions_per_s(self) -> float:
        """Accuracies per second of whole populations; the median of several calls."""
        manager = self._finders.ArchManager()
        with seeded(0):
            population = [manager.random_sample() for _ in range(POPULATION)]
        return _rate(lambda: self.predictor.predict_accuracy(population), POPULATION)


# ---------------------------------------------------------------------- speeds


def impossible_ms(question: Question) -> list[float]:
    """How long a budget that no arch keeps takes to be refused, again and again."""
    _, least_ms = cheapest_arch(question.cost, RESOLUTIONS)
    found = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        try:
            evolve(question.problem(first=least_ms / 2))
        except InfeasibleBudgetError:
            found.append(1000 * (time.perf_counter() - started))
    assert len(found) == _CALLS
    return found


def predictions_per_s(question: Question) -> float:
    """Accuracies per second of batches as a search has them; the median of several calls."""
    rows = question.space.sample_rows(np.random.default_rng(0), _BATCH)
    rows[:, 0] = question.space.resolutions.index(RESOLUTIONS[0])
    return _rate(lambda: question.predictor.predict(rows), _BATCH)


def _rate(call: Callable[[], object], count: int) -> float:
    call()
    seconds = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return count / float(np.median(seconds))
