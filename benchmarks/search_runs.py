"""Runs of searches: what one answered, the order in which searchers take turns, and their file of JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a searcher.

    Attributes:
        searcher: Its name.
        budget_ms: None where one run answers all budgets.
        seed: Of the searcher.
        evaluations: Archs whose accuracy it may ask.
    """

    searcher: str
    budget_ms: float | None
    seed: int
    evaluations: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run answered to a budget; our table and our predictor say what it costs and how accurate it is.

    Attributes:
        budget_ms: Upper limit of the latency.
        latency_ms: On the phone.
        second_ms: On the second device.
        accuracy: A fraction.
        arch: As `Arch.to_dict`.
        own_latency_ms: What the searcher's own table says, where it has one.
        own_accuracy: What its own predictor says.
    """

    budget_ms: float
    latency_ms: float
    second_ms: float
    accuracy: float
    arch: dict[str, Any]
    own_latency_ms: float | None = None
    own_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A finished task.

    Attributes:
        task: What was asked.
        seconds: Wall-clock time.
        cpu_s: Of the process, which a busy machine changes less.
        asked: How many accuracies were asked; of ours distinct archs only, of the others all.
        answers: In the order of their budgets; budgets without an arch have none.
        front: `(latency_ms, accuracy)` of the best archs of a run that answers all budgets.
    """

    task: Task
    seconds: float
    cpu_s: float
    asked: int
    answers: tuple[Answer, ...]
    front: tuple[tuple[float, float], ...] = ()

    def answer(self, budget_ms: float) -> Answer | None:
        """The answer to one of the budgets."""
        return next((answer for answer in self.answers if answer.budget_ms == budget_ms), None)


def in_turns(groups: Sequence[Sequence[Task]]) -> list[Task]:
    """Tasks in an order that spreads each group evenly over the time, so that noise falls on all alike.

    Args:
        groups: Tasks that differ in the seed; where two have the same place, the first group's comes first.
    """
    places = [
        ((index + 0.5) / len(group), number, task)
        for number, group in enumerate(groups)
        for index, task in enumerate(group)
    ]
    return [task for _, _, task in sorted(places, key=lambda place: place[:2])]


def load_runs(path: Path) -> list[Run]:
    """Runs of a file, none where there is none. A last line that was cut off is no run."""
    if not path.is_file():
        return []
    *lines, _cut_off = path.read_text(encoding="utf-8").split("\n")
    return [_run(json.loads(line)) for line in lines]


def append_run(path: Path, run: Run) -> None:
    """Add a line, in place of one that was cut off."""
    whole = path.read_bytes().rpartition(b"\n") if path.is_file() else (b"", b"", b"")
    if whole[2]:
        path.write_bytes(whole[0] + whole[1])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def _run(line: dict[str, Any]) -> Run:
    answers = tuple(Answer(**answer) for answer in line["answers"])
    front = tuple((latency_ms, accuracy) for latency_ms, accuracy in line["front"])
    return Run(Task(**line["task"]), line["seconds"], line["cpu_s"], line["asked"], answers, front)
