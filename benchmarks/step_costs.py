"""What a step of each training method costs in MACs, the largest network as 1: counted, not measured.

python benchmarks/step_costs.py [--space cifar_mbv3]

Means over steps in the middle of each phase. A pass counts the MACs of its arch; a teacher, which only runs forward,
counts a third, since a backward pass costs about two forward ones.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from supernet.spaces.costs import macs
from supernet.spaces.presets import load_space
from supernet.training.config import TrainConfig
from supernet.training.method import Epoch, Teacher
from supernet.training.methods.registry import SETTINGS, build_method

EPOCHS, STEPS = 100, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="cifar_mbv3")
    space = load_space(parser.parse_args().space)
    largest = {size: macs(space, replace(space.largest(), resolution=size)) for size in space.resolutions}
    unit = float(np.mean(list(largest.values())))
    rng = np.random.default_rng(0)
    print(f"| method, on `{space.name}` | phase | cost of a step |\n|---|---|---|")
    for name in SETTINGS:
        method = build_method(TrainConfig(space.name, name, epochs=EPOCHS), space)
        first = 0
        for phase in method.phases():
            costs = []
            for step in range(STEPS):
                epoch = Epoch(first + phase.epochs // 2, phase, phase.epochs // 2, EPOCHS)
                passes = method.passes(epoch, step, rng)
                taught = phase.teacher is not Teacher.FIRST_PASS
                sizes = {one.arch.resolution for one in passes} if taught else set()
                costs.append(
                    sum(macs(method.space, one.arch) for one in passes) + sum(largest[size] for size in sizes) / 3
                )
            first += phase.epochs
            print(f"| `{name}` | {phase.name} | {np.mean(costs) / unit:.2f} |")
    target = macs(space, space.smallest())
    print(f"\nThe smallest network, the target of `netaug` and `fine_tuning` here, has {target / unit:.3f} alone.")


if __name__ == "__main__":
    main()
