"""Latency tables over HTTP: checked, versioned, given back as they came; what is refused leaves no trace."""

from __future__ import annotations

import asyncio
import copy
import json
import threading

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from latency_tables.table import parse_table

CSV = {"content-type": "text/csv"}
JSON = {"content-type": "application/json"}


def test_a_table_creates_its_device_and_answers_with_the_report(client, make_table, table_url):
    response = client.put(table_url, json=make_table().to_dict())
    assert response.status_code == 201
    body = response.json()
    assert (body["device"], body["space"], body["version"], body["created"]) == ("bench-1t", "cifar_mbv3", 1, True)
    assert (body["report"]["rows"], body["report"]["missing"], body["report"]["errors"]) == (
        len(make_table().rows),
        0,
        [],
    )
    assert [(table["space"], table["version"]) for table in client.get("/v1/devices/bench-1t").json()["tables"]] == [
        ("cifar_mbv3", 1)
    ]


def test_the_same_document_gives_the_same_version(with_table, make_table, table_url):
    again = with_table.put(table_url, json=make_table().to_dict())
    as_csv = with_table.put(table_url, content=make_table().to_csv(), headers=CSV)
    for response in (again, as_csv):
        assert (response.status_code, response.json()["version"], response.json()["created"]) == (200, 1, False)


def test_a_change_is_a_new_version_and_every_version_can_be_read(with_table, make_table, table_url):
    assert with_table.put(table_url, json=make_table(factor=2.0).to_dict()).json()["version"] == 2
    for query, factor in (("", 2.0), ("?version=1", 1.0), ("?version=2", 2.0)):
        response = with_table.get(f"{table_url}{query}")
        assert parse_table(response.text) == make_table(factor=factor)
    assert response.headers["content-location"] == f"{table_url}?version=2"


def test_going_back_to_an_old_table_makes_it_the_newest(with_table, make_table, table_url):
    with_table.put(table_url, json=make_table(factor=2.0).to_dict())
    assert with_table.put(table_url, json=make_table().to_dict()).json()["version"] == 3
    assert parse_table(with_table.get(table_url).text) == make_table()


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("?format=csv", "application/json", "text/csv"),
        ("?format=json", "text/csv", "application/json"),
        ("", "text/csv", "text/csv"),
        ("", "text/csv;q=0.9, application/json", "text/csv"),
        ("", "application/json, text/csv", "application/json"),
        ("", "*/*", "application/json"),
        ("", "image/png", "application/json"),
    ],
)
def test_a_table_is_given_as_asked(with_table, make_table, table_url, query: str, accept: str, expected: str):
    response = with_table.get(f"{table_url}{query}", headers={"accept": accept})
    assert response.headers["content-type"].startswith(expected)
    assert parse_table(response.text) == make_table()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?version=2", 404),
        ("?version=0", 422),
        ("?version=x", 422),
        ("?format=xml", 422),
        ("?version=99999999999999", 422),
    ],
)
def test_a_version_that_is_not_there(with_table, table_url, query: str, status: int):
    assert with_table.get(f"{table_url}{query}").status_code == status


def test_a_device_without_this_table_says_so(with_table, problem):
    problem(with_table.get("/v1/devices/bench-1t/tables/ofa_mbv3_w1.0"), 404, "unknown_table")
    problem(with_table.get("/v1/devices/bench-1t/tables/nope"), 404, "unknown_space")


def test_path_and_document_have_to_agree(client, make_table, problem, counts):
    document = make_table().to_dict()
    body = problem(client.put("/v1/devices/other/tables/cifar_mbv3", json=document), 422, "path_mismatch")
    assert "'bench-1t'" in body["detail"]
    assert "'other'" in body["detail"]
    problem(client.put("/v1/devices/bench-1t/tables/ofa_mbv3_w1.0", json=document), 422, "path_mismatch")
    problem(client.put("/v1/devices/bench-1t/tables/nope", json=document), 404, "unknown_space")
    assert sum(counts().values()) == 3  # the supernets


def test_a_table_that_covers_no_resolution_is_refused_with_its_report(client, make_table, table_url, problem, counts):
    body = problem(client.put(table_url, json=make_table(drop=200).to_dict()), 422, "refused_table")
    assert body["report"]["missing"] == 200
    assert body["report"]["errors"]
    assert counts()["devices"] == counts()["latency_table_versions"] == 0


def test_a_table_for_other_hardware_under_the_same_id_is_refused(with_table, make_table, table_url, problem, counts):
    problem(with_table.put(table_url, json=make_table(threads=4).to_dict()), 409, "device_mismatch")
    assert counts()["latency_table_versions"] == 1
    newer = with_table.put(table_url, json=make_table(runtime_version="2.0", temperature_c=60.0).to_dict())
    assert newer.json()["version"] == 2


def test_a_copy_of_another_devices_table_is_reported(with_table, make_table):
    response = with_table.put("/v1/devices/fake/tables/cifar_mbv3", json=make_table("fake").to_dict())
    assert response.json()["report"]["copied_from"] == ["bench-1t"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 422),
        (b"null", JSON, 422),
        (b"{}", JSON, 422),
        (b'{"format": NaN}', JSON, 400),
        (b'{"format": "a", "format": "b"}', JSON, 422),
        (b"\xff\xfe", JSON, 400),
        (b"\xff\xfe", CSV, 400),
        (b"", CSV, 422),
        (b"kind,latency\nconv,3\n", CSV, 422),
        (b"{}", CSV, 422),
        (b'# source: {"a": 1e999}\n', CSV, 422),
        (b"x", {"content-type": "application/octet-stream"}, 415),
        (b"x", {}, 415),
    ],
    ids=str,
)
def test_what_is_no_table_is_refused(client, table_url, counts, content: bytes, headers, status: int):
    response = client.put(table_url, content=content, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert counts()["devices"] == 0


@pytest.mark.parametrize("text", ["\\ud800", "\\ud800\\u0000"])
def test_texts_that_cannot_be_sent_back_are_refused_in_csv_too(client, make_table, table_url, counts, text: str):
    header = '# source: {"measured_by": "a test"}'
    content = make_table().to_csv()
    assert header in content
    response = client.put(table_url, content=content.replace(header, f'# source: {{"x": "{text}"}}'), headers=CSV)
    assert response.status_code == 422
    assert counts()["devices"] == 0


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=2),
)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(data=st.data())
def test_a_mutated_table_is_stored_whole_or_not_at_all(client, make_table, table_url, counts, data):
    document = make_table().to_dict()
    document["rows"] = copy.deepcopy(document["rows"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = document
        while True:
            key = data.draw(
                st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1)
            )
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            break
        match data.draw(st.sampled_from(["replace", "delete", "add"])):
            case "replace":
                place[key] = data.draw(JUNK)
            case "delete":
                del place[key]
            case "add" if isinstance(place, dict):
                place[data.draw(st.text(max_size=5))] = data.draw(JUNK)
            case _:
                place.append(data.draw(JUNK))
        if not document:
            break
    before = counts()
    # 1e308 and the like are standard JSON; infinities are written as the text Python's reader would take.
    response = client.put(table_url, content=json.dumps(document).encode("utf-8", "replace"), headers=JSON)
    assert response.status_code in (200, 201, 400, 404, 409, 422), response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert counts() == before
    else:
        stored = client.get(f"{table_url}?version={response.json()['version']}")
        assert parse_table(stored.text).to_dict() == parse_table(json.dumps(document)).to_dict()


def test_others_are_answered_while_a_table_is_read(app, make_table, table_url, monkeypatch):
    reading, answered = threading.Event(), threading.Event()

    def slow(text: str):
        reading.set()
        assert answered.wait(20), "nobody was answered meanwhile"
        return parse_table(text)

    monkeypatch.setattr("service.api.tables.parse_table", slow)

    async def both() -> tuple[int, int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            put = asyncio.create_task(client.put(table_url, json=make_table().to_dict()))
            while not reading.is_set():
                await asyncio.sleep(0.01)
            other = await client.get("/healthz")
            answered.set()
            return (await put).status_code, other.status_code

    assert asyncio.run(both()) == (201, 200)
