"""A device times the candidates of a search and reports them: its table follows, and so do its searches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from latency_tables.reports import REPORTED
from latency_tables.table import parse_table


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"front_evaluations": 5000})


@pytest.fixture
def url(table_url):
    return f"{table_url}/measurements"


def networks(search, *, factor=1.0, device="bench-1t"):
    return [
        {"arch": found["arch"], "latency_ms": factor * found["latencies"][device]["estimated"]}
        for found in search["candidates"]
    ]


def test_candidates_keep_the_budget_and_the_answer_is_the_first(ask):
    found = ask(1.0, candidates=8).json()
    assert len(found["candidates"]) == 8
    first = found["candidates"][0]
    assert (first["arch"], first["arch_id"]) == (found["arch"], found["arch_id"])
    assert first["accuracy"] == pytest.approx(found["accuracy"], rel=1e-6)
    assert first["latencies"] == {"bench-1t": found["latency_ms"]}
    accuracies = [one["accuracy"]["predicted"] for one in found["candidates"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(one["latencies"]["bench-1t"]["estimated"] <= 1.0 for one in found["candidates"])
    assert len({one["arch_id"] for one in found["candidates"]}) == 8
    assert ask(1.0).json()["candidates"] is None


def test_a_known_front_does_not_hide_the_candidates(ask, with_table, work):
    work(with_table.get("/v1/devices/bench-1t/front").json()["job"]["id"])
    assert ask(1.0).json()["source"] == "front"
    found = ask(1.0, candidates=5).json()
    assert (found["source"], len(found["candidates"])) == ("evolution", 5)


def test_stored_searches_keep_their_candidates(ask, with_table):
    found = ask(1.0, candidates=3).json()
    assert with_table.get(f"/v1/searches/{found['id']}").json() == found


def test_searches_follow_what_the_device_reports(ask, with_table, url, table_url):
    found = ask(1.0, candidates=8).json()
    response = with_table.post(url, json={"networks": networks(found, factor=1.3)})
    assert response.status_code == 201
    body = response.json()
    assert (body["device"], body["space"], body["version"]) == ("bench-1t", "cifar_mbv3", 2)
    assert (body["networks"], body["refitted"]) == (8, False)
    assert body["agreement"]["mape"] == pytest.approx(0.3 / 1.3)
    assert response.headers["location"] == f"{table_url}?version=2"
    again = ask(1.0).json()
    assert again["versions"]["table"] == 2
    assert again["latency_ms"]["estimated"] <= 1.0
    assert again["macs"] < found["macs"], "what looked fast enough is not"
    slower = ask(1.3).json()
    assert slower["arch_id"] == found["arch_id"]
    first, second = (parse_table(with_table.get(f"{table_url}?version={version}").text) for version in (1, 2))
    assert first.rows == second.rows
    assert len(second.source[REPORTED]) == 8


def test_another_report_adds_to_the_first(ask, with_table, url):
    found = ask(1.0, candidates=4).json()
    small = ask(0.6, candidates=4).json()
    assert with_table.post(url, json={"networks": networks(found)}).json()["networks"] == 4
    body = with_table.post(url, json={"networks": networks(small)}).json()
    assert (body["version"], body["networks"]) == (3, 8)


def test_a_report_once_more_changes_nothing(ask, with_table, url, counts):
    body = {"networks": networks(ask(1.0, candidates=4).json(), factor=1.1)}
    first = with_table.post(url, json=body).json()
    before = counts()
    again = with_table.post(url, json=body).json()
    assert (again["version"], again["networks"]) == (first["version"], 4)
    assert counts() == before


def test_reports_at_once_are_all_counted(ask, with_table, url):
    found = ask(1.0, candidates=8).json()
    bodies = [{"networks": [network]} for network in networks(found, factor=1.1)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda body: with_table.post(url, json=body), bodies))
    assert [answer.status_code for answer in answers] == [201] * 8
    last = max((answer.json() for answer in answers), key=lambda answer: answer["version"])
    assert (last["version"], last["networks"]) == (9, 8)


def test_a_report_leaves_the_device_as_it_is(ask, with_table, url, make_table):
    newer = make_table(runtime_version="2.0").device.to_dict()
    assert with_table.post("/v1/devices", json=newer).status_code == 200
    with_table.post(url, json={"networks": networks(ask(1.0, candidates=1).json())})
    assert with_table.get("/v1/devices/bench-1t").json()["runtime_version"] == "2.0"


def test_a_registered_table_forgets_the_reports(ask, with_table, url, table_url, make_table):
    found = ask(1.0, candidates=4).json()
    with_table.post(url, json={"networks": networks(found, factor=1.3)})
    with_table.put(table_url, json=make_table(factor=1.1).to_dict())
    assert with_table.post(url, json={"networks": networks(found)}).json()["networks"] == 4


@pytest.mark.parametrize(
    ("device", "space", "code"),
    [
        ("nobody", "cifar_mbv3", "unknown_device"),
        ("bench-1t", "nowhere", "unknown_space"),
        ("bench-1t", "ofa_resnet50", "unknown_table"),
    ],
)
def test_what_nobody_knows_is_not_found(ask, with_table, problem, device, space, code):
    body = {"networks": networks(ask(1.0, candidates=1).json())}
    problem(with_table.post(f"/v1/devices/{device}/tables/{space}/measurements", json=body), 404, code)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"latency_ms": 0}, "invalid_request"),
        ({"latency_ms": -1.0}, "invalid_request"),
        ({"latency_ms": "1"}, "invalid_request"),
        ({"latency_ms": 1e9}, "invalid_request"),
        ({"latency_ms": 1e-6}, "invalid_setting"),
        ({"latency_ms": 900.0}, "invalid_setting"),
        ({"arch": {"resolution": 7}}, "invalid_arch"),
        ({"arch": {}}, "invalid_request"),
        ({"speed": 1}, "invalid_request"),
    ],
)
def test_bad_reports_are_refused_and_change_nothing(ask, with_table, url, problem, counts, changes, code):
    good = networks(ask(1.0, candidates=2).json())
    before = counts()
    problem(with_table.post(url, json={"networks": [good[0], good[1] | changes]}), 422, code)
    assert counts() == before


@pytest.mark.parametrize("body", [{}, {"networks": []}, {"networks": {}}, [], {"networks": [1]}])
def test_bodies_that_are_no_report_are_refused(with_table, url, problem, body):
    problem(with_table.post(url, json=body), 422, "invalid_request")


@pytest.mark.parametrize("count", [-1, 51, 1.5, "3", True])
def test_as_many_candidates_as_nobody_times_are_refused(ask, problem, count):
    problem(ask(1.0, candidates=count), 422, "invalid_request")
