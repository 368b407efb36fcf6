from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from latency_tables.build import measure_model, measure_networks, measure_table, measure_table_and_networks
from latency_tables.check import check_table
from latency_tables.errors import InvalidSettingError, MeasurementError, UnstableMeasurementError
from latency_tables.graphs import build_graph, empty_graph
from latency_tables.measure import FULL_PLAN, QUICK_PLAN, MeasurePlan, Sessions, time_burst
from latency_tables.process import MeasureProcess
from latency_tables.selection import choose_chains, choose_networks
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockKind, BlockSpec
from supernet.spaces.costs import blocks_of, macs
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

TINY_PLAN = MeasurePlan(
    warmup_s=0,
    burst_s=0.002,
    reference_s=0.001,
    min_runs=3,
    rounds=1,
    limit_s=0,
    coverage=1,
    networks=6,
    min_covered_share=0,  # tests run beside others
)


def test_a_burst_times_each_call_and_drops_the_first_passes() -> None:
    seen: list[str] = []
    calls = [lambda: seen.append("a"), lambda: (seen.append("b"), sleep(0.002))]
    burst = time_burst(calls, burst_s=0, min_runs=5)
    assert burst.passes == 5
    assert seen == ["a", "b"] * 7
    assert burst.median_ms[0] < 1 < burst.median_ms[1]
    assert burst.spread_ms.shape == (2,)


def test_a_burst_lasts_as_long_as_asked() -> None:
    start = perf_counter()
    assert time_burst([lambda: None], burst_s=0.02, min_runs=3).passes > 50
    assert perf_counter() - start >= 0.02


@pytest.mark.parametrize(
    "change",
    [
        *({"warmup_s": -1.0}, {"burst_s": inf}, {"min_runs": 0}, {"rounds": 0}, {"limit_s": -1.0}),
        *({"coverage": 0}, {"networks": -1}, {"max_drift": 1.0}, {"max_drift": float("nan")}),
        {"min_covered_share": 1.5},
    ],
)
def test_plans_that_measure_nothing_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettingError, match=next(iter(change))):
        MeasurePlan(**change)


def test_plans_survive_their_dict() -> None:
    for plan in (QUICK_PLAN, FULL_PLAN, MeasurePlan(max_drift=1.5)):
        assert MeasurePlan.from_dict(plan.to_dict()) == plan
    with pytest.raises(InvalidSettingError, match="hours"):
        MeasurePlan.from_dict({"hours": 1})


def test_chained_calls_pass_buffers_on_and_skip_empty_graphs(
    small_space: SearchSpace, rng: np.random.Generator
) -> None:
    sessions = Sessions(threads=1, batch_size=1, rng=rng)
    blocks = blocks_of(small_space, small_space.largest())
    models = [build_graph([spec], rng=rng) for spec in blocks]
    chain = [sessions.get(index, lambda model=model: model) for index, model in enumerate(models)]
    chain.insert(2, sessions.get("empty", empty_graph))
    calls = sessions.chained_calls(chain)
    assert len(calls) == len(blocks) + 1
    for call in calls:
        call()


def test_sessions_are_reused_and_the_oldest_closed(rng: np.random.Generator) -> None:
    model = empty_graph()
    sessions = Sessions(threads=1, batch_size=1, rng=rng, max_bytes=2 * len(model))
    first, second = sessions.get(1, lambda: model), sessions.get(2, lambda: model)
    assert sessions.get(1, lambda: model) is first
    sessions.get(3, lambda: model)
    assert sessions.get(1, lambda: model) is first
    assert sessions.get(2, lambda: model) is not second


@pytest.mark.parametrize("coverage", [1, 3])
def test_chains_cover_every_block_often_enough(coverage: int) -> None:
    space = load_space("cifar_mbv3")
    blocks = space.distinct_blocks()
    chains = choose_chains(space, blocks, coverage=coverage, rng=np.random.default_rng(1))
    walks = [set(blocks_of(space, arch)) for arch in chains]
    assert min(sum(spec in walk for walk in walks) for spec in blocks) >= coverage
    assert len(chains) < 40 * coverage  # each holds about 16 of 255
    assert chains == choose_chains(space, blocks, coverage=coverage, rng=np.random.default_rng(1))


def test_networks_of_a_calibration_reach_further_than_uniform_draws(rng: np.random.Generator) -> None:
    """In MACs and in the share of the largest kernels: answers of searches lie there."""
    space = load_space("cifar_mbv3")
    chosen, uniform = choose_networks(space, 60, rng=rng), space.from_rows(space.sample_rows(rng, 60))
    assert len(chosen) == 60
    assert all(space.canonicalize(arch) == arch for arch in chosen)
    ends = {replace(end, resolution=size) for end in (space.smallest(), space.largest()) for size in space.resolutions}
    assert ends <= set(chosen)

    def largest_kernels(arch: Arch) -> float:
        sizes = [size for size in arch.kernel_sizes if size]
        return sizes.count(7) / len(sizes)

    for measure in (partial(macs, space), largest_kernels):
        (low, high), (inner_low, inner_high) = (
            np.quantile([measure(arch) for arch in archs], [0.05, 0.95]) for archs in (chosen, uniform)
        )
        assert low <= inner_low
        assert high > inner_high


def test_a_foreign_block_cannot_be_covered(small_space: SearchSpace, rng: np.random.Generator) -> None:
    foreign = BlockSpec(BlockKind.POOL, 99, 8, 8, 8)
    with pytest.raises(InvalidSettingError, match="foreign"):
        choose_chains(small_space, [foreign], coverage=1, rng=rng)


def test_a_measured_table_covers_its_space_and_says_how_it_was_made(small_space: SearchSpace) -> None:
    lines: list[str] = []
    table = measure_table(small_space, device_id="here", plan=TINY_PLAN, report=lines.append)
    assert table.device.device_id == "here"
    assert tuple(table.rows) == small_space.distinct_blocks()
    assert check_table(table, small_space).errors == ()
    assert table.calibration is not None
    assert len(table.calibration.residuals) >= 6
    assert {"method", "measured_at", "licence", "plan", "drift", "steady_share", "warnings"} <= set(table.source)
    assert table.source["drift"] >= 1
    assert "visits" in lines[0]
    total = sum(stats.value_ms for stats in table.rows.values())
    assert 0.01 < total < 100  # some 27 blocks of a few microseconds each


def test_networks_that_judge_a_table_are_measured_beside_it_and_left_out_of_its_calibration(
    small_space: SearchSpace,
) -> None:
    judging = [small_space.largest(), small_space.smallest()]
    table, measured = measure_table_and_networks(small_space, judging, device_id="here", plan=TINY_PLAN)
    assert len(measured) == 2
    assert all(stats.value_ms > 0 for stats in measured)
    assert table.calibration is not None
    assert len(table.calibration.residuals) == TINY_PLAN.networks


def test_chosen_blocks_are_measured_without_a_calibration(small_space: SearchSpace) -> None:
    wanted = small_space.distinct_blocks()[:2]
    table = measure_table(small_space, plan=TINY_PLAN, blocks=wanted)
    assert tuple(table.rows) == wanted
    assert table.calibration is None


def test_two_threads_are_measured_too(small_space: SearchSpace) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU only")
    table = measure_table(small_space, threads=2, plan=TINY_PLAN, blocks=small_space.distinct_blocks()[:1])
    assert table.device.threads == 2
    assert table.source["cpus"] == 2


def test_networks_are_measured_in_order(small_space: SearchSpace) -> None:
    large = load_space("ofa_mbv3_w1.2")
    slow, fast = measure_networks([large.largest(), large.smallest()], large, plan=TINY_PLAN)
    assert slow.stats.value_ms > 1.5 * fast.stats.value_ms
    assert measure_networks([], small_space, plan=TINY_PLAN) == []


def test_drift_above_the_plan_is_an_error(small_space: SearchSpace) -> None:
    plan = MeasurePlan.from_dict(TINY_PLAN.to_dict() | {"max_drift": 1.0001})
    with pytest.raises(UnstableMeasurementError) as caught:
        measure_networks([small_space.smallest()] * 20, small_space, plan=plan)
    assert caught.value.drift > 1.0001


def test_a_machine_that_is_never_steady_gives_no_table(
    small_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latency_tables.visits.MIXED_SHARE", -1.0)
    plan = MeasurePlan.from_dict(TINY_PLAN.to_dict() | {"min_covered_share": 0.01})
    with pytest.raises(UnstableMeasurementError, match="Only 0% of the chains and networks") as caught:
        measure_table(small_space, plan=plan)
    assert caught.value.steady_share == 0


def test_chains_and_networks_are_visited_until_enough_visits_were_steady(
    small_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latency_tables.visits.STEADY_SHARE", inf)
    monkeypatch.setattr("latency_tables.visits.MIXED_SHARE", inf)
    plan = MeasurePlan.from_dict(TINY_PLAN.to_dict() | {"steady_visits": 3, "limit_s": 60})
    lines: list[str] = []
    measure_networks([small_space.smallest()] * 2, small_space, plan=plan, report=lines.append)
    assert [line for line in lines if "visited again" in line] == [
        "the machine was busy: 2 chains and networks are visited again"
    ] * 2
    assert lines[-1] == "6 of 6 visits"


def test_networks_beside_a_table_count_only_at_its_pace(small_space: SearchSpace) -> None:
    plan = MeasurePlan.from_dict(TINY_PLAN.to_dict() | {"min_covered_share": 0.5, "limit_s": 0.2})
    table = measure_table(small_space, device_id="here", plan=TINY_PLAN)
    slower = replace(table, source=table.source | {"reference_ms": 1000.0 * table.source["reference_ms"]})
    archs = [small_space.smallest()] * 4
    with pytest.raises(UnstableMeasurementError, match="Only 0% of the networks were seen at the table's pace"):
        measure_networks(archs, small_space, plan=plan, table=slower)
    with pytest.raises(InvalidSettingError, match="The table is for 1 threads, got 2"):
        measure_networks(archs, small_space, threads=2, plan=plan, table=table)
    lenient = MeasurePlan.from_dict(TINY_PLAN.to_dict() | {"min_covered_share": 0.0})
    assert len(measure_networks(archs, small_space, plan=lenient, table=table)) == 4


def test_a_plan_with_too_few_networks_is_refused_before_measuring(small_space: SearchSpace) -> None:
    plan = MeasurePlan.from_dict(TINY_PLAN.to_dict() | {"networks": 3})
    with pytest.raises(InvalidSettingError, match="needs 6 networks"):
        measure_table(small_space, plan=plan)


def test_an_interrupted_measurement_leaves_no_process(small_space: SearchSpace) -> None:
    def cancel(line: str) -> None:
        if "of" in line:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        measure_table(small_space, plan=TINY_PLAN, report=cancel)


def relu_model(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_model_is_measured_from_a_file_or_its_bytes(tmp_path: Path) -> None:
    path = relu_model(tmp_path / "m.onnx", ["batch", 8])
    for model in (path, str(path), path.read_bytes()):
        assert 0 < measure_model(model, plan=TINY_PLAN).value_ms < 10


def test_a_model_nobody_can_feed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="only the first dimension"):
        measure_model(relu_model(tmp_path / "m.onnx", [1, "length"]), plan=TINY_PLAN)
    with pytest.raises(MeasurementError, match="allowed are float"):
        measure_model(relu_model(tmp_path / "d.onnx", [1, 8], TensorProto.DOUBLE), plan=TINY_PLAN)


def test_what_is_no_model_is_an_error_with_the_runtimes_words(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"ended \(code 1\).*[Pp]rotobuf"):
        measure_model(b"no model", plan=TINY_PLAN)
    with pytest.raises(FileNotFoundError):
        measure_model(tmp_path / "absent.onnx", plan=TINY_PLAN)


@pytest.mark.skipif(sys.platform != "linux", reason="CPUs are counted where processes can be bound")
def test_more_threads_than_cpus_are_refused(small_space: SearchSpace) -> None:
    with pytest.raises(MeasurementError, match="512 threads need as many CPUs"):
        measure_networks([small_space.smallest()], small_space, threads=512, plan=TINY_PLAN)


def test_an_answer_that_takes_too_long_ends_the_process(tmp_path: Path) -> None:
    path = relu_model(tmp_path / "m.onnx", [1, 8])
    setup = {
        **{"threads": 1, "batch_size": 1, "seed": 0, "blocks": [], "chains": [], "reference": None},
        **{"networks": [str(path)], "plan": MeasurePlan(burst_s=60).to_dict()},
    }
    with MeasureProcess(setup) as process:
        process.timeout_s = 0.2
        with pytest.raises(MeasurementError, match="ended"):
            process.ask({"do": "network", "index": 0})
