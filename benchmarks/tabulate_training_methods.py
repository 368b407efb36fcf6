"""Tables and plots of what training_methods.py has finished."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Of Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#F0E442")
# Of a finished run; the first one also of all runs together.
ACCURACIES, RESULT = "accuracies.csv", "result.json"


@dataclass(frozen=True)
class Finished:
    """One run with one seed; accuracies in percent."""

    run: str
    data: str
    seed: int
    space: str
    epochs: int
    seconds: float
    rows: list[dict[str, str]]

    def top1(self, kind: str) -> NDArray[np.float64]:
        return np.array([float(row["top1_percent"]) for row in self.rows if row["kind"] == kind])

    def in_bucket(self, bucket: str) -> NDArray[np.float64]:
        rows = [row for row in self.rows if row["kind"] == "random" and row["bucket"] == bucket]
        return np.array([float(row["top1_percent"]) for row in rows])


def write_report(out: Path, runs: Sequence[str], data: Sequence[str]) -> None:
    """`accuracies.csv`, `report.md` and a plot per data set, of the runs that are finished."""
    finished = load_finished(out / "runs")
    if not finished:
        print("Nothing is finished yet.")
        return
    rows = [row for one in finished for row in one.rows]
    with (out / ACCURACIES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = []
    for name in data:
        of_data = [one for one in finished if one.data == name]
        order = [run for run in runs if any(one.run == run for one in of_data)]
        by_run = {run: [one for one in of_data if one.run == run] for run in order}
        populations = {run: ones for run, ones in by_run.items() if len(ones[0].top1("random"))}
        targets = {run: ones for run, ones in by_run.items() if len(ones[0].top1("target"))}
        if not of_data:
            continue
        text += [f"## {name}\n", table_of_populations(populations), table_of_targets(targets), table_of_pools(by_run)]
        for space in sorted({ones[0].space for ones in populations.values()}):
            plot(
                {run: ones for run, ones in populations.items() if ones[0].space == space}, out / f"{name}_{space}.png"
            )
    (out / "report.md").write_text("\n".join(filter(None, text)), encoding="utf-8")
    print("\n".join(filter(None, text)))


def load_finished(folder: Path) -> list[Finished]:
    found = []
    for path in sorted(folder.glob(f"*/*/{RESULT}")):
        result = json.loads(path.read_text())
        with (path.parent / ACCURACIES).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        data, seed = path.parent.parent.name.rsplit("_", 1)
        found.append(
            Finished(
                path.parent.name,
                data,
                int(seed),
                result["config"]["space"],
                result["epochs"],
                result["train_seconds"],
                rows,
            )
        )
    return found


def table_of_populations(by_run: dict[str, list[Finished]]) -> str:
    """Of 100 random subnets: their mean, and per part of the range of MACs the median and the spread."""
    if not by_run:
        return ""
    buckets = sorted({row["bucket"] for ones in by_run.values() for row in ones[0].rows if row["kind"] == "random"})
    head = ["run", "seeds", "epochs", "seconds", "mean", "largest", "smallest"]
    head += [f"MACs part {int(bucket) + 1}" for bucket in buckets]
    lines = []
    for run, ones in by_run.items():
        means = [one.top1("random").mean() for one in ones]
        line = [f"`{run}`", str(len(ones)), str(ones[0].epochs), f"{np.mean([one.seconds for one in ones]):.0f}"]
        line += [
            over_seeds(means),
            *(over_seeds([one.top1(kind)[0] for one in ones]) for kind in ("largest", "smallest")),
        ]
        for bucket in buckets:
            values = np.concatenate([one.in_bucket(bucket) for one in ones])
            line.append(f"{np.median(values):.1f} ({values.min():.1f} to {values.max():.1f})")
        lines.append(line)
    return as_markdown(head, lines)


def table_of_targets(by_run: dict[str, list[Finished]]) -> str:
    lines = [
        [
            f"`{run}`",
            str(len(ones)),
            str(ones[0].epochs),
            f"{np.mean([one.seconds for one in ones]):.0f}",
            over_seeds([one.top1("target")[0] for one in ones]),
        ]
        for run, ones in by_run.items()
    ]
    return as_markdown(["run", "seeds", "epochs", "seconds", "top-1"], lines) if lines else ""


def table_of_pools(by_run: dict[str, list[Finished]]) -> str:
    """Means over the same bins of MACs and seeds."""
    chosen: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for run, ones in by_run.items():
        for one in ones:
            for row in one.rows:
                if row["kind"].startswith("best"):
                    chosen[f"`{run}`, {row['kind']}"][one.seed, row["bucket"]] = float(row["top1_percent"])
    if not chosen:
        return ""
    common = set.intersection(*(set(values) for values in chosen.values()))
    lines = [
        [name, str(len(common)), f"{np.mean([values[key] for key in common]):.2f}"] for name, values in chosen.items()
    ]
    return as_markdown(["of five archs per bin", "bins", "mean top-1"], lines) if common else ""


def over_seeds(values: Sequence[float]) -> str:
    """Mean, and with several seeds half their range."""
    return f"{np.mean(values):.2f}" + (f" ± {np.ptp(values) / 2:.2f}" if len(values) > 1 else "")


def as_markdown(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def plot(by_run: dict[str, list[Finished]], path: Path) -> None:
    """Median accuracy over MACs, with the range from worst to best behind it."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for colour, (run, ones) in zip(COLOURS, by_run.items(), strict=False):
        rows = [row for one in ones for row in one.rows if row["kind"] == "random"]
        buckets = sorted({row["bucket"] for row in rows})
        place = [np.mean([float(row["macs"]) for row in rows if row["bucket"] == bucket]) / 1e6 for bucket in buckets]
        values = [np.array([float(row["top1_percent"]) for row in rows if row["bucket"] == b]) for b in buckets]
        axes.plot(place, [np.median(part) for part in values], color=colour, marker="o", label=run)
        axes.fill_between(place, [p.min() for p in values], [p.max() for p in values], color=colour, alpha=0.08)
    axes.set_xlabel("million MACs")
    axes.set_ylabel("test top-1, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
