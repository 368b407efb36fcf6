"""Training methods compared on equal terms: equal time, the same space, images and evaluation.

python benchmarks/training_methods.py measure --data digits=FOLDER fashion_mnist=FOLDER cifar10=FOLDER --out FOLDER
python benchmarks/training_methods.py run     --data … --out FOLDER [--workers 2] [--only NAME …]
python benchmarks/training_methods.py report  --out FOLDER

training_methods/plan.toml names the runs. `measure`, on a machine that does nothing else, times steps of every run
and writes how many epochs fill its budget; `run` trains and evaluates on one thread per worker and goes on where it
was stopped, inside a run too; `report` draws tables and plots of what is finished. Accuracies are those of test images,
after recalibration with training images.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tabulate_training_methods import ACCURACIES, RESULT, write_report

from supernet.data.batches import Normalisation
from supernet.data.splits import load_splits
from supernet.evaluation.population import evaluate_arch, recalibrate_with
from supernet.network.checkpoint import load_tensors, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.pools.choice import CANDIDATES
from supernet.spaces.buckets import sample_in_bucket
from supernet.spaces.costs import macs, macs_cost
from supernet.spaces.presets import find_space
from supernet.training.config import TrainConfig
from supernet.training.log import LOG
from supernet.training.loop import train
from supernet.training.methods.netaug import NetAug
from supernet.training.methods.pss_net import PssNet
from supernet.training.methods.registry import SETTINGS, build_method

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from supernet.data.splits import Splits
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace
    from supernet.training.method import Method

FOLDER = Path(__file__).with_suffix("")
# Random archs are drawn evenly from so many parts of the range of MACs.
BUCKETS, ARCHS_PER_BUCKET = 5, 20
BN_IMAGES = 1000
# Measuring: epochs are spread over all phases of a run.
TIMED_EPOCHS, TIMED_STEPS, TIMED_ROUNDS = 6, 2, 3
EPOCHS = "epochs.csv"
WEIGHTS = "weights.safetensors"
ACCURACY_COLUMNS = ["run", "data", "seed", "kind", "bucket", "macs", "top1_percent", "arch"]


@dataclass(frozen=True)
class Data:
    """A data set; `seconds` are the budget of a run."""

    name: str
    size: int
    seeds: tuple[int, ...]
    validation_images: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """One line of the comparison; see plan.toml."""

    name: str
    space: str
    method: str
    budget: float = 0.0
    epochs_of: str = ""
    weights_of: str = ""
    teacher: str = ""
    bn_images: int = BN_IMAGES
    pools: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is compared, and on what."""

    defaults: dict[str, Any]
    data: dict[str, Data]
    runs: dict[str, Run]

    @classmethod
    def load(cls, path: Path) -> Plan:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        data = {
            name: Data(name, **{**values, "seeds": tuple(values["seeds"])}) for name, values in document["data"].items()
        }
        return cls(document["defaults"], data, {values["name"]: Run(**values) for values in document["runs"]})

    def config(self, run: Run, data: Data, seed: int, epochs: int) -> TrainConfig:
        values = dict(self.defaults)
        warmup = values.pop("warmup_share") * epochs
        return TrainConfig(
            str(FOLDER / f"{run.space}.toml"),
            run.method,
            SETTINGS[run.method](**run.settings),
            epochs=epochs,
            warmup_epochs=warmup,
            validation_images=data.validation_images,
            seed=seed,
            **values,
        )


@dataclass(frozen=True)
class Task:
    """One run on one data set with one seed."""

    run: Run
    data: Data
    seed: int

    def folder(self, out: Path, run: str | None = None) -> Path:
        return out / "runs" / f"{self.data.name}_{self.seed}" / (run or self.run.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["measure", "run", "report"])
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME=FOLDER", help="data sets of the plan")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of runs; by default all")
    parser.add_argument("--plan", type=Path, default=FOLDER / "plan.toml")
    arguments = parser.parse_args()
    plan = Plan.load(arguments.plan)
    folders = {name: Path(folder) for name, _, folder in (item.partition("=") for item in arguments.data)}
    if unknown := {*folders} - {*plan.data} or {*(arguments.only or [])} - {*plan.runs}:
        parser.error(f"the plan has no {sorted(unknown)}; its data sets are {[*plan.data]}, its runs {[*plan.runs]}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = [run for run in plan.runs.values() if not arguments.only or run.name in arguments.only]
    if arguments.command == "measure":
        measure(plan, folders, arguments.out)
    elif arguments.command == "run":
        run_all(plan, runs, folders, arguments.out, workers=arguments.workers)
    else:
        write_report(arguments.out, list(plan.runs), list(plan.data))


# Measuring.


def measure(plan: Plan, folders: dict[str, Path], out: Path) -> None:
    """Time steps of all runs in turns, and write the epochs that fill each budget."""
    torch.set_num_threads(1)
    lines = []
    for name, folder in folders.items():
        data = plan.data[name]
        splits = read_splits(data, folder, seed=data.seeds[0])
        steps_per_epoch = len(splits.train) // plan.defaults["batch_size"]
        trained = [run for run in plan.runs.values() if not run.weights_of]
        times: dict[str, list[float]] = {run.name: [] for run in trained}
        for _ in range(TIMED_ROUNDS):
            for run in trained:
                times[run.name].append(time_steps(plan, run, data, splits, out / "timed"))
        seconds = {run: float(np.median(found)) for run, found in times.items()}
        # In the plan's order, since a run may take its epochs from another.
        epochs = {
            run.name: max(1, round(run.budget * data.seconds / (steps_per_epoch * seconds[run.name])))
            for run in trained
            if run.budget
        }
        for run in trained:
            count = epochs[run.epochs_of or run.name]
            planned = count * steps_per_epoch * seconds[run.name]
            lines.append([name, run.name, f"{1000 * seconds[run.name]:.2f}", count, f"{planned:.0f}"])
            print(*lines[-1], flush=True)
    with (out / EPOCHS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["data", "run", "step_ms", "epochs", "planned_s"], *lines])


def time_steps(plan: Plan, run: Run, data: Data, splits: Splits, scratch: Path) -> float:
    """Mean seconds of a step over a short run through all phases."""
    config = plan.config(run, data, data.seeds[0], TIMED_EPOCHS)
    images = splits.train.take(np.arange(TIMED_STEPS * config.batch_size))
    classes = len(splits.train.classes)
    method = build(config, data, classes)
    if isinstance(method, PssNet):
        _ = method.pools  # made once, before the first step
    teacher = None
    if run.teacher:  # what an untrained one says takes as long
        space = build(plan.config(plan.runs[run.teacher], data, data.seeds[0], TIMED_EPOCHS), data, classes).space
        teacher = as_teacher(Supernet(space, torch.Generator().manual_seed(0)))
    shutil.rmtree(scratch, ignore_errors=True)
    train(config, images, scratch, method=method, teacher=teacher)
    with (scratch / LOG).open(encoding="utf-8") as file:
        seconds = [float(line["seconds"]) for line in csv.DictReader(file)]
    shutil.rmtree(scratch)
    return float(np.mean(seconds[1:])) / TIMED_STEPS


# Running.


def run_all(plan: Plan, runs: Sequence[Run], folders: dict[str, Path], out: Path, *, workers: int) -> None:
    """Train and evaluate whatever is not finished, what others need first."""
    with (out / EPOCHS).open(encoding="utf-8") as file:
        epochs = {(line["data"], line["run"]): int(line["epochs"]) for line in csv.DictReader(file)}
    tasks = [Task(run, plan.data[name], seed) for name in folders for seed in plan.data[name].seeds for run in runs]
    todo = [task for task in tasks if not (task.folder(out) / RESULT).exists()]
    is_later = [bool(task.run.teacher or task.run.weights_of) for task in todo]
    for later in (False, True):
        part = [task for task, waits in zip(todo, is_later, strict=True) if waits == later]
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = {
                pool.submit(
                    run_task, plan, task, folders[task.data.name], out, epochs.get((task.data.name, task.run.name), 0)
                ): task
                for task in part
            }
            for done, future in enumerate(as_completed(futures), start=1):
                task = futures[future]
                print(
                    f"{time.strftime('%H:%M:%S')} {done}/{len(part)} {task.data.name} {task.seed} {task.run.name}: "
                    f"{future.result()}",
                    flush=True,
                )


def run_task(plan: Plan, task: Task, data_folder: Path, out: Path, epochs: int) -> str:
    """One run from images to its result; a line on how it went."""
    torch.set_num_threads(1)
    run, folder = task.run, task.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    splits = read_splits(task.data, data_folder, seed=task.seed)
    classes = len(splits.train.classes)
    config = plan.config(run, task.data, task.seed, epochs or 100)
    method = build(config, task.data, classes)
    seconds = 0.0
    if run.weights_of:
        supernet = load_trained(plan, replace(task, run=plan.runs[run.weights_of]), out, classes)
    else:
        teacher = None
        if run.teacher:
            other = replace(task, run=plan.runs[run.teacher])
            teacher = as_teacher(load_trained(plan, other, out, classes))
        supernet = train(config, splits.train, folder, method=method, resume=True, teacher=teacher)
        with (folder / LOG).open(encoding="utf-8") as file:
            seconds = sum(float(line["seconds"]) for line in csv.DictReader(file))
        save_tensors(folder / WEIGHTS, supernet.state_dict(), supernet.space)
    rows = list(evaluate(task, method, supernet, splits))
    with (folder / ACCURACIES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ACCURACY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({"run": run.name, "data": task.data.name, "seed": task.seed} | row for row in rows)
    result = {"epochs": epochs, "train_seconds": round(seconds, 1), "config": config.to_dict() | {"space": run.space}}
    (folder / RESULT).write_text(json.dumps(result, indent=1))
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    drawn = [float(row["top1_percent"]) for row in rows if row["kind"] in ("random", "target")]
    return f"{epochs} epochs, {seconds:.0f} s, top-1 {np.mean(drawn):.2f} %"


def evaluate(task: Task, method: Method, supernet: Supernet, splits: Splits) -> Iterable[dict[str, Any]]:
    """Test accuracies of what the run is for: all archs, or its target alone."""
    if splits.test is None:
        sys.exit(f"The images of '{task.data.name}' have no test split.")
    normalisation = Normalisation(*splits.train.normalisation())
    rng = np.random.default_rng(task.seed)
    recalibration = splits.train.take(rng.permutation(len(splits.train))[: task.run.bn_images])
    accuracy = partial(
        evaluate_arch,
        supernet,
        recalibrate=recalibrate_with(recalibration, normalisation),
        normalisation=normalisation,
    )
    space = supernet.space

    def row(kind: str, arch: Arch, bucket: str = "") -> dict[str, Any]:
        top1 = accuracy(arch, images=splits.test).top1
        return {
            "kind": kind,
            "bucket": bucket,
            "macs": macs(space, arch),
            "top1_percent": f"{100 * top1:.3f}",
            "arch": json.dumps(arch.to_dict()),
        }

    if isinstance(method, NetAug):
        yield row("target", space.smallest())
        return
    yield row("largest", space.largest())
    yield row("smallest", space.smallest())
    for bucket, arch in archs_by_bucket(space):
        yield row("random", arch, str(bucket))
    if task.run.pools:
        # Of archs with the same MACs: the best of the pool's, and the best of as many at random.
        pools = method.pools if isinstance(method, PssNet) else PssNet(space, 1, seed=task.seed).pools
        for pool in pools:
            known = np.unique(pool.known, axis=0)
            drawn = space.from_rows(known[rng.permutation(len(known))[:CANDIDATES]])
            for kind, candidates in (("best of pool", pool.best(CANDIDATES)), ("best of random", drawn)):
                if candidates:
                    best = max(candidates, key=lambda arch: accuracy(arch, images=splits.validation).correct)
                    yield row(kind, best, f"{pool.low:.0f}")


def archs_by_bucket(space: SearchSpace) -> list[tuple[int, Arch]]:
    """The same archs for all runs on a space."""
    least, most = macs(space, space.smallest()), macs(space, space.largest())
    edges = np.linspace(least, most, BUCKETS + 1)
    rng = np.random.default_rng(0)
    found = []
    for bucket in range(BUCKETS):
        rows = sample_in_bucket(
            space, macs_cost(space), low=edges[bucket], high=edges[bucket + 1], n_archs=ARCHS_PER_BUCKET, rng=rng
        )
        found += [(bucket, arch) for arch in space.from_rows(rows)]
    return found


# What both need.


def read_splits(data: Data, folder: Path, *, seed: int) -> Splits:
    return load_splits(folder, size=data.size, validation_images=data.validation_images, seed=seed)


def build(config: TrainConfig, data: Data, classes: int) -> Method:
    space = replace(find_space(config.space), resolutions=(data.size,)).with_classes(classes)
    return build_method(config, space)


def load_trained(plan: Plan, task: Task, out: Path, classes: int) -> Supernet:
    """The supernet another run has trained."""
    space = build(plan.config(task.run, task.data, task.seed, 100), task.data, classes).space
    tensors, _ = load_tensors(task.folder(out) / WEIGHTS, space)
    supernet = Supernet(space, torch.Generator())
    supernet.load_state_dict(tensors)
    return supernet.eval()


def as_teacher(supernet: Supernet) -> nn.Module:
    """The target of a supernet of NetAug, ready to teach."""
    target = extract_subnet(supernet, supernet.space.smallest())
    return target.requires_grad_(requires_grad=False).train()


if __name__ == "__main__":
    main()
