"""Tables and the plot of what search.py has run, from its files alone."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from search_runs import load_runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from search_runs import Answer, Run

RUNS, SPEEDS = "runs.jsonl", "speeds.json"
TAILOR, TAILOR_FRONT, LONG = "tailor", "tailor_front", "tailor_long"
REFERENCE, NSGA2, NSGA2_FRONT = "reference", "nsga2", "nsga2_front"
SECOND, TWO, TWO_LONG = "tailor_second", "tailor_two", "tailor_two_long"
LABELS = {
    TAILOR: "Tailor",
    REFERENCE: "reference",
    NSGA2: "NSGA-II",
    NSGA2_FRONT: "NSGA-II, whole front",
    TAILOR_FRONT: "Tailor, whole front",
}
# Of Okabe and Ito's palette, told apart by colour-blind readers too.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
NONE = "none"

Answers = dict[tuple[str, float], list[tuple["Answer", "Run"]]]


def write_report(folder: Path) -> str:
    """Write `results.md`, `results.json` and `front.png` of what is finished, and return the first."""
    runs = load_runs(folder / RUNS)
    if not runs:
        return "Nothing is finished yet."
    speeds = json.loads((folder / SPEEDS).read_text(encoding="utf-8"))
    found: Answers = defaultdict(list)
    for run in runs:
        for answer in run.answers:
            found[run.task.searcher, answer.budget_ms].append((answer, run))
    budgets_ms = sorted({budget_ms for _, budget_ms in found})
    results = {
        "machine": speeds["machine"],
        "versions": speeds["versions"],
        "searchers": [figures for budget_ms in budgets_ms for figures in _figures(found, budget_ms)],
        "budgets": [_comparison(found, budget_ms) for budget_ms in budgets_ms],
        "two_devices": [_two_devices(found, budget_ms) for budget_ms in budgets_ms],
        "speeds": _speeds(speeds),
        "reference_differs_by": _own_differences(found),
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    versions = ", ".join(f"{package} {version}" for package, version in speeds["versions"].items() if version)
    text = "\n".join(
        [
            f"On {speeds['machine']}, {versions}.\n",
            _as_table("Predicted accuracies in percent, within each budget of the phone", results["searchers"]),
            _as_table("Tailor beside the others; differences of accuracies in points", results["budgets"]),
            _as_table("The same budget on two devices; accuracies in percent", results["two_devices"]),
            _as_table("Speeds, on one thread", [results["speeds"]]),
            _as_table("The reference's own figures for its answers, against ours", [results["reference_differs_by"]]),
        ]
    )
    (folder / "results.md").write_text(text, encoding="utf-8")
    _draw(runs, folder / "front.png")
    return text


def _figures(found: Answers, budget_ms: float) -> list[dict[str, Any]]:
    """One line per searcher."""
    lines = []
    for searcher, label in LABELS.items():
        pairs = found.get((searcher, budget_ms), [])
        if not pairs:
            continue
        percent = _percent(pairs)
        low, median, high = np.quantile([run.seconds for _, run in pairs], [0.25, 0.5, 0.75])
        lines.append(
            {
                "budget_ms": budget_ms,
                "searcher": label,
                "runs": len(pairs),
                "best": percent.max(),
                "median": np.median(percent),
                "worst": percent.min(),
                "best_minus_worst": np.ptp(percent),
                "deviation": percent.std(ddof=1) if len(percent) > 1 else None,
                "archs_asked": int(np.median([run.asked for _, run in pairs])),
                "seconds": median,
                "quartiles_s": [float(low), float(high)],
                "cpu_s": np.median([run.cpu_s for _, run in pairs]),
            }
        )
    return [_plain(line) for line in lines]


def _comparison(found: Answers, budget_ms: float) -> dict[str, Any]:
    """How much faster, whether never worse, and how far from the best that anything found."""
    known = {
        searcher: _percent(pairs)
        for (searcher, budget), pairs in found.items()
        if budget == budget_ms and searcher not in (SECOND, TWO, TWO_LONG)
    }
    ours, reference = known.get(TAILOR, np.zeros(0)), known.get(REFERENCE, np.zeros(0))
    nsga2 = np.concatenate([known.get(searcher, np.zeros(0)) for searcher in (NSGA2, NSGA2_FRONT)])
    long = known.get(LONG, np.zeros(0))
    best = max((percent.max() for percent in known.values()), default=None)
    return _plain(
        {
            "budget_ms": budget_ms,
            "reference_over_ours_time": _ratio(found, REFERENCE, budget_ms, "seconds"),
            "reference_over_ours_cpu_time": _ratio(found, REFERENCE, budget_ms, "cpu_s"),
            "nsga2_over_ours_time": _ratio(found, NSGA2, budget_ms, "seconds"),
            "worst_minus_best_reference": ours.min() - reference.max() if len(ours) and len(reference) else None,
            "never_worse_than_reference": bool(ours.min() >= reference.max()) if len(ours) and len(reference) else None,
            "worst_minus_best_nsga2": ours.min() - nsga2.max() if len(ours) and len(nsga2) else None,
            "long_run": long.max() if len(long) else None,
            "long_minus_median": long.max() - np.median(ours) if len(ours) and len(long) else None,
            "long_minus_worst": long.max() - ours.min() if len(ours) and len(long) else None,
            "best_known": best,
            "best_known_minus_median": best - np.median(ours) if len(ours) and best is not None else None,
            "runs_that_found_it": f"{np.count_nonzero(ours >= best - 1e-9)} of {len(ours)}" if best else None,
        }
    )


def _ratio(found: Answers, searcher: str, budget_ms: float, clock: str) -> float | None:
    seconds = [[getattr(run, clock) for _, run in found.get((name, budget_ms), [])] for name in (searcher, TAILOR)]
    return float(np.median(seconds[0]) / np.median(seconds[1])) if all(seconds) else None


def _two_devices(found: Answers, budget_ms: float) -> dict[str, Any]:
    """No arch within both budgets is more accurate than the worse of the best archs within each of them."""
    both, long = found.get((TWO, budget_ms), []), found.get((TWO_LONG, budget_ms), [])
    known = [answer for pairs in found.values() for answer, _ in pairs]
    first = [answer for answer in known if answer.latency_ms <= budget_ms]
    second = [answer for answer in known if answer.second_ms <= budget_ms]
    if not both:
        return {}
    percent = _percent(both)
    on_first, on_second, on_both = (
        max(answers, key=lambda answer: answer.accuracy) for answers in (first, second, [answer for answer, _ in both])
    )
    bound = 100 * min(on_first.accuracy, on_second.accuracy)
    alone = found.get((SECOND, budget_ms), [])
    return _plain(
        {
            "budget_ms": budget_ms,
            "best_on_phone": 100 * on_first.accuracy,
            "its_ms_on_second": on_first.second_ms,
            "best_on_second": 100 * on_second.accuracy,
            "its_ms_on_phone": on_second.latency_ms,
            "worst_search_on_second": _percent(alone).min() if alone else None,
            "best_on_both": percent.max(),
            "median_on_both": np.median(percent),
            "worst_on_both": percent.min(),
            "its_ms": [on_both.latency_ms, on_both.second_ms],
            "bound_minus_best": bound - percent.max(),
            "bound_minus_median": bound - np.median(percent),
            "long_on_both": _percent(long).max() if long else None,
            "seconds": np.median([run.seconds for _, run in both]),
        }
    )


def _speeds(speeds: dict[str, Any]) -> dict[str, Any]:
    impossible = np.array(speeds["impossible_ms"])
    return _plain(
        {
            "impossible_budget_median_ms": np.median(impossible),
            "impossible_budget_slowest_ms": impossible.max(),
            "predictions_per_s": round(speeds["predictions_per_s"]),
            "reference_predictions_per_s": round(speeds["reference_predictions_per_s"] or 0) or None,
        }
    )


def _own_differences(found: Answers) -> dict[str, Any]:
    answers = [answer for (searcher, _), pairs in found.items() if searcher == REFERENCE for answer, _ in pairs]
    accuracies = [abs((answer.own_accuracy or 0) - answer.accuracy) for answer in answers]
    latencies = [abs((answer.own_latency_ms or 0) - answer.latency_ms) for answer in answers]
    return {
        "answers": len(answers),
        "largest_of_accuracy": max(accuracies, default=None),
        "largest_of_latency_ms": max(latencies, default=None),
    }


def _percent(pairs: Sequence[tuple[Answer, Run]]) -> np.ndarray:
    return 100 * np.array([answer.accuracy for answer, _ in pairs])


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """Without numpy's types."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in line.items()}


# ---------------------------------------------------------------------- what people read


def _as_table(title: str, lines: Sequence[dict[str, Any]]) -> str:
    lines = [line for line in lines if line]
    if not lines:
        return ""
    head = [key.replace("_", " ") for key in lines[0]]
    rows = [head, ["---"] * len(head), *([_shown(value) for value in line.values()] for line in lines)]
    return f"{title}:\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _shown(value: Any) -> str:
    match value:
        case None:
            return NONE
        case bool():
            return "yes" if value else "no"
        case float() if 0 < abs(value) < 1e-3:
            return f"{value:.0e}"
        case float():
            return f"{value:g}" if value == round(value) else f"{value:.3f}"
        case list():
            return " · ".join(map(_shown, value))
        case _:
            return str(value)


def _draw(runs: Sequence[Run], path: Path) -> None:
    """Accuracy over latency: our front as a line, answers to budgets as marks."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for searcher, style in {
        NSGA2_FRONT: {"marker": ".", "linestyle": "none", "color": PURPLE, "alpha": 0.6},
        TAILOR_FRONT: {"color": BLUE, "drawstyle": "steps-post", "linewidth": 1},
    }.items():
        first = next((run for run in runs if run.task.searcher == searcher), None)
        if first:
            axes.plot(
                *zip(*((ms, 100 * top1) for ms, top1 in first.front), strict=True), label=LABELS[searcher], **style
            )
    for searcher, style in {
        NSGA2: {"marker": "s", "color": GREEN},
        REFERENCE: {"marker": "x", "color": VERMILION},
        TAILOR: {"marker": "o", "color": BLUE, "facecolors": "none"},
    }.items():
        answers = [answer for run in runs if run.task.searcher == searcher for answer in run.answers]
        if answers:
            axes.scatter(
                [answer.latency_ms for answer in answers],
                [100 * answer.accuracy for answer in answers],
                label=LABELS[searcher],
                s=30,
                **style,
            )
    answers = [answer for run in runs if run.task.searcher in LABELS for answer in run.answers]
    low, high = (end(answer.budget_ms for answer in answers) for end in (min, max))
    axes.set_xlim(0.95 * low, 1.03 * high)
    shown = [100 * answer.accuracy for answer in answers]
    axes.set_ylim(min(shown) - 0.5, max(shown) + 0.3)
    axes.set_xlabel("estimated latency on the Note10, ms")
    axes.set_ylabel("predicted top-1, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
