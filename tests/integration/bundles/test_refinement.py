"""Candidates of a search, really timed on this machine and really evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from latency_tables.build import MeasuredNetwork, measure_table
from latency_tables.device import DeviceProfile
from latency_tables.estimator import LatencyEstimator
from latency_tables.measure import MeasurePlan
from latency_tables.table import LatencyStats, LatencyTable
from latency_tables.visits import Pace
from service.answers import find_best
from service.labelled_images import build_evaluator
from service.questions import Question, Target
from service.refinement import (
    Candidate,
    choose,
    csv_columns,
    describe_choice,
    evaluate_candidates,
    measure_candidates,
)
from supernet.bundle import open_bundle
from supernet.data.splits import Splits
from supernet.errors import InfeasibleBudgetError
from supernet.predictors.loading import load_predictor
from supernet.spaces.arch import Arch


@pytest.fixture(scope="module")
def held_out(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held_out")
    assert splits.test is not None
    for index in range(200):
        name = splits.test.classes[splits.test.labels[index]]
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(splits.test.pixels[index]).save(folder / name / f"{index}.png")
    return folder


def test_the_answer_is_chosen_from_what_was_measured(
    run_dir: Path, held_out: Path, hasty_plan: MeasurePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beside other tests the machine keeps no pace, and candidates would be left out for it.
    monkeypatch.setattr(Pace, "is_steady", lambda _pace, _visit: True)
    bundle = open_bundle(run_dir / "bundle")
    predictor = load_predictor(bundle.predictor_path, bundle.space)
    table = measure_table(bundle.space, device_id="here", plan=hasty_plan)
    estimator = LatencyEstimator(table, bundle.space)
    target = Target("here", estimator, {"latency_percent": 70})
    seen: list[Candidate] = []

    def refine(archs: list[Arch]) -> tuple[Arch, dict[str, object]]:
        assert len(set(archs)) == len(archs) > 1
        best = archs[:4]
        predicted = predictor.predict(bundle.space.to_rows(best)).tolist()
        measured = measure_candidates(best, predicted, estimator, plan=hasty_plan)
        seen.extend(evaluate_candidates(measured, build_evaluator(str(bundle.path), held_out)))
        chosen = choose(seen, 1e6)
        return chosen.arch, describe_choice(chosen, seen)

    arch, found = find_best(predictor, [target], Question(), refine=refine)
    plain, _ = find_best(predictor, [target], Question())
    assert seen[0].arch == plain, "the best candidate is the answer without refinement"
    predicted = [candidate.predicted for candidate in seen]
    assert predicted == sorted(predicted, reverse=True)
    best = max(seen, key=lambda candidate: candidate.evaluated or 0)
    assert arch == best.arch
    assert found["arch"] == arch.to_dict()
    assert found["measured"] == {
        "latency_ms": best.measured_ms,
        "accuracy": best.evaluated,
        "candidates": len(seen),
    }
    for candidate in seen:
        assert candidate.measured_ms > 0
        assert candidate.estimated_ms == estimator.estimate([candidate.arch])[0].estimated_ms
        assert (200 * candidate.evaluated) % 1 == 0
    assert list(seen[0].to_row(bundle.space)) == csv_columns(bundle.space)


def test_candidates_seen_at_another_pace_are_left_out_unless_all_were(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = open_bundle(run_dir / "bundle").space
    archs = [space.largest(), space.smallest()]
    device = DeviceProfile(device_id="here", chip="Bench", runtime="ort", runtime_version="1.0")
    rows = {spec: LatencyStats(0.01) for spec in space.distinct_blocks()}
    estimator = LatencyEstimator(LatencyTable(device, space.name, {}, rows), space)
    for steady, kept in (((True, True), archs), ((False, True), archs[1:]), ((False, False), archs)):
        timed = [MeasuredNetwork(LatencyStats(1.0), is_steady) for is_steady in steady]
        monkeypatch.setattr("service.refinement.measure_networks", lambda *_, timed=timed, **__: timed)
        assert [candidate.arch for candidate in measure_candidates(archs, [0.9, 0.8], estimator)] == kept


@pytest.fixture
def candidates(run_dir: Path) -> list[Candidate]:
    space = open_bundle(run_dir / "bundle").space
    archs = (space.largest(), space.smallest())
    return [Candidate(archs[0], 2.0, 2.2, 0.9), Candidate(archs[1], 1.0, 1.9, 0.7)]


def test_what_was_measured_counts_and_not_what_was_estimated(candidates: list[Candidate]) -> None:
    large, small = candidates
    assert choose(candidates, 2.3) == large
    assert choose(candidates, 2.0) == small
    evaluated = [replace(large, evaluated=0.6), replace(small, evaluated=0.65)]
    assert choose(evaluated, 2.3) == evaluated[1], "an evaluated accuracy goes before a predicted one"


def test_a_budget_no_candidate_keeps_is_told_with_the_fastest(candidates: list[Candidate]) -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"None of the 2 candidates .* took 1\.9 ms where 1 ms") as caught:
        choose(candidates, 1.5)
    assert caught.value.best_achievable == {"latency_ms": 1.9}
    assert caught.value.arch == candidates[1].arch
