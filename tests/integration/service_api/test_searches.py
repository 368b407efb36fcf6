"""Searches: the answer keeps what was asked for, is stored as it was given, and an impossible one is told at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from latency_tables.estimator import LatencyEstimator
from supernet.spaces.arch import Arch
from supernet.spaces.costs import macs, params, peak_memory
from supernet.spaces.presets import load_space

SEARCH_OBJECT = {
    *("id", "supernet", "device", "constraints", "arch", "arch_id", "accuracy", "latency_ms", "latencies"),
    *(
        "objective",
        "energy_mj",
        "macs",
        "params",
        "size_bytes",
        "peak_memory_bytes",
        "evaluations",
        "seconds",
        "source",
        "candidates",
        "versions",
    ),
    "deployment",
}


def test_the_answer_is_the_search_object(ask, with_table, make_table):
    response = ask(1.5)
    assert response.status_code == 201
    found = response.json()
    space = load_space("cifar_mbv3")
    arch = Arch.from_dict(found["arch"])
    (estimate,) = LatencyEstimator(make_table(), space).estimate([arch])
    assert set(found) == SEARCH_OBJECT
    assert (found["supernet"], found["device"], found["constraints"]) == ("cifar_mbv3", "bench-1t", {"latency_ms": 1.5})
    assert (found["arch_id"], found["source"]) == (arch.arch_id, "evolution")
    assert space.canonicalize(arch) == arch
    assert found["latency_ms"] == {
        "estimated": estimate.estimated_ms,
        "low": estimate.low_ms,
        "high": estimate.high_ms,
        "level": 0.9,
    }
    assert (found["macs"], found["params"], found["size_bytes"]) == (
        macs(space, arch),
        params(space, arch),
        4 * params(space, arch),
    )
    assert 0 < found["accuracy"]["low"] < found["accuracy"]["predicted"] < found["accuracy"]["high"] < 1
    assert found["evaluations"] <= 500
    assert found["versions"]["table"] == 1
    assert found["peak_memory_bytes"] == 4 * peak_memory(space, arch)
    assert (found["objective"], found["latencies"], found["energy_mj"], found["deployment"]) == (
        "accuracy",
        None,
        None,
        None,
    )


def test_a_search_is_stored_as_it_was_answered(ask, with_table):
    response = ask(1.5)
    assert with_table.get(response.headers["location"]).json() == response.json()
    assert with_table.get("/v1/searches").json() == {"items": [response.json()], "next_cursor": None}


def test_the_same_question_has_the_same_answer(ask):
    first, second, other = ask(1.5).json(), ask(1.5).json(), ask(1.5, seed=1).json()
    assert first["arch"] == second["arch"]
    assert first["id"] != second["id"]
    assert other["latency_ms"]["estimated"] <= 1.5


def test_the_estimate_keeps_the_budget_and_with_confidence_its_quantile_does(ask, make_table):
    estimator = LatencyEstimator(make_table(), load_space("cifar_mbv3"))
    assert ask(1.0).json()["latency_ms"]["estimated"] <= 1.0
    sure = ask(1.0, confidence=0.95).json()
    assert sure["latency_ms"]["estimated"] * estimator.ratio_at(0.95) <= 1.0 + 1e-9
    # 0.95 is the upper end of the 90 % interval.
    assert sure["latency_ms"]["high"] <= 1.0 + 1e-9
    assert ask(1.0, confidence=0.05).json()["latency_ms"]["estimated"] > 1.0


def test_every_constraint_is_kept(ask):
    limits = {"latency_ms": 2.0, "macs": 12_000_000, "params": 900_000, "size_bytes": 3_400_000}
    found = ask(constraints=limits).json()
    assert found["latency_ms"]["estimated"] <= 2.0
    assert all(found[name] <= limits[name] for name in ("macs", "params", "size_bytes"))
    assert found["constraints"] == limits


def test_a_search_without_a_limit_gives_the_best_there_is(ask):
    found = ask(None).json()
    assert found["constraints"] == {}
    assert found["accuracy"]["predicted"] >= ask(1.0).json()["accuracy"]["predicted"]


@pytest.mark.parametrize("confidence", [None, 0.95])
def test_an_impossible_budget_is_told_at_once_with_the_nearest_possible(ask, with_table, problem, counts, confidence):
    limits = with_table.get("/v1/devices/bench-1t/limits").json()
    ask(2.0)  # opens the bundle and compiles the table
    started = time.perf_counter()
    response = ask(0.1, confidence=confidence)
    seconds = time.perf_counter() - started
    body = problem(response, 409, "infeasible_budget")
    best = body["best_achievable"]
    assert body["binding"] == "latency_ms"
    assert best["arch"] == limits["archs"]["fastest"]["arch"]
    assert best["arch_id"] == limits["archs"]["fastest"]["arch_id"]
    # Rows that hardly spread widen the assumed 1.25 a little.
    expected = limits["latency_ms"]["min"] * (1.25 if confidence else 1.0)
    assert best["latency_ms"] == pytest.approx(expected, rel=1e-4)
    # What was called achievable is achievable.
    assert ask(best["latency_ms"] * (1 + 1e-9), confidence=confidence).status_code == 201
    assert counts()["searches"] == 2
    # The bar is 50 ms in the handler; this machine is shared and the test client adds its own.
    assert seconds < 0.5


def test_an_impossible_size_is_told_with_the_constraint_that_binds(ask, problem):
    body = problem(ask(constraints={"latency_ms": 3.0, "params": 1000}), 409, "infeasible_budget")
    assert body["binding"] == "params"
    assert body["best_achievable"]["params"] > 1000


@pytest.mark.parametrize(
    "fields",
    [
        *({"constraints": {"latency_ms": value}} for value in (0, -1, 1e7, 10**400, "2", True, None, [], {})),
        *({"constraints": {"macs": value}} for value in (0, -1, 1.5, 10**16, "5", True)),
        {"constraints": {"flops": 3}},
        {"constraints": None},
        {"constraints": []},
        *({"confidence": value} for value in (0, 1, -0.1, 2, "0.9", True)),
        *({"evaluations": value} for value in (0, 99, 50_000_001, -5, 1e9, "500", 150.5)),
        *({"seed": value} for value in (-1, 2**63, 1.5, "x", True)),
        {"precision": "int4"},
        {"deploy": "yes"},
        {"deploy": 1},
        {"device": ""},
        {"device": None},
        {"device": 3},
        {"device": "x" * 65},
        {"supernet": ""},
        {"supernet": []},
        {"opset": 18},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_a_malformed_question_is_refused(ask, counts, fields):
    response = ask(**fields)
    if fields == {"constraints": {"latency_ms": None}}:  # null is absent
        assert response.status_code == 201
        return
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json"), response.text
    assert counts()["searches"] == 0


def test_ids_in_the_body_are_looked_up(ask, with_table, problem):
    problem(ask(device="nope"), 404, "unknown_device")
    problem(ask(supernet="nope"), 404, "unknown_supernet")
    with_table.post("/v1/devices", json={"id": "bare", "chip": "c", "runtime": "r", "runtime_version": "1"})
    assert "/v1/devices/bare/tables/cifar_mbv3" in problem(ask(device="bare"), 409, "no_table")["detail"]


def test_a_supernet_without_predictor_cannot_be_searched(ask, problem):
    problem(ask(supernet="weights_only"), 409, "no_predictor")


def test_a_supernet_without_weights_can_be_searched_but_not_deployed(ask, problem, counts):
    assert ask(supernet="search_only").status_code == 201
    problem(ask(supernet="search_only", deploy=True), 409, "no_weights")
    assert counts()["searches"] == 1


def test_without_a_default_supernet_one_has_to_be_named(ask, services, problem):
    from sqlalchemy import update

    from service.db.engine import session_scope
    from service.db.models import Supernet

    with session_scope(services.sessions) as session:
        session.execute(update(Supernet).values(is_default=False))
    problem(ask(), 409, "no_default_supernet")
    assert ask(supernet="cifar_mbv3").status_code == 201


def test_a_search_can_deploy_its_answer(ask, with_table):
    found = ask(deploy=True).json()
    deployment = with_table.get(f"/v1/deployments/{found['deployment']['id']}").json()
    assert found["deployment"]["state"] == deployment["state"] == "queued"
    assert (deployment["search_id"], deployment["arch"]) == (found["id"], found["arch"])
    assert with_table.get(f"/v1/searches/{found['id']}").json() == found
    payload_job = with_table.get(f"/v1/jobs/{found['deployment']['job']['id']}").json()
    assert (payload_job["kind"], payload_job["deployment"]) == ("export_subnet", deployment["id"])


def test_a_search_whose_deployment_cannot_be_queued_is_not_stored(ask, services, monkeypatch, counts):
    def fail(*_: object) -> None:
        raise RuntimeError("the queue is gone")

    monkeypatch.setattr(services.queue, "enqueue", fail)
    assert ask(deploy=True).status_code == 500
    assert (counts()["searches"], counts()["jobs"], counts()["deployments"]) == (0, 0, 0)


def test_a_device_deleted_during_the_search_is_a_conflict(ask, with_table, monkeypatch, problem):
    from service.usecases import searches

    answer = searches.answer_search

    def answer_slowly(plan):
        with_table.delete("/v1/devices/bench-1t")
        return answer(plan)

    monkeypatch.setattr("service.api.searches.answer_search", answer_slowly)
    problem(ask(), 409, "conflict")


def test_a_new_table_is_used_by_the_next_search(ask, with_table, make_table, table_url):
    before = ask(1.5).json()
    with_table.put(table_url, json=make_table(factor=2.0).to_dict())
    after = ask(1.5).json()
    assert (before["versions"]["table"], after["versions"]["table"]) == (1, 2)
    assert after["macs"] < before["macs"]


def test_searches_side_by_side_answer_as_one_after_the_other(ask):
    alone = [ask(budget).json()["arch"] for budget in (1.0, 1.5, 2.0)]
    with ThreadPoolExecutor(6) as pool:
        together = [response.json()["arch"] for response in pool.map(ask, [1.0, 1.5, 2.0] * 2)]
    assert together == alone * 2
