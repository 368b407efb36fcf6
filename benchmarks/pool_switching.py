"""Median time to switch between the pools of a bundle, beside cutting the subnet out anew and one forward pass.

python benchmarks/pool_switching.py --bundle runs/pss_net/bundle

Rounds alternate, every switch goes to another pool, and the first rounds are not counted. Prints the table as Markdown.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from supernet.evaluation.statistics import Statistics, apply_statistics
from supernet.network.checkpoint import load_supernet
from supernet.network.extract import extract_subnet
from supernet.pools.choice import statistics_of
from supernet.pools.runtime import PoolRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from supernet.network.elastic_net import Supernet
    from supernet.pools.storage import PoolChoice

WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", required=True, help="folder of a bundle with two pools at least")
    parser.add_argument("--rounds", type=int, default=400, help="each times one switch, one extraction, one image")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runtime, supernet = PoolRuntime.load(arguments.bundle), load_supernet(arguments.bundle)
    pools = runtime.pools
    if len(pools) < 2:
        sys.exit(f"'{arguments.bundle}' has one pool, between which nothing can be switched.")
    statistics = [statistics_of(supernet.space, pool) for pool in pools]
    order = np.random.default_rng(0).permutation(len(pools))
    seconds: dict[str, list[float]] = {"switch in place": [], "extract anew": [], "forward pass, one image": []}
    for number in range(WARM_UP + arguments.rounds):
        index = int(order[number % len(pools)])
        image = torch.zeros(1, supernet.space.in_chs, pools[index].arch.resolution, pools[index].arch.resolution)
        times = (
            timed(lambda index=index: runtime.switch(index)),
            timed(lambda index=index: cut_out(supernet, pools[index], statistics[index])),
            timed(lambda image=image: runtime(image)),
        )
        if number >= WARM_UP:
            for values, value in zip(seconds.values(), times, strict=True):
                values.append(value)
    print(as_markdown(seconds))
    print(f"{len(pools)} pools of '{supernet.space.name}', {arguments.threads} thread(s), torch {torch.__version__}.")


def cut_out(supernet: Supernet, pool: PoolChoice, statistics: Statistics) -> nn.Module:
    """What a device without shared weights does: a new network per pool."""
    subnet = extract_subnet(supernet, pool.arch)
    apply_statistics(subnet, statistics)
    return subnet


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def as_markdown(seconds: dict[str, list[float]]) -> str:
    lines = ["| | median | 10 % to 90 % | n |", "|---|---|---|---|"]
    for name, values in seconds.items():
        low, median, high = (1e6 * float(value) for value in np.quantile(values, (0.1, 0.5, 0.9)))
        lines.append(f"| {name} | {median:.1f} µs | {low:.1f} to {high:.1f} µs | {len(values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
