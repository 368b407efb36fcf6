"""Every error is a problem body: what the framework refuses, what we refuse, and what nobody expected."""

from __future__ import annotations

import json

import pytest

SEARCH = {"device": "bench-1t", "constraints": {"latency_ms": 2.0}}


def test_an_unknown_path_is_a_problem(client, problem):
    assert problem(client.get("/v1/nothing"), 404, "not_found")["instance"] == "/v1/nothing"


def test_a_slash_at_the_end_is_no_redirect(client, problem):
    problem(client.get("/v1/devices/", follow_redirects=False), 404, "not_found")


def test_a_wrong_method_is_told_the_right_one(client, problem):
    response = client.delete("/v1/searches")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"device": "x", "constraints": {"latency_ms": NaN}}',
        b'{"device": "x", "constraints": {"latency_ms": -Infinity}}',
        b'{"device": "x", "constraints": {"latency_ms": 1e999}}',
        b'{"device": "\\ud800", "constraints": {}}',
        b'{"device": "\\u0000", "constraints": {}}',
        b'{"device": "\xff", "constraints": {}}',
        b'{"device": ' + b"[" * 100_000,
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
    ids=["cut", "empty", "nan", "infinity", "overflow", "surrogate", "nul", "latin", "deep", "long-number"],
)
def test_what_is_no_standard_json_is_refused(client, problem, body: bytes):
    response = client.post("/v1/searches", content=body, headers={"content-type": "application/json"})
    if body:
        problem(response, 400, "malformed_body")
    else:
        problem(response, 422, "invalid_request")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"3"])
def test_a_body_that_is_no_object_is_invalid(client, problem, body: bytes):
    response = client.post("/v1/searches", content=body, headers={"content-type": "application/json"})
    problem(response, 422, "invalid_request")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", ""])
@pytest.mark.parametrize("path", ["/v1/searches", "/v1/devices", "/v1/deployments"])
def test_a_body_of_another_type_is_unsupported(client, problem, path: str, content_type: str):
    response = client.post(path, content=json.dumps(SEARCH), headers={"content-type": content_type})
    assert "application/json" in problem(response, 415, "unsupported_media_type")["detail"]


def test_a_body_that_declares_to_be_too_large_is_not_read(client, settings, problem):
    response = client.post("/v1/searches", content=b" " * (settings.max_body_bytes + 1))
    assert str(settings.max_body_bytes) in problem(response, 413, "body_too_large")["detail"]


@pytest.mark.parametrize("path", ["/v1/searches", "/v1/devices/bench-1t/tables/cifar_mbv3"])
def test_a_body_without_a_length_is_cut_off_at_the_limit(client, settings, problem, path: str):
    read = 0

    def endless():
        nonlocal read
        while read < 100 * settings.max_body_bytes:
            read += 10_000
            yield b" " * 10_000

    method = "PUT" if "tables" in path else "POST"
    response = client.request(method, path, content=endless(), headers={"content-type": "application/json"})
    assert "content-length" not in response.request.headers
    problem(response, 413, "body_too_large")


def test_every_fault_of_a_body_is_listed_with_what_was_given(client, problem):
    body = problem(
        client.post("/v1/searches", json={"device": "", "constraints": {"latency_ms": -3}}), 422, "invalid_request"
    )
    assert {(error["field"], error.get("given")) for error in body["errors"]} == {
        ("device", ""),
        ("constraints.latency_ms", -3),
    }


def test_an_unknown_field_is_named_with_those_allowed(client, problem):
    body = problem(client.post("/v1/searches", json=SEARCH | {"latency": 3}), 422, "invalid_request")
    assert "latency" in body["detail"]
    for allowed in ("constraints", "confidence", "evaluations", "seed", "deploy"):
        assert allowed in body["detail"]


def test_an_unexpected_error_has_an_id_that_is_in_the_log(client, caplog, monkeypatch, problem):
    def fail(*_: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("service.db.repositories.list_jobs", fail)
    response = client.get("/v1/jobs")
    body = problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert any(body["error_id"] in record.getMessage() and record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    "path", ["/v1/devices/a%00b", "/v1/jobs/%00", "/v1/devices/x/limits?supernet=%00", "/v1/searches/%ff%fe"]
)
def test_ids_no_database_can_hold_are_unknown(client, path: str):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/supernets/nope", "unknown_supernet"),
        ("/v1/spaces/nope/blocks", "unknown_space"),
        ("/v1/devices/nope", "unknown_device"),
        ("/v1/devices/nope/limits", "unknown_device"),
        ("/v1/devices/nope/tables/cifar_mbv3", "unknown_device"),
        ("/v1/searches/nope", "unknown_search"),
        ("/v1/deployments/nope", "unknown_deployment"),
        ("/v1/deployments/nope/model.onnx", "unknown_deployment"),
        ("/v1/deployments/nope/manifest.json", "unknown_deployment"),
        ("/v1/jobs/nope", "unknown_job"),
        ("/v1/jobs/nope/events", "unknown_job"),
    ],
)
def test_an_unknown_id_has_its_own_code(client, problem, path: str, code: str):
    assert "nope" in problem(client.get(path), 404, code)["detail"]


def test_a_very_long_id_is_unknown_and_not_repeated_in_full(client, problem):
    response = client.get(f"/v1/devices/{'x' * 5000}")
    assert len(problem(response, 404, "unknown_device")["detail"]) < 500
