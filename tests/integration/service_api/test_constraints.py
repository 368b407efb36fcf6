"""What searches can be asked: budgets of every kind, the fastest accurate subnet, several devices, whole fleets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from latency_tables.estimator import LatencyEstimator, blocks_by_resolution
from service.turns import Turns
from supernet.spaces.arch import Arch
from supernet.spaces.presets import load_space

SPACE = load_space("cifar_mbv3")


@pytest.fixture
def with_energy(with_table, make_table, table_url):
    """Version 2 of the table knows energies: half a millijoule per block and a share of the latency."""
    table = make_table(factor=1.01)
    energies = {spec: 0.5 + stats.value_ms for spec, stats in table.rows.items()}
    assert with_table.put(table_url, json=replace(table, energy_mj=energies).to_dict()).status_code in (200, 201)
    return with_table


@pytest.fixture
def second(with_table, make_table):
    """Another device, on which depth costs little and kernels much."""
    table = make_table("other-4t", chip="Other")
    rows = {
        spec: replace(stats, value_ms=0.02 + spec.kernel_size**2 * spec.macs / 2e8)
        for spec, stats in table.rows.items()
    }
    response = with_table.put("/v1/devices/other-4t/tables/cifar_mbv3", json=replace(table, rows=rows).to_dict())
    assert response.status_code == 201
    return LatencyEstimator(replace(table, rows=rows), SPACE)


def test_peak_memory_and_size_are_kept_at_the_precision_asked_for(ask):
    free = ask(3.0).json()
    for precision, share in (("fp32", 0.7), ("int8", 0.2)):
        limits = {"latency_ms": 3.0, "peak_memory_bytes": int(share * free["peak_memory_bytes"])}
        found = ask(constraints=limits, precision=precision).json()
        assert found["peak_memory_bytes"] <= limits["peak_memory_bytes"]
        assert found["constraints"] == limits
    assert found["size_bytes"] == found["params"]


def test_energy_is_kept_and_stated_where_the_table_knows_it(ask, with_energy, problem):
    free = ask(3.0).json()
    budget = 0.8 * free["energy_mj"]
    found = ask(constraints={"energy_mj": budget}).json()
    assert found["energy_mj"] <= budget
    least = found["accuracy"]["predicted"] - 0.005
    thrifty = ask(constraints={"accuracy_min": least}, objective="energy_mj", evaluations=3000).json()
    assert thrifty["objective"] == "energy_mj"
    assert thrifty["accuracy"]["predicted"] >= least
    assert thrifty["energy_mj"] < found["energy_mj"]
    assert problem(ask(constraints={"energy_mj": 0.01}), 409, "infeasible_budget")["binding"] == "energy_mj"


def test_energy_without_energies_is_a_conflict(ask, problem):
    problem(ask(constraints={"energy_mj": 5}), 409, "no_energy")
    problem(ask(objective="energy_mj"), 409, "no_energy")


def test_a_share_of_the_range_becomes_milliseconds(ask, with_table):
    limits = with_table.get("/v1/devices/bench-1t/limits").json()["latency_ms"]
    for percent in (0, 30, 100):
        found = ask(constraints={"latency_percent": percent}).json()
        budget = limits["min"] + percent / 100 * (limits["max"] - limits["min"])
        assert found["constraints"] == {"latency_percent": percent, "latency_ms": pytest.approx(budget)}
        assert found["latency_ms"]["estimated"] <= budget * (1 + 1e-12)


def test_the_fastest_subnet_that_is_accurate_enough(ask, problem):
    best = ask(2.0).json()
    least = best["accuracy"]["predicted"] - 0.01
    found = ask(constraints={"accuracy_min": least}).json()
    assert found["objective"] == "latency_ms"
    assert found["accuracy"]["predicted"] >= least
    assert found["latency_ms"]["estimated"] < best["latency_ms"]["estimated"]
    smaller = ask(constraints={"accuracy_min": least}, objective="params").json()
    assert smaller["params"] < found["params"]
    refused = problem(ask(constraints={"accuracy_min": 0.999, "latency_ms": 2.0}), 409, "infeasible_budget")
    assert refused["binding"] == "accuracy_min"
    assert refused["best_achievable"]["accuracy"] < 0.999
    assert refused["best_achievable"]["latency_ms"] <= 2.0


def test_one_subnet_for_two_devices(with_table, second, ask, problem):
    body = {"devices": [{"device": "bench-1t", "latency_ms": 2.0}, {"device": "other-4t", "latency_ms": 1.5}]}
    response = with_table.post("/v1/searches", json=body | {"deploy": True})
    assert response.status_code == 201
    found = response.json()
    arch = Arch.from_dict(found["arch"])
    assert found["latencies"]["bench-1t"]["estimated"] <= 2.0
    assert found["latencies"]["other-4t"]["estimated"] == second.estimate([arch])[0].estimated_ms <= 1.5
    assert (found["device"], found["latency_ms"]) == (None, None)
    assert found["constraints"] == {"latency_ms@bench-1t": 2.0, "latency_ms@other-4t": 1.5}
    assert found["versions"]["table"] == {"bench-1t": 1, "other-4t": 1}
    # No better than what each device alone would get, but for what a search leaves to find.
    assert found["accuracy"]["predicted"] <= ask(2.0).json()["accuracy"]["predicted"] + 0.002
    assert with_table.get(response.headers["location"]).json() == found
    assert found["deployment"]["state"] == "queued"

    body["devices"][1]["latency_ms"] = 0.01
    refused = problem(with_table.post("/v1/searches", json=body), 409, "infeasible_budget")
    assert refused["binding"] == "latency_ms@other-4t"
    assert set(refused["best_achievable"]) == {"latency_ms@bench-1t", "latency_ms@other-4t", "arch", "arch_id"}


@pytest.mark.parametrize(
    "body",
    [
        {"constraints": {"latency_ms": 1}},
        {"device": "bench-1t", "devices": [{"device": "bench-1t", "latency_ms": 1}]},
        {"devices": []},
        {"devices": [{"device": "bench-1t"}]},
        {"devices": [{"device": "bench-1t", "latency_ms": 1, "latency_percent": 5}]},
        {"devices": [{"device": "bench-1t", "latency_ms": 1}] * 2},
        {"devices": [{"device": "bench-1t", "latency_ms": 1}], "constraints": {"latency_ms": 1}},
        {"device": "bench-1t", "constraints": {"latency_ms": 1, "latency_percent": 5}},
        {"device": "bench-1t", "constraints": {"latency_percent": 101}},
        {"device": "bench-1t", "constraints": {"accuracy_min": 1.5}},
        {"device": "bench-1t", "constraints": {"accuracy_min": 0}},
        {"device": "bench-1t", "constraints": {"peak_memory_bytes": -1}},
        {"device": "bench-1t", "constraints": {"latency_ms": 1}, "objective": "beauty"},
        {"device": "bench-1t", "constraints": {"latency_ms": 1}, "precision": "int8", "deploy": True},
    ],
)
def test_contradictory_questions_are_refused(with_table, counts, problem, body):
    response = with_table.post("/v1/searches", json=body)
    problem(response, 422, "unsupported_precision" if "precision" in body else "invalid_request")
    assert counts()["searches"] == 0


def test_what_several_devices_do_not_have_in_common_is_refused(with_table, second, problem):
    devices = [{"device": "bench-1t", "latency_ms": 2.0}, {"device": "other-4t", "latency_ms": 1.5}]
    for more in (
        {"objective": "latency_ms"},
        {"constraints": {"energy_mj": 5}},
    ):
        problem(with_table.post("/v1/searches", json={"devices": devices} | more), 422, "invalid_request")
    found = with_table.post("/v1/searches", json={"devices": devices, "constraints": {"accuracy_min": 0.6}}).json()
    assert (found["objective"], found["constraints"]["accuracy_min"]) == ("accuracy", 0.6)
    assert found["accuracy"]["predicted"] >= 0.6


def test_a_share_of_the_range_is_one_of_what_can_be_searched(client, make_table, table_url):
    """Energies are known at one resolution alone, at which the device's fastest subnet is not."""
    table, space = make_table(), load_space("cifar_mbv3")
    largest = max(space.resolutions)
    known = blocks_by_resolution(space)[largest]
    energies = {spec: stats.value_ms for spec, stats in table.rows.items() if spec in known}
    assert client.put(table_url, json=replace(table, energy_mj=energies).to_dict()).status_code == 201
    constraints = {"latency_percent": 0, "energy_mj": 1e9}
    found = client.post("/v1/searches", json={"device": "bench-1t", "constraints": constraints})
    assert found.status_code == 201, found.text
    assert found.json()["arch"]["resolution"] == largest


def test_a_share_at_a_confidence_can_be_met_beside_other_budgets(ask):
    """What one arch costs alone it costs among others, to the last bit."""
    for confidence in (0.53, 0.61, 0.69, 0.77, 0.89):
        constraints = {"latency_percent": 0, "macs": 1e12}
        assert ask(constraints=constraints, confidence=confidence).status_code == 201


def test_a_fleet_has_an_answer_or_a_reason_for_every_question(with_table, second, counts):
    searches = [
        {"device": device, "constraints": {"latency_percent": percent}}
        for device in ("bench-1t", "other-4t")
        for percent in (10, 40, 70)
    ]
    searches.insert(2, {"device": "bench-1t", "constraints": {"latency_ms": 1e-3}})
    searches.append({"device": "nobody", "constraints": {"latency_ms": 1}})
    response = with_table.post("/v1/searches:batch", json={"searches": searches})
    assert response.status_code == 200
    items = response.json()["items"]
    assert len(items) == 8
    assert [item["problem"]["code"] for item in items if item["problem"]] == ["infeasible_budget", "unknown_device"]
    assert items[2]["problem"]["binding"] == "latency_ms"
    for asked, item in zip(searches, items, strict=True):
        if item["search"] is None:
            continue
        found = item["search"]
        assert found["device"] == asked["device"]
        assert found["latency_ms"]["estimated"] <= found["constraints"]["latency_ms"] * (1 + 1e-12)
        assert with_table.get(f"/v1/searches/{found['id']}").json() == found
        alone = with_table.post("/v1/searches", json=asked).json()
        assert found["accuracy"]["predicted"] > alone["accuracy"]["predicted"] - 0.003
    assert counts()["searches"] == 12
    again = with_table.post("/v1/searches:batch", json={"searches": searches}).json()["items"]
    assert [item["search"] and item["search"]["arch"] for item in again] == [
        item["search"] and item["search"]["arch"] for item in items
    ]


def test_searches_of_a_batch_that_name_their_evaluations_have_them(with_table):
    asked = [{"device": "bench-1t", "constraints": {"latency_ms": 1.0}, "evaluations": 3000, "seed": 5}] * 6
    items = with_table.post("/v1/searches:batch", json={"searches": asked}).json()["items"]
    alone = with_table.post("/v1/searches", json=asked[0]).json()
    assert alone["evaluations"] == 3000
    for item in items:
        assert (item["search"]["arch"], item["search"]["evaluations"]) == (alone["arch"], 3000)


def test_a_device_that_is_deleted_meanwhile_costs_a_batch_one_answer(with_table, second, monkeypatch, counts):
    from service.usecases import searches

    answer = searches.answer_searches

    def delete_meanwhile(plans):
        outcomes = answer(plans)
        assert with_table.delete("/v1/devices/other-4t").status_code == 204
        return outcomes

    monkeypatch.setattr("service.api.searches.answer_searches", delete_meanwhile)
    asked = [
        {"device": device, "constraints": {"latency_percent": 50}} for device in ("bench-1t", "other-4t", "bench-1t")
    ]
    items = with_table.post("/v1/searches:batch", json={"searches": asked}).json()["items"]
    assert [item["search"] is not None for item in items] == [True, False, True]
    assert items[1]["problem"]["status"] == 409
    assert counts()["searches"] == 2


@pytest.mark.parametrize("body", [{}, {"searches": []}, {"searches": [{"device": "bench-1t", "constraints": 5}]}])
def test_a_malformed_fleet_is_refused_as_a_whole(with_table, counts, problem, body):
    problem(with_table.post("/v1/searches:batch", json=body), 422, "invalid_request")
    assert counts()["searches"] == 0


def test_a_search_waits_for_its_turn_but_not_for_ever(ask, app, monkeypatch, problem):
    from service.usecases import searches

    answer, begun, go_on = searches.answer_search, Event(), Event()

    def answer_slowly(plan):
        begun.set()
        assert go_on.wait(30)
        return answer(plan)

    app.state.services = replace(app.state.services, turns=Turns(wait_s=0.2))
    monkeypatch.setattr("service.api.searches.answer_search", answer_slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, 1.5)
        assert begun.wait(30)
        refused = ask(2.0)
        go_on.set()
        assert first.result().status_code == 201
    problem(refused, 429, "busy")
    assert refused.headers["retry-after"] == "1"
    assert ask(2.0).status_code == 201


def test_a_search_of_very_many_evaluations_is_a_job(ask, with_table, second, work, counts, problem):
    devices = [{"device": "bench-1t", "latency_ms": 2.0}, {"device": "other-4t", "latency_percent": 30}]
    for body in ({"constraints": {"latency_ms": 1.5}}, {"device": None, "devices": devices, "constraints": {}}):
        response = ask(evaluations=200_001, **body)
        assert response.status_code == 202
        order = response.json()
        assert response.headers["location"] == f"/v1/searches/{order['id']}"
        problem(with_table.get(response.headers["location"]), 404, "unknown_search")
        work(order["job"]["id"])
        found = with_table.get(response.headers["location"]).json()
        assert with_table.get(f"/v1/jobs/{order['job']['id']}").json()["result"] == response.headers["location"]
        assert (found["id"], found["source"]) == (order["id"], "evolution")
        assert 500 < found["evaluations"] <= 200_001
        at_once = ask(evaluations=2000, **body).json()
        assert set(found) == set(at_once)
        assert found["versions"] == at_once["versions"]
        assert found["constraints"] == at_once["constraints"]
        assert found["accuracy"]["predicted"] >= at_once["accuracy"]["predicted"] - 1e-6
    problem(ask(evaluations=200_001, deploy=True), 422, "invalid_request")
    refused = problem(ask(1e-3, evaluations=200_001), 409, "infeasible_budget")
    assert refused["binding"] == "latency_ms"
    problem(ask(constraints={"energy_mj": 1}, evaluations=200_001), 409, "no_energy")
    shared_out = {"searches": [{"device": "bench-1t", "evaluations": 200_000}] * 6}
    problem(with_table.post("/v1/searches:batch", json=shared_out), 422, "invalid_request")
    many = {"searches": [{"device": "bench-1t", "constraints": {"latency_ms": 1}, "evaluations": 200_001}]}
    problem(with_table.post("/v1/searches:batch", json=many), 422, "invalid_request")
    named = {"searches": [{"device": "bench-1t", "candidates": 50}] * 21}
    problem(with_table.post("/v1/searches:batch", json=named), 422, "invalid_request")
