"""Devices: created, shown, deleted with what hangs on them."""

from __future__ import annotations

import pytest

BOARD = {"id": "rpi5", "chip": "BCM2712", "runtime": "onnxruntime", "runtime_version": "1.31", "threads": 4}


def test_a_device_is_created_and_shown(client):
    response = client.post("/v1/devices", json=BOARD)
    assert response.status_code == 201
    assert client.get(response.headers["location"]).json() == response.json()
    shown = response.json()
    assert {name: shown[name] for name in BOARD} == BOARD
    assert (shown["precision"], shown["batch_size"], shown["tables"]) == ("fp32", 1, [])


def test_the_device_block_of_a_table_is_read_as_it_is(client, make_table):
    response = client.post("/v1/devices", json=make_table("board").to_dict()["device"])
    assert (response.status_code, response.json()["id"]) == (201, "board")


def test_the_same_device_again_is_brought_up_to_date(client):
    client.post("/v1/devices", json=BOARD)
    response = client.post("/v1/devices", json=BOARD | {"runtime_version": "1.32", "clock_mhz": 2400})
    assert (response.status_code, response.json()["runtime_version"]) == (200, "1.32")
    assert client.get("/v1/devices/rpi5").json()["clock_mhz"] == 2400


def test_an_id_does_not_change_its_hardware(client, problem):
    client.post("/v1/devices", json=BOARD)
    body = problem(client.post("/v1/devices", json=BOARD | {"threads": 1}), 409, "device_mismatch")
    assert "threads 4" in body["detail"]
    assert "threads 1" in body["detail"]
    assert client.get("/v1/devices/rpi5").json()["threads"] == 4


@pytest.mark.parametrize(
    "change",
    [
        {"id": "Upper"},
        {"id": ""},
        {"id": "../x"},
        {"id": "x" * 65},
        {"id": "x\n"},
        {"id": 3},
        {"id": None},
        {"chip": ""},
        {"chip": "x" * 201},
        {"chip": "\u200b"},
        {"precision": "fp64"},
        {"threads": 0},
        {"threads": -1},
        {"threads": 1.5},
        {"threads": True},
        {"threads": "4"},
        {"threads": 10**30},
        {"batch_size": 10**9},
        {"clock_mhz": -1},
        {"temperature_c": -400},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_malformed_device_is_refused_and_not_stored(client, counts, change):
    response = client.post("/v1/devices", json=BOARD | change)
    assert response.status_code == 422
    assert response.json()["code"] in ("invalid_request", "invalid_table")
    assert counts()["devices"] == 0


@pytest.mark.parametrize("missing", ["id", "chip", "runtime", "runtime_version"])
def test_a_device_without_its_names_is_refused(client, problem, missing: str):
    body = problem(
        client.post("/v1/devices", json={name: value for name, value in BOARD.items() if name != missing}),
        422,
        "invalid_request",
    )
    assert body["errors"][0]["field"] == missing


def test_a_deleted_device_takes_tables_and_searches_but_no_deployments(with_table, ask, counts):
    deployment = ask(deploy=True).json()["deployment"]
    assert with_table.delete("/v1/devices/bench-1t").status_code == 204
    assert with_table.get("/v1/devices/bench-1t").status_code == 404
    assert {name: counts()[name] for name in ("latency_table_versions", "searches", "deployments", "jobs")} == {
        "latency_table_versions": 0,
        "searches": 0,
        "deployments": 1,
        "jobs": 1,
    }
    shown = with_table.get(f"/v1/deployments/{deployment['id']}").json()
    assert (shown["device"], shown["search_id"]) == ("bench-1t", None)


def test_an_unknown_device_cannot_be_deleted(client, problem):
    problem(client.delete("/v1/devices/nope"), 404, "unknown_device")


def test_limits_are_the_extremes_of_all_subnets(with_table, make_table):
    limits = with_table.get("/v1/devices/bench-1t/limits").json()
    fastest, slowest = limits["archs"]["fastest"], limits["archs"]["slowest"]
    assert limits["latency_ms"] == {"min": fastest["latency_ms"], "max": slowest["latency_ms"]}
    assert limits["resolutions"] == [24, 28, 32]
    # This table's latencies grow with MACs, so smallest and largest network are the extremes of everything.
    for which, bound in (("fastest", "min"), ("slowest", "max")):
        for name in ("macs", "params", "size_bytes"):
            assert limits["archs"][which][name] == limits[name][bound]
    assert fastest["arch"]["depths"] == [1, 1, 1, 1, 1]
    assert slowest["arch"]["depths"] == [3, 3, 3, 3, 3]


def test_limits_need_a_table_and_a_known_supernet(with_table, problem):
    with_table.post("/v1/devices", json=BOARD)
    problem(with_table.get("/v1/devices/rpi5/limits"), 409, "no_table")
    problem(with_table.get("/v1/devices/bench-1t/limits?supernet=nope"), 404, "unknown_supernet")
    assert with_table.get("/v1/devices/bench-1t/limits?supernet=weights_only").status_code == 200
