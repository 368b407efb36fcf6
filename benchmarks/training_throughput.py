"""Training steps of our supernet and of the once-for-all reference code, in turns: images per second and their ratio.

python benchmarks/training_throughput.py --out FOLDER [--threads N] [--rounds N]

Needs the reference code. A step is forward pass, cross-entropy, backward pass and SGD on one arch of `ofa_mbv3_w1.0`,
with 64 images of 32×32 and 1000 classes. Both start from the same weights; each is trained as its own code does it.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from reference_differences import FAMILIES, build_supernet, fill_weights, load_reference
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from supernet.ofa.weights import import_weights
from supernet.spaces.costs import macs
from supernet.spaces.ofa_dicts import ofa_from_arch
from supernet.spaces.presets import load_space
from supernet.training.config import TrainConfig
from supernet.training.loop import build_optimizer
from supernet.training.passes import Pass, run_passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import SearchSpace

    Step = Callable[[Arch], float]

SPACE = "ofa_mbv3_w1.0"
RESOLUTION = 32
BATCH_SIZE = 64
SEED = 5
# Small, so that nothing diverges; both take the same.
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 3e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs as CSV and the table as Markdown")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each code on each arch")
    parser.add_argument("--steps", type=int, default=2, help="steps of a run")
    parser.add_argument("--random", type=int, default=8, help="random archs beside the largest and the smallest")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    space = replace(load_space(SPACE), resolutions=(RESOLUTION,))
    steps, archs = build_steps(space), choose_archs(space, arguments.random)
    warm_up(steps, archs)
    runs = list(alternate(steps, archs, arguments.rounds, arguments.steps))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(arguments.out / f"training_throughput_{arguments.threads}t.csv", runs)
    table = tabulate(space, archs, runs)
    (arguments.out / f"training_throughput_{arguments.threads}t.md").write_text(table, encoding="utf-8")
    print(f"torch {torch.__version__}, threads: {arguments.threads}, rounds: {arguments.rounds}\n\n{table}", end="")


@dataclass(frozen=True)
class Run:
    """A few steps of one code on one arch."""

    round: int
    arch: str
    code: str
    images_per_s: float


def choose_archs(space: SearchSpace, n_random: int) -> dict[str, Arch]:
    """By their names in the table."""
    rows = space.sample_rows(np.random.default_rng(SEED), n_random)
    drawn = {f"random {number}": arch for number, arch in enumerate(space.from_rows(rows), start=1)}
    return {"largest": space.largest(), "smallest": space.smallest(), **drawn}


def build_steps(space: SearchSpace) -> dict[str, Step]:
    """One training step of each code, which returns its loss."""
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn(BATCH_SIZE, space.in_chs, RESOLUTION, RESOLUTION, generator=generator)
    labels = torch.randint(space.classes, (BATCH_SIZE,), generator=generator)
    network = FAMILIES[SPACE].build(load_reference)
    fill_weights(network, RESOLUTION)
    supernet = build_supernet(import_weights(network.state_dict(), space).tensors, space)
    return {
        "reference": reference_step(network, space, images, labels),
        "ours": our_step(supernet, images, labels),
    }


def reference_step(network: Any, space: SearchSpace, images: Tensor, labels: Tensor) -> Step:
    """As its `RunManager.train_one_epoch`, with the optimizer of its `train_ofa_net.py`."""
    no_decay = ["bn", "bias"]
    optimizer = load_reference("utils").build_optimizer(
        [network.get_parameters(no_decay, mode=mode) for mode in ("exclude", "include")],
        "sgd",
        {"momentum": 0.9, "nesterov": True},
        LEARNING_RATE,
        WEIGHT_DECAY,
        "#".join(no_decay),
    )
    network.train()

    def step(arch: Arch) -> float:
        choice = ofa_from_arch(arch, space)
        network.set_active_subnet(ks=choice["ks"], e=choice["e"], d=choice["d"])
        loss = F.cross_entropy(network(images), labels)
        network.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(supernet: Supernet, images: Tensor, labels: Tensor) -> Step:
    """As a step of `supernet.training.loop`: its passes, clipping and optimizer, weights in channels-last order."""
    supernet.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    config = TrainConfig(SPACE, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    optimizer = build_optimizer(supernet, config)

    def step(arch: Arch) -> float:
        optimizer.zero_grad(set_to_none=True)
        (result,) = run_passes(supernet, [Pass(arch)], images, labels)
        clip_grad_norm_(supernet.parameters(), config.gradient_clip)
        optimizer.step()
        return result.loss

    return step


def warm_up(steps: dict[str, Step], archs: dict[str, Arch]) -> None:
    """Run every arch once; the first losses show that both codes run the same network."""
    losses = {code: step(archs["largest"]) for code, step in steps.items()}
    if abs(losses["ours"] - losses["reference"]) > 1e-3 * losses["reference"]:
        raise SystemExit(f"These are two different networks: {losses}.")
    for arch in archs.values():
        for step in steps.values():
            step(arch)


def alternate(steps: dict[str, Step], archs: dict[str, Arch], rounds: int, n_steps: int) -> Iterator[Run]:
    """Reference and ours in turns, arch after arch, round after round."""
    for number in range(1, rounds + 1):
        for name, arch in archs.items():
            for code, step in steps.items():
                started = time.perf_counter()
                for _ in range(n_steps):
                    step(arch)
                yield Run(number, name, code, n_steps * BATCH_SIZE / (time.perf_counter() - started))
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)


def write_csv(path: Path, runs: list[Run]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["round", "arch", "code", "images_per_s"])
        writer.writerows([run.round, run.arch, run.code, f"{run.images_per_s:.2f}"] for run in runs)


def tabulate(space: SearchSpace, archs: dict[str, Arch], runs: list[Run]) -> str:
    """A Markdown table: medians over the rounds with quartiles; a ratio is that of two runs one after the other."""
    lines = ["| arch | million MACs | reference, images/s | ours, images/s | ratio |", "|---|---|---|---|---|"]
    random_ratios = []
    for name, arch in archs.items():
        reference, ours = (
            np.array([run.images_per_s for run in runs if (run.arch, run.code) == (name, code)])
            for code in ("reference", "ours")
        )
        ratios = ours / reference
        if name.startswith("random"):
            random_ratios.extend(ratios)
        cells = (spread(reference, 0), spread(ours, 0), spread(ratios, 2))
        lines.append(f"| {name} | {macs(space, arch) / 1e6:.1f} | {' | '.join(cells)} |")
    if random_ratios:
        lines.append(f"| all random | | | | {spread(np.array(random_ratios), 2)} |")
    return "\n".join(lines) + "\n"


def spread(values: np.ndarray, digits: int) -> str:
    """Median and quartiles."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
