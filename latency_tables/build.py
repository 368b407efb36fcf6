"""Measuring this machine: distinct blocks and whole networks of a space, in a process of their own, to a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_tables.calibration import MIN_NETWORKS
from latency_tables.errors import InvalidSettingError, UnstableMeasurementError
from latency_tables.estimator import recalibrate_table
from latency_tables.graphs import build_graph
from latency_tables.measure import QUICK_PLAN, MeasurePlan
from latency_tables.probe import this_device
from latency_tables.process import MeasureProcess
from latency_tables.selection import choose_chains, choose_networks
from latency_tables.table import LatencyStats, LatencyTable, spec_to_dict
from latency_tables.visits import WARN_DRIFT, Pace, Visit, summarise
from supernet.spaces.costs import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from supernet.spaces.arch import Arch
    from supernet.spaces.blocks import BlockSpec
    from supernet.spaces.space import SearchSpace

REPORT_EVERY = 20
# How long to wait for the pace of a table.
PACE_S = 15.0

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class MeasuredNetwork:
    """A whole network that was timed.

    Attributes:
        stats: Its latency.
        is_steady: Whether the machine ever had its pace meanwhile; without it the latency is crude.
    """

    stats: LatencyStats
    is_steady: bool


def measure_table(
    space: SearchSpace,
    *,
    device_id: str | None = None,
    threads: int = 1,
    plan: MeasurePlan = QUICK_PLAN,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
    blocks: Sequence[BlockSpec] | None = None,
) -> LatencyTable:
    """The table of `measure_table_and_networks`, which says what arguments and errors mean."""
    table, _ = measure_table_and_networks(
        space, (), device_id=device_id, threads=threads, plan=plan, seed=seed, report=report, blocks=blocks
    )
    return table


def measure_table_and_networks(
    space: SearchSpace,
    archs: Sequence[Arch],
    *,
    device_id: str | None = None,
    threads: int = 1,
    plan: MeasurePlan = QUICK_PLAN,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
    blocks: Sequence[BlockSpec] | None = None,
) -> tuple[LatencyTable, list[LatencyStats]]:
    """Measure this machine with ONNX Runtime at batch size 1: a table, and whole networks it has never seen.

    Visits of blocks, of networks for the calibration and of `archs` take turns, so that all see the same machine: the
    host of a virtual one may give it another speed a minute later.

    Blocks are timed inside chains that are whole networks cut into blocks: each runs on the buffers and the caches
    its predecessor left. Timed alone in a loop, blocks of a small network fit a cache that the network does not,
    and their sums fell 30 % short on the machine this was written on. What an empty call costs inside the chain is
    taken off. Whole networks that no chain used, timed in between as callers run them, give the calibration.

    Args:
        space: With the number of classes in use.
        archs: Whole networks to judge the table by; the calibration uses none of them.
        device_id: Name of the device; by default made of chip, cores and threads.
        threads: Threads of one inference; the process is bound to as many CPUs.
        plan: How long to measure.
        seed: Of chains, networks, weights and inputs.
        report: Called with a line of progress now and then; an exception it raises ends the measurement.
        blocks: Only these blocks of the space, without a calibration.

    Returns:
        The table, whose `source` holds the plan, drift of the reference network, share of steady visits, and warnings;
        and the latency of each of `archs`, in order.

    Raises:
        UnstableMeasurementError: The drift is above `plan.max_drift`, or too few visits were steady: no table is better
            than a wrong one.
        InvalidArchError: One of `archs` lies outside the space.
        InvalidSettingError: A block does not belong to the space, or the plan has too few networks.
        MeasurementError: The measuring process refuses or dies.
    """
    device = this_device(device_id, threads=threads)
    rng = np.random.default_rng(seed)
    wanted = space.distinct_blocks() if blocks is None else tuple(sorted(set(blocks)))
    if blocks is None and 0 < plan.networks < MIN_NETWORKS:
        raise InvalidSettingError(f"A calibration needs {MIN_NETWORKS} networks or none, the plan has {plan.networks}.")
    chains = choose_chains(space, wanted, coverage=plan.coverage, rng=rng)
    seen = set(map(space.canonicalize, archs))
    count = plan.networks if blocks is None else 0
    networks = [arch for arch in choose_networks(space, count + len(seen), rng=rng) if arch not in seen][:count]
    bench = _Bench(space, plan=plan, threads=threads, seed=seed, rng=rng, report=report)
    bench.run(chains=chains, networks=[*networks, *archs])
    pace = bench.pace
    bench.check_covered("chains and networks were seen at the machine's own speed, a table")
    positions: dict[BlockSpec, list[tuple[Visit, int]]] = {spec: [] for spec in wanted}
    for index, arch in enumerate(chains):
        for call, spec in enumerate(blocks_of(space, arch)):
            if spec in positions:
                positions[spec] += [(visit, call) for visit in bench.visits["chain", index]]
    table = LatencyTable(
        device=device,
        space=space.name,
        source=bench.provenance(device.runtime_version) | {"chains": len(chains)},
        rows={spec: summarise(samples, pace) for spec, samples in positions.items()},
    )
    judged = [bench.network_stats(len(networks) + index) for index in range(len(archs))]
    if not networks:
        return table, judged
    steady = [index for index in range(len(networks)) if bench.was_steady(index)]
    # A network seen only while the machine was busy says nothing of the rows, unless nearly all were.
    used = steady if len(steady) >= max(MIN_NETWORKS, len(networks) // 2) else range(len(networks))
    measured = [bench.network_stats(index).value_ms for index in used]
    return recalibrate_table(table, space, [networks[index] for index in used], measured_ms=measured), judged


def measure_networks(
    archs: Sequence[Arch],
    space: SearchSpace,
    *,
    threads: int = 1,
    plan: MeasurePlan = QUICK_PLAN,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
    table: LatencyTable | None = None,
) -> list[MeasuredNetwork]:
    """Measure whole archs with random weights on this machine, in their order.

    Args:
        archs: Of the space.
        space: With the number of classes in use.
        threads: Threads of one inference.
        plan: How long to measure.
        seed: Of weights, inputs and the order of visits.
        report: Called with a line of progress now and then.
        table: Measured here before: only visits at its pace count, so that its estimates can be compared.

    Raises:
        InvalidArchError: An arch lies outside the space.
        InvalidSettingError: The table is for another number of threads, or does not say what its reference was.
        UnstableMeasurementError: The drift is above `plan.max_drift`, or too few networks had a steady visit at the
            table's pace.
        MeasurementError: The measuring process refuses or dies.
    """
    if not archs:
        return []
    bench = _Bench(space, plan=plan, threads=threads, seed=seed, rng=np.random.default_rng(seed), report=report)
    if table is not None:
        bench.reference, bench.usual = _reference_of(table, space, threads=threads)
    bench.run(chains=[], networks=archs)
    if table is not None:
        bench.check_covered("networks were seen at the table's pace, a comparison")
    return [MeasuredNetwork(bench.network_stats(index), bench.was_steady(index)) for index in range(len(archs))]


def measure_model(
    model: str | Path | bytes,
    *,
    threads: int = 1,
    plan: MeasurePlan = QUICK_PLAN,
    table: LatencyTable | None = None,
    space: SearchSpace | None = None,
) -> LatencyStats:
    """Measure an ONNX file, or its bytes, on this machine; a symbolic batch dimension counts as 1.

    Args:
        model: A file, or the bytes of one.
        threads: Threads of one inference.
        plan: How long to measure.
        table: Measured here before: its reference network runs between the bursts, and only bursts count during which
            the machine has the table's pace. Needs `space`.
        space: The table's.

    Returns:
        The median over bursts; the spread is that between them.

    Raises:
        UnstableMeasurementError: The machine never had the table's pace within `plan.limit_s`.
        InvalidSettingError: The table does not say what its reference was.
        MeasurementError: The model cannot be loaded, or has inputs nobody can make up.
        OSError: There is no such file.
    """
    if (table is None) != (space is None):
        raise InvalidSettingError("'table' and 'space' belong together: give both or neither.")
    reference, pace = ((), None) if table is None or space is None else _reference_of(table, space, threads=threads)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx" if isinstance(model, bytes) else Path(model).resolve(strict=True)
        if isinstance(model, bytes):
            path.write_bytes(model)
        setup = _setup(plan, threads=threads, seed=0, networks=[str(path)])
        if reference:
            setup |= {"blocks": [spec_to_dict(spec) for spec in reference], "reference": list(range(len(reference)))}
        visits: list[Visit] = []
        started = perf_counter()
        with MeasureProcess(setup) as process:
            process.ask({"do": "network", "index": 0})  # warms up
            while len(visits) < plan.rounds or (
                pace is not None
                and sum(map(pace.is_steady, visits)) < plan.rounds
                and perf_counter() - started < plan.limit_s
            ):
                visits.append(_visit(process.ask({"do": "network", "index": 0})))
    if pace is not None and not any(map(pace.is_steady, visits)):
        now = Pace.of(visits)
        raise UnstableMeasurementError(
            f"The machine was never steady at the table's pace: its reference network took {pace.usual_ms:.3f} ms then "
            f"and takes {now.usual_ms:.3f} ms now. Stop "
            "other programs and measure again, or measure a new table.",
            drift=now.usual_ms / pace.usual_ms,
            steady_share=0.0,
        )
    return summarise([(visit, 0) for visit in visits], pace or Pace.of(visits))


def measure_pace(table: LatencyTable, space: SearchSpace, *, plan: MeasurePlan = QUICK_PLAN) -> float:
    """How much slower than its table this machine is now, by the table's reference network; 1 is the same.

    A table holds for a machine only at its own pace: a chip of the same name may be clocked or shared in another way.

    Raises:
        InvalidSettingError: The table does not say what its reference was.
        MeasurementError: The measuring process refuses or dies.
    """
    reference, pace = _reference_of(table, space, threads=table.device.threads)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reference.onnx"
        path.write_bytes(build_graph(reference, rng=np.random.default_rng(0)))
        setup = _setup(plan, threads=table.device.threads, seed=0, networks=[str(path)])
        setup |= {"blocks": [spec_to_dict(spec) for spec in reference], "reference": list(range(len(reference)))}
        visits: list[Visit] = []
        started = perf_counter()
        with MeasureProcess(setup) as process:
            # Until the table's pace was seen in a few bursts, or could have been.
            while sum(map(pace.is_steady, visits)) < plan.rounds and perf_counter() - started < PACE_S:
                visits.append(_visit(process.ask({"do": "network", "index": 0})))
    now = pace.usual_ms if sum(map(pace.is_steady, visits)) >= plan.rounds else Pace.of(visits).usual_ms
    return now / pace.usual_ms


@dataclass
class _Bench:
    """One measurement: chains and networks visited in random order, then again where the machine was not steady."""

    space: SearchSpace
    plan: MeasurePlan
    threads: int
    seed: int
    rng: np.random.Generator
    report: Callable[[str], None] | None
    visits: dict[Key, list[Visit]] = field(default_factory=dict)
    cpus: list[int] = field(default_factory=list)
    reference: Sequence[BlockSpec] = ()
    usual: Pace | None = None

    def run(self, *, chains: Sequence[Arch], networks: Sequence[Arch]) -> None:
        """Measure everything; `UnstableMeasurementError` where the drift is above the plan's."""
        reference = self.reference or _reference_blocks(self.space, self.seed)
        walks = [*(blocks_of(self.space, arch) for arch in (*chains, *networks)), reference]
        blocks = sorted({spec for walk in walks for spec in walk})
        number = {spec: index for index, spec in enumerate(blocks)}
        lists: list[list[int] | str] = [[number[spec] for spec in walk] for walk in walks]
        setup = _setup(self.plan, threads=self.threads, seed=self.seed, networks=lists[len(chains) : -1])
        setup |= {
            "blocks": [spec_to_dict(spec) for spec in blocks],
            "chains": lists[: len(chains)],
            "reference": lists[-1],
        }
        keys: list[Key] = [("chain", index) for index in range(len(chains))]
        keys += [("network", index) for index in range(len(networks))]
        self.visits = {key: [] for key in keys}
        total = len(keys) * self.plan.rounds
        self._say(f"measuring {len(chains)} chains of blocks and {len(networks)} networks, {total} visits")
        started = perf_counter()
        with MeasureProcess(setup) as process:
            self.cpus = process.cpus
            for _ in range(self.plan.rounds):
                self._round(process, keys, total)
            while (rare := self._rarely_steady()) and perf_counter() - started < self.plan.limit_s:
                total += len(rare)
                self._say(f"the machine was busy: {len(rare)} chains and networks are visited again")
                self._round(process, rare, total)
        drift = self._seen.drift
        if drift > self.plan.max_drift:
            raise UnstableMeasurementError(
                f"The reference network took up to {drift:.2f} times its fastest latency, allowed are "
                f"{self.plan.max_drift:.2f}. Stop other programs and measure again.",
                drift=drift,
                steady_share=self.steady_share,
            )

    def check_covered(self, what: str) -> None:
        """Refuse a measurement of which the machine was steady for too small a part."""
        if self.covered_share < self.plan.min_covered_share:
            raise UnstableMeasurementError(
                f"Only {self.covered_share:.0%} of the {what} needs {self.plan.min_covered_share:.0%}. "
                "Stop other programs and measure again.",
                drift=self._seen.drift,
                steady_share=self.steady_share,
            )

    @property
    def pace(self) -> Pace:
        """The speed at which visits count: the one asked for, or the machine's over all visits."""
        return self.usual or self._seen

    @property
    def steady_share(self) -> float:
        """Share of the visits that count."""
        pace = self.pace
        return float(np.mean([pace.is_steady(visit) for visits in self.visits.values() for visit in visits]))

    @property
    def covered_share(self) -> float:
        """Share of the chains and networks with a visit that counts."""
        return 1 - len(self._rarely_steady(1)) / len(self.visits)

    def network_stats(self, index: int) -> LatencyStats:
        """Latency of a network that was visited."""
        return summarise([(visit, 0) for visit in self.visits["network", index]], self.pace)

    def was_steady(self, index: int) -> bool:
        """Whether any visit of a network counts."""
        return any(map(self.pace.is_steady, self.visits["network", index]))

    def provenance(self, runtime_version: str) -> dict[str, Any]:
        """What a table says about this measurement."""
        pace = self._seen
        never = len(self._rarely_steady(1))
        warnings = []
        if pace.drift > WARN_DRIFT:
            warnings.append(f"the reference network drifted by a factor of {pace.drift:.2f}")
        if never:
            warnings.append(f"{never} chains or networks had no steady visit")
        return {
            "method": "blocks timed inside chains, empty calls taken off, ONNX Runtime "
            f"{runtime_version} CPU provider, random weights, median",
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "licence": "Apache-2.0",
            "plan": self.plan.to_dict(),
            "seed": self.seed,
            "cpus": len(self.cpus),
            "reference_ms": pace.usual_ms,
            "drift": pace.drift,
            "steady_share": self.steady_share,
            "warnings": warnings,
        }

    @property
    def _seen(self) -> Pace:
        return Pace.of(visit for visits in self.visits.values() for visit in visits)

    def _rarely_steady(self, least: int | None = None) -> list[Key]:
        """Chains and networks with fewer steady visits than `least`, by default the plan's."""
        pace, wanted = self.pace, self.plan.steady_visits if least is None else least
        return [key for key, visits in self.visits.items() if sum(map(pace.is_steady, visits)) < wanted]

    def _round(self, process: MeasureProcess, keys: Sequence[Key], total: int) -> None:
        for place in self.rng.permutation(len(keys)):
            kind, index = keys[place]
            self.visits[kind, index].append(_visit(process.ask({"do": kind, "index": index})))
            done = sum(map(len, self.visits.values()))
            if done % REPORT_EVERY == 0 or done == total:
                self._say(f"{done} of {total} visits")

    def _say(self, line: str) -> None:
        if self.report is not None:
            self.report(line)


def _reference_blocks(space: SearchSpace, seed: int) -> tuple[BlockSpec, ...]:
    """The network that runs between all visits of a measurement."""
    return blocks_of(space, space.sample(np.random.default_rng(seed)))


def _reference_of(table: LatencyTable, space: SearchSpace, *, threads: int) -> tuple[tuple[BlockSpec, ...], Pace]:
    """Blocks of a table's reference network, and the pace it was measured at."""
    if table.device.threads != threads:
        raise InvalidSettingError(
            f"The table is for {table.device.threads} threads, got {threads}. Measure with the table's number."
        )
    seed, reference_ms = table.source.get("seed"), table.source.get("reference_ms")
    if type(seed) is not int or not isinstance(reference_ms, float) or table.space != space.name:
        raise InvalidSettingError(
            f"The table of '{table.device.device_id}' for '{table.space}' does not name its reference network. "
            f"Measure one for '{space.name}' with `tailor profile`."
        )
    return _reference_blocks(space, seed), Pace(reference_ms, 1.0)


def _setup(plan: MeasurePlan, *, threads: int, seed: int, networks: Sequence[list[int] | str]) -> dict[str, Any]:
    return {
        "threads": threads,
        "batch_size": 1,
        "seed": seed,
        "plan": plan.to_dict(),
        "blocks": [],
        "chains": [],
        "networks": list(networks),
        "reference": None,
    }


def _visit(answer: dict[str, Any]) -> Visit:
    return Visit(tuple(answer["ms"]), tuple(answer["spread_ms"]), answer["runs"], tuple(answer["reference_ms"]))
