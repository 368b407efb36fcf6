"""How well accuracies are predicted, judged on measured subnets: in folds, across two searches, and with few labels.

python benchmarks/predictor_quality.py --measured FILE [--base IMPORTED] [--out table.md] > results.jsonl

FILE is a CSV of archs (`ks,e,d,r`) with `top1_percent` and `source`: the search that found a subnet, or `both`. Subnets
of the same network count once, with their mean accuracy. `--base`, a file of `tailor predictor import-ofa`, adds the
same figures for that predictor corrected (`fit --calibrate`), and as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.predictors.accuracy import AccuracyPredictor
from supernet.predictors.corrected import CorrectedPredictor
from supernet.predictors.evaluate import evaluate_predictor, kendall_tau
from supernet.predictors.loading import load_predictor
from supernet.spaces.arch_csv import read_archs
from supernet.spaces.presets import find_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from supernet.predictors.predictor import Predictor
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

    Fit = Callable[[Rows, Values], Predictor]
    Picked = NDArray[np.intp]

FOLDS = 5
LABELS = (20, 50, 100, 200, 400)
BOTH = "both"
FIGURES = ("rmse_pp", "kendall_tau", "bias_pp", "coverage_90", "width_90_pp")


@dataclass(frozen=True, eq=False)
class Measured:
    """Distinct subnets: `(n, n_slots)` rows, `(n,)` accuracies as fractions, and the source of each."""

    rows: Rows
    top1: Values
    sources: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.top1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, required=True, help="CSV of archs, top1_percent and source")
    parser.add_argument("--space", default="ofa_mbv3_w1.0", help="default %(default)s")
    parser.add_argument("--base", type=Path, help="imported predictor to correct")
    parser.add_argument("--out", type=Path, help="Markdown tables; default stderr")
    parser.add_argument("--draws", type=int, default=10, help="of labels per number of them; default %(default)s")
    parser.add_argument(
        "--repeat-pp", type=float, help="points by which two measurements of a subnet differ on average"
    )
    arguments = parser.parse_args()
    if arguments.draws < 1:
        parser.error(f"--draws must be 1 or more, not {arguments.draws}")
    space = find_space(arguments.space)
    measured = read_measured(arguments.measured, space)
    fits: dict[str, Fit] = {
        "fitted": lambda rows, top1: AccuracyPredictor.fit(space, rows, top1, n_images=None, rng=fixed()),
    }
    if arguments.base:
        base = load_predictor(arguments.base, space)
        fits["corrected"] = lambda rows, top1: CorrectedPredictor.fit(base, rows, top1, n_images=None, rng=fixed())
        fits["imported"] = lambda _rows, _top1: base
    results = []
    for kind, fit in fits.items():
        # The imported one learns from no label.
        for result in results_of(fit, measured, draws=0 if kind == "imported" else arguments.draws):
            results.append({"predictor": kind, **result})
            print(json.dumps(results[-1]), flush=True)
            progress(
                f"{kind}, {result['comparison']}: {result['labels']} labels, {result['n']} judged, "
                f"RMSE {result['rmse_pp']:.3f}, fitted in {result['fit_s']:.2f} s"
            )
    text = "\n".join(
        [
            table_of_folds(results),
            table_across(results),
            table_of_labels(results),
            *([ceilings(measured, arguments.repeat_pp)] if arguments.repeat_pp else []),
        ]
    )
    if arguments.out:
        arguments.out.write_text(text)
    else:
        progress(text)


def fixed() -> np.random.Generator:
    """For the folds inside a fit; what varies between draws is which archs are labelled."""
    return np.random.default_rng(0)


def read_measured(path: Path, space: SearchSpace) -> Measured:
    """One entry per network; found by several searches, its source is `both`."""
    found = defaultdict(list)
    for arch, row in read_archs(path, space):
        found[arch].append((float(row["top1_percent"]) / 100, row["source"]))
    top1 = np.array([np.mean([accuracy for accuracy, _ in ones]) for ones in found.values()])
    sources = [ones[0][1] if len({source for _, source in ones}) == 1 else BOTH for ones in found.values()]
    progress(f"{len(found)} distinct subnets of {sum(map(len, found.values()))}")
    return Measured(space.to_rows(list(found)), top1, np.array(sources))


def results_of(fit: Fit, measured: Measured, *, draws: int) -> Iterator[dict[str, Any]]:
    """One per fit: which comparison, what it was fitted on and its report."""
    everything = np.random.default_rng(0).permutation(len(measured))
    for index, fold in enumerate(np.array_split(everything, FOLDS)):
        yield {"comparison": "folds", "run": index} | judge(fit, measured, np.setdiff1d(everything, fold), fold)
    names = sorted(set(measured.sources.tolist()) - {BOTH})
    for other in names if len(names) > 1 else ():
        # What both searches found belongs to the sample of either; it is never what a predictor is judged on.
        test = np.flatnonzero(measured.sources == other)
        known = np.setdiff1d(everything, test)
        yield {"comparison": f"others to {other}", "run": 0} | judge(fit, measured, known, test)
    for run in range(draws):
        order = np.random.default_rng(1 + run).permutation(len(measured))
        test, rest = np.split(order, [len(order) // FOLDS])
        for n_labels in (*(n for n in LABELS if n < len(rest)), len(rest)):
            yield {"comparison": "labels", "run": run} | judge(fit, measured, rest[:n_labels], test)


def judge(fit: Fit, measured: Measured, known: Picked, test: Picked) -> dict[str, Any]:
    started = time.perf_counter()
    predictor = fit(measured.rows[known], measured.top1[known])
    seconds = time.perf_counter() - started
    report = evaluate_predictor(predictor, measured.rows[test], measured.top1[test]).to_dict()
    return {"labels": len(known), **report, "fit_s": round(seconds, 3)}


# ---------------------------------------------------------------------- tables


def table_of_folds(results: list[dict[str, Any]]) -> str:
    title = f"In {FOLDS} random folds; mean, lowest and highest fold"
    return as_table(title, ["predictor"], grouped(results, "folds", ("predictor",)))


def table_across(results: list[dict[str, Any]]) -> str:
    groups = dict(sorted(grouped(results, "others to", ("comparison", "predictor")).items()))
    title = "Fitted on what the other search found, or both did; judged on what one search alone found"
    return as_table(title, ["comparison", "predictor"], groups)


def table_of_labels(results: list[dict[str, Any]]) -> str:
    title = "By the number of labels, judged on a fifth that was held out; mean, lowest and highest draw"
    return as_table(title, ["predictor", "labels"], grouped(results, "labels", ("predictor", "labels")))


def grouped(
    results: list[dict[str, Any]], comparison: str, keys: tuple[str, ...]
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    groups = defaultdict(list)
    for result in results:
        if result["comparison"].startswith(comparison):
            groups[tuple(str(result[key]) for key in keys)].append(result)
    return groups


def as_table(title: str, keys: list[str], groups: dict[tuple[str, ...], list[dict[str, Any]]]) -> str:
    head = [*keys, "n", "RMSE, points", "Kendall τ", "bias, points", "90 % intervals cover", "width, points"]
    lines = [
        [*key, str(ones[0]["n"]), *(over_runs([one[figure] for one in ones]) for figure in FIGURES)]
        for key, ones in groups.items()
    ]
    return f"{title}:\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *lines])


def over_runs(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "none"
    spread = f" ({min(known):.3f} to {max(known):.3f})" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"


def ceilings(measured: Measured, repeat_pp: float) -> str:
    """Rank agreement of two measurements of the same subnets: no predictor can be expected to exceed it."""
    # Two normal deviates of one deviation differ by 2 / sqrt(pi) of it on average.
    deviation = repeat_pp / 100 * np.sqrt(np.pi) / 2
    rng, lines = np.random.default_rng(0), []
    for source in sorted(set(measured.sources.tolist())):
        top1 = measured.top1[measured.sources == source]
        noise = [rng.normal(scale=deviation, size=len(top1)) for _ in range(20)]
        tau = np.mean([kendall_tau(top1, top1 + one) for one in noise])
        lines.append(f"| {source} | {len(top1)} | {100 * top1.std():.2f} | {tau:.3f} |\n")
    return (
        f"What a perfect predictor would reach, measurements of one subnet differing by {repeat_pp} points:\n\n"
        "| source | n | deviation of accuracies, points | Kendall τ |\n|---|---|---|---|\n" + "".join(lines)
    )


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
