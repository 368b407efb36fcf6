"""Our search beside the once-for-all reference's finder and NSGA-II: same predictor, table, budgets and evaluations.

python benchmarks/search.py --data ../shared/data --out FOLDER

FOLDER keeps every finished run as a line of `runs.jsonl`, so that an interrupted call goes on where it was, and gets
`results.md`, `results.json` and `front.png`. DATA has `ofa_acc_predictor.pth` and `ofa_note10/`. The reference is
installed by `make setup`, NSGA-II by `pip install pymoo`; `--peers` leaves either out. Searchers take turns, on one
thread. `--long N` adds one run of N evaluations per budget, `--report` makes the tables once more and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before numpy is imported, as in service/cli.py.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251

from search_peers import (
    Question,
    ReferenceFinder,
    impossible_ms,
    predictions_per_s,
    search_once,
    trace_once,
)
from search_report import (
    LONG,
    NSGA2,
    NSGA2_FRONT,
    REFERENCE,
    RUNS,
    SECOND,
    SPEEDS,
    TAILOR,
    TAILOR_FRONT,
    TWO,
    TWO_LONG,
    write_report,
)
from search_runs import Run, Task, append_run, in_turns, load_runs

from latency_tables.probe import this_device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from search_peers import Searcher

# What the reference's finder allows; it would ask on the keyboard for another one.
LEAST_MS, MOST_MS = 15, 60
# Of a warm-up.
FEW = 1000
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="default %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, tables and plot")
    parser.add_argument("--budgets", type=float, nargs="+", default=[15, 20, 25, 30, 40], help="ms; %(default)s")
    parser.add_argument("--evaluations", type=int, default=50_000, help="per search; default %(default)s")
    parser.add_argument("--front-evaluations", type=int, default=500_000, help="of our whole front; %(default)s")
    parser.add_argument("--seeds", type=int, default=10, help="of our searches; default %(default)s")
    parser.add_argument("--peer-seeds", type=int, default=3, help="of all others; default %(default)s")
    parser.add_argument("--peers", nargs="*", choices=[REFERENCE, NSGA2], default=[REFERENCE, NSGA2])
    parser.add_argument("--long", type=int, help="evaluations of one more run per budget; takes minutes each")
    parser.add_argument("--quick", action="store_true", help="two budgets, few evaluations: does it run?")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.budgets, arguments.evaluations, arguments.front_evaluations = [20.0, 30.0], 2000, 10_000
        arguments.seeds, arguments.peer_seeds = 2, 1
    if not all(LEAST_MS <= budget_ms <= MOST_MS for budget_ms in arguments.budgets):
        parser.error(f"the reference's finder takes budgets of {LEAST_MS} to {MOST_MS} ms, not {arguments.budgets}")
    if min(arguments.evaluations, arguments.front_evaluations, arguments.long or FEW) < FEW:
        parser.error(f"evaluations must be {FEW} or more")
    if min(arguments.seeds, arguments.peer_seeds) < 1:
        parser.error("seeds must be 1 or more")
    if not arguments.report and not (arguments.data / "ofa_note10").is_dir():
        parser.error(f"{arguments.data} has no folder ofa_note10; name one that has with --data")
    if not arguments.report:
        arguments.out.mkdir(parents=True, exist_ok=True)
        run_all(arguments)
    print(write_report(arguments.out))


def run_all(arguments: argparse.Namespace) -> None:
    """What is left of the plan; every finished run is written at once."""
    path = arguments.out / RUNS
    finished, tasks = load_runs(path), planned(arguments)
    counts = {task.searcher: task.evaluations for task in tasks if task.searcher not in (LONG, TWO_LONG)}
    for run in finished:
        if counts.get(run.task.searcher, run.task.evaluations) != run.task.evaluations:
            sys.exit(f"{path} has runs of {run.task.evaluations} evaluations: choose another folder.")
    question = Question.read(arguments.data)
    reference = ReferenceFinder(question) if REFERENCE in arguments.peers else None
    searchers = ours(question, sorted(arguments.budgets))
    if reference:
        searchers[REFERENCE] = reference
    if NSGA2 in arguments.peers:
        try:
            from search_nsga2 import Nsga2
        except ImportError as error:
            sys.exit(f"NSGA-II is pymoo's ({error}): pip install pymoo, or leave it out of --peers.")
        searchers[NSGA2] = searchers[NSGA2_FRONT] = Nsga2(question, sorted(arguments.budgets))
    speeds = json.dumps(measure_speeds(question, reference))
    (arguments.out / SPEEDS).write_text(speeds + "\n", encoding="utf-8")
    done = {run.task for run in finished}
    left = [task for task in tasks if task not in done]
    warm_up(searchers, left)
    for number, task in enumerate(left, start=1):
        run = searchers[task.searcher](task)
        append_run(path, run)
        show(run, f"{number}/{len(left)}")


def ours(question: Question, budgets_ms: list[float]) -> dict[str, Searcher]:
    devices = {
        TAILOR: ("first",),
        LONG: ("first",),
        SECOND: ("second",),
        TWO: ("first", "second"),
        TWO_LONG: ("first", "second"),
    }
    searchers: dict[str, Searcher] = {
        searcher: partial(search_once, question, devices=names) for searcher, names in devices.items()
    }
    return searchers | {TAILOR_FRONT: partial(trace_once, question, budgets_ms=budgets_ms)}


def planned(arguments: argparse.Namespace) -> list[Task]:
    """Searchers that are compared take turns; what stands alone comes after them, the longest last."""
    budgets_ms = sorted(arguments.budgets)

    def group(searcher: str, budget_ms: float | None, *, seeds: int, evaluations: int | None = None) -> list[Task]:
        return [Task(searcher, budget_ms, seed, evaluations or arguments.evaluations) for seed in range(seeds)]

    few = arguments.peer_seeds
    compared = [
        group(searcher, budget_ms, seeds=arguments.seeds if searcher == TAILOR else few)
        for budget_ms in budgets_ms
        for searcher in (TAILOR, *arguments.peers)
    ]
    if NSGA2 in arguments.peers:
        compared.append(group(NSGA2_FRONT, None, seeds=few))
    compared.append(group(TAILOR_FRONT, None, seeds=few, evaluations=arguments.front_evaluations))
    devices = [
        group(searcher, budget_ms, seeds=arguments.seeds) for budget_ms in budgets_ms for searcher in (SECOND, TWO)
    ]
    longest = [
        group(searcher, budget_ms, seeds=1, evaluations=arguments.long)
        for searcher in (LONG, TWO_LONG)
        for budget_ms in budgets_ms
        if arguments.long
    ]
    return [*in_turns(compared), *in_turns(devices), *in_turns(longest)]


def warm_up(searchers: dict[str, Searcher], tasks: Iterable[Task]) -> None:
    """Each searcher once for a short time: imports and caches are no part of what is measured."""
    first = {task.searcher: task for task in reversed(list(tasks))}
    for searcher, task in first.items():
        searchers[searcher](Task(searcher, task.budget_ms, task.seed, min(FEW, task.evaluations)))


def measure_speeds(question: Question, reference: ReferenceFinder | None) -> dict[str, Any]:
    """Beside the machine and the versions of what runs on it."""
    packages = ("numpy", "torch", "ofa", "pymoo")
    return {
        "machine": this_device().device_id,
        "versions": {package: version_of(package) for package in packages},
        "impossible_ms": impossible_ms(question),
        "predictions_per_s": predictions_per_s(question),
        "reference_predictions_per_s": reference.predictions_per_s() if reference else None,
    }


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def show(run: Run, place: str) -> None:
    asked = "all budgets" if run.task.budget_ms is None else f"{run.task.budget_ms:g} ms"
    found = ", ".join(f"{100 * answer.accuracy:.3f} %" for answer in run.answers)
    progress(f"{place} {run.task.searcher}, {asked}, seed {run.task.seed}: {found} in {run.seconds:.2f} s")
    for answer in run.answers:
        if answer.own_accuracy is None or answer.own_latency_ms is None:
            continue
        differences = abs(answer.own_accuracy - answer.accuracy), abs(answer.own_latency_ms - answer.latency_ms)
        if max(differences) > TOLERANCE:
            progress(f"NOTE: its own accuracy and latency differ from ours by {differences[0]} and {differences[1]}")


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
