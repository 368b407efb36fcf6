"""The process that measures: `python -m latency_tables.measure_child`, commands in and answers out as JSON lines.

It runs nothing else, pins itself to its CPUs and ends with its standard input. Only `process.py` talks to it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from latency_tables.errors import LatencyError
from latency_tables.graphs import build_graph, empty_graph
from latency_tables.measure import MeasurePlan, Sessions, time_burst
from latency_tables.table import spec_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable

# Empty graphs run among the blocks of a chain: what a call costs there is taken off every block.
EMPTY_CALLS = 4


class Bench:
    """Models of one measurement and the plan to time them.

    Args:
        setup: `threads`, `batch_size`, `seed`, `plan`, `blocks` (block specs), `chains` and `networks` (lists of
            indices of blocks; a network may be a path instead) and `reference` (a network, or null for none).
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self.plan = MeasurePlan.from_dict(setup["plan"])
        self.blocks = [spec_from_dict(block) for block in setup["blocks"]]
        self.chains: list[list[int]] = setup["chains"]
        self.networks: list[list[int] | str] = setup["networks"]
        self.batch_size: int = setup["batch_size"]
        self.rng = np.random.default_rng(setup["seed"])
        self.sessions = Sessions(threads=setup["threads"], batch_size=self.batch_size, rng=self.rng)
        self.reference: Callable[[], Any] | None = None
        self.reference_ms = 0.0
        if setup["reference"] is not None:
            self.reference = self.sessions.plain_call(self._session("reference", setup["reference"]))
            time_burst([self.reference], burst_s=self.plan.warmup_s, min_runs=self.plan.min_runs)
            self.reference_ms = self._time_reference()

    def visit_chain(self, index: int) -> dict[str, Any]:
        """Time each block of a chain, in the order of the network, so that caches are as they are in one."""
        blocks = self.chains[index]
        # A block that stands in a network twice has two sets of weights there.
        chain = [self._session((block, blocks[:place].count(block)), [block]) for place, block in enumerate(blocks)]
        empties = [self._session(f"empty {number}", []) for number in range(EMPTY_CALLS)]
        # Spread over the chain; the blocks around an empty call still pass their buffer on.
        places = [(number + 1) * len(chain) // (EMPTY_CALLS + 1) + number for number in range(EMPTY_CALLS)]
        for place, empty in zip(places, empties, strict=True):
            chain.insert(max(place, 1), empty)
        is_empty = np.array([session in empties for session in chain])
        burst, references = self._visit(self.sessions.chained_calls(chain))
        empty_ms = float(burst.median_ms[is_empty].mean())
        return {
            "ms": [float(value) for value in burst.median_ms[~is_empty] - empty_ms],
            "spread_ms": [float(value) for value in burst.spread_ms[~is_empty]],
            "empty_ms": empty_ms,
            "runs": burst.passes,
            "reference_ms": references,
        }

    def visit_network(self, index: int) -> dict[str, Any]:
        """Time a whole network as callers run it."""
        call = self.sessions.plain_call(self._session(f"network {index}", self.networks[index]))
        burst, references = self._visit([call])
        return {
            "ms": [float(burst.median_ms[0])],
            "spread_ms": [float(burst.spread_ms[0])],
            "runs": burst.passes,
            "reference_ms": references,
        }

    def _visit(self, calls: list[Callable[[], Any]]) -> tuple[Any, list[float]]:
        before_ms = self.reference_ms
        burst = time_burst(calls, burst_s=self.plan.burst_s, min_runs=self.plan.min_runs)
        self.reference_ms = self._time_reference()
        return burst, [before_ms, self.reference_ms] if self.reference else []

    def _time_reference(self) -> float:
        if self.reference is None:
            return 0.0
        burst = time_burst([self.reference], burst_s=self.plan.reference_s, min_runs=self.plan.min_runs)
        return float(burst.median_ms[0])

    def _session(self, key: object, network: list[int] | str) -> Any:
        def model() -> bytes:
            if isinstance(network, str):
                return Path(network).read_bytes()
            if not network:
                return empty_graph()
            return build_graph([self.blocks[index] for index in network], rng=self.rng, batch_size=self.batch_size)

        return self.sessions.get(key, model)


def pin_cpus(threads: int) -> list[int]:
    """Bind this process to as many CPUs as it has threads, the last allowed ones: interrupts prefer the first.

    Returns:
        The CPUs; empty where the system cannot bind.

    Raises:
        LatencyError: Fewer CPUs are allowed than threads wanted.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        raise LatencyError(f"{threads} threads need as many CPUs, this process may use {len(allowed)}. Ask for fewer.")
    os.sched_setaffinity(0, allowed[-threads:])
    return allowed[-threads:]


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answer one JSON line per command until the commands end. An error is answered too and ends the process."""
    bench: Bench | None = None
    try:
        for line in commands:
            command = json.loads(line)
            answer: dict[str, Any]
            if bench is None:
                cpus = pin_cpus(command["threads"])
                bench = Bench(command)
                answer = {"cpus": cpus}
            else:
                visit = bench.visit_chain if command["do"] == "chain" else bench.visit_network
                answer = visit(command["index"])
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except LatencyError as error:
        answers.write(json.dumps({"error": str(error)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    gc.disable()  # a collection in the middle of a burst is no latency of the model
    serve(sys.stdin, sys.stdout)
