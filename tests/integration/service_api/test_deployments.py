"""Deployments: from a search or an arch, downloaded when ready, with an honest answer before and after."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import update

from service.db.engine import session_scope
from service.db.models import Job, Supernet
from service.db.repositories import find_job
from supernet.spaces.presets import load_space

MODEL = b"0123456789"


@pytest.fixture
def deployment(ask):
    """A queued deployment of a search."""
    return ask(deploy=True).json()["deployment"]


@pytest.fixture
def model_url(deployment, finish):
    """Where the model of a finished deployment lies."""
    finish(deployment, MODEL)
    return f"/v1/deployments/{deployment['id']}/model.onnx"


def smallest() -> dict:
    return load_space("cifar_mbv3").smallest().to_dict()


def test_a_search_becomes_a_deployment(ask, with_table, services):
    found = ask().json()
    response = with_table.post("/v1/deployments", json={"search_id": found["id"], "opset": 20})
    assert response.status_code == 202
    made = response.json()
    assert with_table.get(response.headers["location"]).json() == made
    assert (made["state"], made["job"]["state"], made["files"], made["error"]) == ("queued", "queued", None, None)
    assert (made["arch_id"], made["device"], made["opset"]) == (found["arch_id"], "bench-1t", 20)
    with session_scope(services.sessions, write=False) as session:
        payload = find_job(session, made["job"]["id"]).payload
    assert (payload["accuracy"], payload["latency"]) == (found["accuracy"], found["latency_ms"])
    assert (payload["bundle_uri"], payload["table_version"]) == ("shipped:cifar_mbv3", 1)
    assert with_table.get(f"/v1/searches/{found['id']}").json()["deployment"]["id"] == made["id"]


def test_an_arch_becomes_a_deployment(with_table, services):
    response = with_table.post("/v1/deployments", json={"supernet": "cifar_mbv3", "arch": smallest()})
    assert response.status_code == 202
    made = response.json()
    assert (made["search_id"], made["device"], made["arch"]) == (None, None, smallest())
    with session_scope(services.sessions, write=False) as session:
        payload = find_job(session, made["job"]["id"]).payload
    assert (payload["latency"], payload["table_version"]) == (None, None)
    assert 0 < payload["accuracy"]["predicted"] < 1


def test_an_arch_for_a_device_gets_its_latency_estimated(with_table, services):
    response = with_table.post("/v1/deployments", json={"arch": smallest(), "device": "bench-1t"})
    with session_scope(services.sessions, write=False) as session:
        payload = find_job(session, response.json()["job"]["id"]).payload
    limits = with_table.get("/v1/devices/bench-1t/limits").json()
    assert payload["latency"]["estimated"] == limits["latency_ms"]["min"]


def test_an_arch_without_predictor_is_deployed_without_a_prediction(with_table, services):
    response = with_table.post("/v1/deployments", json={"supernet": "weights_only", "arch": smallest()})
    with session_scope(services.sessions, write=False) as session:
        assert find_job(session, response.json()["job"]["id"]).payload["accuracy"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"search_id": "x", "arch": {"resolution": 32}},
        {"search_id": "x", "device": "bench-1t"},
        {"search_id": "x", "supernet": "cifar_mbv3"},
        {"search_id": 3},
        {"search_id": "x", "opset": 17},
        {"search_id": "x", "opset": 24},
        {"search_id": "x", "opset": "18"},
        {"search_id": "x", "precision": "int8"},
        {"search_id": "x", "surprise": 1},
        {"arch": {}},
        {"arch": []},
        {"arch": {"resolution": 32}},
        {"arch": {"resolution": 33}},
        {"arch": {"resolution": "32"}},
        {"arch": {"resolution": 32, "depth": [1]}},
        {"arch": {"resolution": 32, "depths": [1, 1, 1, 1, 9], "kernel_sizes": [3] * 15, "expand_ratios": [2] * 15}},
        {"arch": {"resolution": 32, "depths": [1] * 1001}},
        {"arch": {"resolution": 10**30}},
    ],
    ids=lambda body: str(body)[:60],
)
def test_a_malformed_order_is_refused(with_table, counts, body):
    response = with_table.post("/v1/deployments", json=body)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json"), response.text
    assert counts()["jobs"] == 0


def test_ids_in_the_body_are_looked_up(with_table, problem):
    post = lambda **body: with_table.post("/v1/deployments", json=body)  # noqa: E731
    problem(post(search_id="nope"), 404, "unknown_search")
    problem(post(arch=smallest(), supernet="nope"), 404, "unknown_supernet")
    problem(post(arch=smallest(), device="nope"), 404, "unknown_device")
    with_table.post("/v1/devices", json={"id": "bare", "chip": "c", "runtime": "r", "runtime_version": "1"})
    problem(post(arch=smallest(), device="bare"), 409, "no_table")
    problem(post(arch=smallest(), supernet="search_only"), 409, "no_weights")


def test_a_search_of_a_replaced_supernet_is_not_deployed(ask, with_table, services, problem, monkeypatch):
    search_id = ask().json()["id"]
    with session_scope(services.sessions) as session:
        session.execute(update(Supernet).values(bundle_sha256="0" * 64))
    problem(with_table.post("/v1/deployments", json={"search_id": search_id}), 409, "bundle_changed")


def test_before_success_files_are_not_ready(with_table, deployment, problem):
    for name in ("model.onnx", "manifest.json"):
        body = problem(with_table.get(f"/v1/deployments/{deployment['id']}/{name}"), 409, "not_ready")
        assert body["job"] == deployment["job"]


def test_after_a_failure_files_say_why(with_table, deployment, finish, problem):
    finish(deployment, code="export_parity", message="They differ by 0.3.")
    body = problem(with_table.get(f"/v1/deployments/{deployment['id']}/model.onnx"), 409, "failed")
    assert body["error"] == {"code": "export_parity", "message": "They differ by 0.3."}
    shown = with_table.get(f"/v1/deployments/{deployment['id']}").json()
    assert (shown["state"], shown["error"]["code"], shown["files"]) == ("failed", "export_parity", None)


def test_a_cancelled_deployment_has_no_files(with_table, deployment, problem):
    with_table.post(f"/v1/jobs/{deployment['job']['id']}/cancel")
    problem(with_table.get(f"/v1/deployments/{deployment['id']}/model.onnx"), 409, "failed")


def test_a_finished_deployment_names_its_files_and_gives_them(with_table, deployment, finish):
    manifest = finish(deployment, MODEL)
    shown = with_table.get(f"/v1/deployments/{deployment['id']}").json()
    assert shown["state"] == "succeeded"
    model = with_table.get(shown["files"]["model.onnx"])
    assert (model.status_code, model.content, model.headers["content-length"]) == (200, MODEL, "10")
    assert model.headers["etag"] == f'"{hashlib.sha256(MODEL).hexdigest()}"'
    assert model.headers["accept-ranges"] == "bytes"
    answer = with_table.get(shown["files"]["manifest.json"])
    assert (answer.json(), answer.headers["content-type"]) == (manifest, "application/json")
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'


@pytest.mark.parametrize(
    ("wanted", "content", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", MODEL, "bytes 0-9/10"),
        ("bytes=9-99", b"9", "bytes 9-9/10"),
        ("BYTES = 0 - 0", b"0", "bytes 0-0/10"),
    ],
)
def test_a_range_is_sent_alone(with_table, model_url, wanted: str, content: bytes, content_range: str):
    response = with_table.get(model_url, headers={"range": wanted})
    assert (response.status_code, response.content) == (206, content)
    assert response.headers["content-range"] == content_range
    assert response.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=99-100", "bytes=-0", "bytes=5-2"])
def test_a_range_outside_the_file_is_refused(with_table, model_url, problem, wanted: str):
    response = with_table.get(model_url, headers={"range": wanted})
    problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=-", "", "bytes=" + "9" * 30 + "-"]
)
def test_other_ranges_are_ignored(with_table, model_url, wanted: str):
    response = with_table.get(model_url, headers={"range": wanted})
    assert (response.status_code, response.content) == (200, MODEL)


def test_a_range_of_another_version_gives_the_whole_file(with_table, model_url):
    response = with_table.get(model_url, headers={"range": "bytes=0-1", "if-range": '"old"'})
    assert (response.status_code, response.content) == (200, MODEL)


@pytest.mark.parametrize("form", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
def test_what_the_client_has_is_not_sent_again(with_table, model_url, form: str):
    etag = with_table.get(model_url).headers["etag"]
    response = with_table.get(model_url, headers={"if-none-match": form.format(etag=etag)})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
    assert with_table.get(model_url, headers={"if-none-match": '"other"'}).status_code == 200


def test_an_artefact_that_is_gone_is_not_an_empty_file(with_table, model_url, services, deployment):
    services.artifacts.delete_prefix(f"deployments/{deployment['id']}")
    response = with_table.get(model_url)
    assert response.status_code in (404, 503)
    assert response.headers["content-type"] == "application/problem+json"


def test_the_state_of_a_deployment_is_its_jobs(with_table, deployment, services):
    with session_scope(services.sessions) as session:
        session.execute(update(Job).values(state="running", attempt=1))
    shown = with_table.get(f"/v1/deployments/{deployment['id']}").json()
    assert shown["state"] == shown["job"]["state"] == "running"
    assert [item["id"] for item in with_table.get("/v1/deployments").json()["items"]] == [deployment["id"]]
