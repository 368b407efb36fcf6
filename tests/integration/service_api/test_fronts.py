"""Fronts: traced once for a table and a predictor; searches they answer are look-ups."""

from __future__ import annotations

import pytest

from service.db import job_repository
from service.db.engine import session_scope
from service.errors import ConflictError
from service.jobs.states import JobState

URL = "/v1/devices/bench-1t/front"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"front_evaluations": 5000})


@pytest.fixture
def front(with_table, work):
    work(with_table.get(URL).json()["job"]["id"])
    return with_table.get(URL).json()


def test_a_front_is_ordered_once_and_then_known(with_table, work, counts):
    ordered = with_table.get(URL)
    assert ordered.status_code == 202
    job = ordered.json()["job"]
    assert ordered.headers["location"] == f"/v1/jobs/{job['id']}"
    assert with_table.get(URL).json() == ordered.json(), "asking again orders nothing"
    assert counts()["fronts"] == 1
    work(job["id"])
    response = with_table.get(URL)
    assert response.status_code == 200
    front = response.json()
    assert (front["id"], front["device"], front["supernet"]) == (job["id"], "bench-1t", "cifar_mbv3")
    assert with_table.get(with_table.get(f"/v1/jobs/{job['id']}").json()["result"]).json() == front
    for key, value in (("latency_ms", "estimated"), ("accuracy", "predicted")):
        values = [point[key][value] for point in front["points"]]
        assert values == sorted(values)
        assert len(set(values)) == len(values) > 20
    limits = with_table.get("/v1/devices/bench-1t/limits").json()["latency_ms"]
    assert front["points"][0]["latency_ms"]["estimated"] == pytest.approx(limits["min"])


def test_a_search_whose_front_is_known_is_a_look_up(ask, front, with_table):
    for budget, confidence in ((1.0, None), (2.0, 0.95), (2.0, 0.05), (1e3, None)):
        found = ask(budget, confidence=confidence).json() if confidence else ask(budget).json()
        assert (found["source"], found["evaluations"], found["versions"]["front"]) == ("front", 0, front["id"])
        searched = ask(budget, evaluations=500, **({"confidence": confidence} if confidence else {})).json()
        assert (searched["source"], searched["versions"]["front"]) == ("evolution", None)
        assert searched["accuracy"]["predicted"] >= found["accuracy"]["predicted"] - 1e-6, "it starts from the front"
    point = front["points"][len(front["points"]) // 2]
    least = point["accuracy"]["predicted"] - 1e-9
    found = ask(constraints={"accuracy_min": least}).json()
    assert (found["source"], found["arch_id"]) == ("front", point["arch_id"])


def test_a_batch_starts_from_the_front_as_a_single_search_does(ask, front, with_table):
    asked = [{"device": "bench-1t", "constraints": {"latency_ms": 1.0}, "evaluations": 500}] * 6
    items = with_table.post("/v1/searches:batch", json={"searches": asked}).json()["items"]
    alone = ask(1.0, evaluations=500).json()
    assert {item["search"]["arch_id"] for item in items} == {alone["arch_id"]}
    assert {item["search"]["source"] for item in items} == {"evolution"}


def test_what_the_front_does_not_know_is_searched(ask, front, problem):
    for constraints in (
        {"latency_ms": 2.0, "macs": 10e6},
        {"latency_percent": 40},
        {"latency_ms": 2.0, "params": 700e3},
    ):
        assert ask(constraints=constraints).json()["source"] == "evolution"
    refused = problem(ask(0.01), 409, "infeasible_budget")
    assert refused["binding"] == "latency_ms"
    assert problem(ask(constraints={"accuracy_min": 0.9999}), 409, "infeasible_budget")["binding"] == "accuracy_min"


def test_a_recalibrated_table_keeps_its_front_with_its_own_latencies(ask, front, with_table, table_url):
    middle = front["points"][len(front["points"]) // 2]
    measured = {"arch": middle["arch"], "latency_ms": 1.2 * middle["latency_ms"]["estimated"]}
    assert with_table.post(f"{table_url}/measurements", json={"networks": [measured]}).status_code == 201
    kept = with_table.get(URL).json()
    assert (kept["id"], kept["versions"]["table"]) == (front["id"], 2)
    for before, after in zip(front["points"], kept["points"], strict=True):
        assert after["arch_id"] == before["arch_id"]
        assert after["latency_ms"]["estimated"] == pytest.approx(1.2 * before["latency_ms"]["estimated"])
    found = ask(1.2 * middle["latency_ms"]["estimated"] * (1 + 1e-9)).json()
    assert (found["source"], found["arch_id"], found["versions"]["table"]) == ("front", middle["arch_id"], 2)


def test_a_new_table_makes_the_front_stale(ask, front, with_table, make_table, table_url):
    with_table.put(table_url, json=make_table(factor=2.0).to_dict())
    found = ask(2.0).json()
    assert (found["source"], found["versions"]["table"]) == ("evolution", 2)
    ordered = with_table.get(URL)
    assert ordered.status_code == 202
    assert ordered.json()["job"]["id"] != front["id"]
    # The same document once more is the same table, whose front is known.
    with_table.put(table_url, json=make_table().to_dict())
    assert with_table.get(URL).status_code == 200


def test_a_front_whose_job_was_cancelled_is_ordered_again(with_table):
    job = with_table.get(URL).json()["job"]
    with_table.post(f"/v1/jobs/{job['id']}/cancel")
    assert with_table.get(URL).json()["job"]["id"] != job["id"]


def test_a_front_that_failed_says_why_and_is_traced_again_when_asked_to(with_table, services, problem):
    job = with_table.get(URL).json()["job"]
    with session_scope(services.sessions) as session:
        job_repository.begin_attempt(session, job["id"], max_attempts=3)
    with session_scope(services.sessions) as session:
        error = {"code": "missing_package", "message": "The worker lacks a package."}
        job_repository.finish_attempt(session, job["id"], 1, state=JobState.FAILED, error=error)
    refused = problem(with_table.get(URL), 409, "failed")
    assert "The worker lacks a package." in refused["detail"]
    ordered = with_table.get(f"{URL}?again=true")
    assert ordered.status_code == 202
    assert ordered.json()["job"]["id"] != job["id"]
    assert with_table.get(URL).json() == ordered.json()


def test_a_job_starts_from_the_front(ask, front, with_table, work):
    order = ask(1.0, evaluations=200_001).json()
    job = with_table.get(f"/v1/jobs/{order['job']['id']}").json()
    assert job["state"] == "queued"
    work(job["id"])
    found = with_table.get(f"/v1/searches/{order['id']}").json()
    assert found["accuracy"]["predicted"] >= ask(1.0).json()["accuracy"]["predicted"] - 1e-9


def test_a_front_needs_a_table_and_a_predictor(client, with_table, problem):
    problem(client.get("/v1/devices/nobody/front"), 404, "unknown_device")
    problem(client.get(f"{URL}?supernet=nobody"), 404, "unknown_supernet")
    problem(client.get(f"{URL}?supernet=weights_only"), 409, "no_predictor")


def test_a_deleted_device_takes_its_fronts_along(with_table, front, counts, make_table, table_url, ask):
    assert with_table.delete("/v1/devices/bench-1t").status_code == 204
    assert counts()["fronts"] == 0
    with_table.put(table_url, json=make_table().to_dict())
    assert ask(2.0).json()["source"] == "evolution"


def test_a_front_nobody_waits_for_is_not_published(with_table, services):
    with_table.get(URL)
    with session_scope(services.sessions) as session, pytest.raises(ConflictError, match="ask for it again"):
        job_repository.publish_front(session, "f" * 32, document={})
