"""The OpenAPI document describes every route: summary, answer, problems, bodies."""

from __future__ import annotations

import pytest

METHODS = ("get", "put", "post", "delete")


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


@pytest.fixture
def operations(document):
    return [
        (path, method, item[method]) for path, item in document["paths"].items() for method in METHODS if method in item
    ]


def test_every_call_of_version_1_is_there(operations):
    assert {(method, path) for path, method, _ in operations} == {
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/v1/supernets"),
        ("post", "/v1/supernets"),
        ("get", "/v1/supernets/{supernet_id}"),
        ("delete", "/v1/supernets/{supernet_id}"),
        ("get", "/v1/supernets/{supernet_id}/pools"),
        ("get", "/v1/supernets/{supernet_id}/population"),
        ("post", "/v1/supernets/{supernet_id}/population"),
        ("get", "/v1/supernets/{supernet_id}/population/{population_id}"),
        ("get", "/v1/supernets/{supernet_id}/population/{population_id}.csv"),
        ("post", "/v1/supernets/{supernet_id}/predictor"),
        ("get", "/v1/spaces/{space}/blocks"),
        ("get", "/v1/devices"),
        ("post", "/v1/devices"),
        ("get", "/v1/devices/{device_id}"),
        ("delete", "/v1/devices/{device_id}"),
        ("get", "/v1/devices/{device_id}/limits"),
        ("put", "/v1/devices/{device_id}/tables/{space}"),
        ("get", "/v1/devices/{device_id}/tables/{space}"),
        ("post", "/v1/devices/{device_id}/tables/{space}/measurements"),
        ("get", "/v1/devices/{device_id}/front"),
        ("post", "/v1/searches"),
        ("post", "/v1/searches:batch"),
        ("get", "/v1/searches"),
        ("get", "/v1/searches/{search_id}"),
        ("post", "/v1/deployments"),
        ("get", "/v1/deployments"),
        ("get", "/v1/deployments/{deployment_id}"),
        ("get", "/v1/deployments/{deployment_id}/model.onnx"),
        ("get", "/v1/deployments/{deployment_id}/manifest.json"),
        ("get", "/v1/jobs"),
        ("get", "/v1/jobs/{job_id}"),
        ("get", "/v1/jobs/{job_id}/events"),
        ("post", "/v1/jobs/{job_id}/cancel"),
    }


def test_every_route_has_a_summary_a_description_and_an_answer(operations):
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        good = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
        assert good, where
        for status, answer in good.items():
            if status != "204":
                schemas = [media["schema"] for media in answer["content"].values()]
                assert all(schema for schema in schemas), (where, status)


def test_every_error_of_every_route_is_a_problem(operations, document):
    for path, method, operation in operations:
        where = f"{method} {path}"
        bad = {status: answer for status, answer in operation["responses"].items() if status >= "4"}
        expected = {"500", "503"} | ({"404"} if "{" in path else set())
        if "requestBody" in operation:
            expected |= {"400", "413", "415", "422"}
        if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
            expected |= {"422"}
        assert expected <= set(bad), where
        for status, answer in bad.items():
            assert answer["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }, (where, status)
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(
        document["components"]["schemas"]["Problem"]["properties"]
    )


def test_every_reference_is_defined(document):
    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= set(schemas)
    assert "HTTPValidationError" not in schemas


def test_the_main_calls_have_examples_that_work(document, with_table, make_table):
    def example(path: str, method: str, media: str = "application/json"):
        body = document["paths"][path][method]["requestBody"]["content"][media]
        if "example" in body:
            return body["example"]
        return document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]["example"]

    search = example("/v1/searches", "post")
    with_table.put(f"/v1/devices/{search['device']}/tables/cifar_mbv3", json=make_table(search["device"]).to_dict())
    response = with_table.post("/v1/searches", json=search)
    assert response.status_code == 201
    order = example("/v1/deployments", "post")
    assert with_table.post("/v1/deployments", json=order | {"search_id": response.json()["id"]}).status_code == 202
    assert with_table.post("/v1/devices", json=example("/v1/devices", "post")).status_code == 201
    # The example's only row is not enough for a table, but every field of it is read.
    table = example("/v1/devices/{device_id}/tables/{space}", "put")
    refused = with_table.put(f"/v1/devices/{table['device']['device_id']}/tables/{table['space']}", json=table)
    assert refused.json()["code"] == "refused_table"


def test_examples_of_answers_have_the_fields_of_real_ones(document, ask, with_table):
    schemas = document["components"]["schemas"]
    search = ask(deploy=True).json()
    absent = {name for name, value in search.items() if value is None}  # the document leaves null members out
    deployment = with_table.get(f"/v1/deployments/{search['deployment']['id']}").json()
    assert set(schemas["SearchModel"]["example"]) == set(search) - absent
    assert set(schemas["DeploymentModel"]["example"]) == set(deployment) - {"error", "files"}


def test_every_accepted_order_says_where_to_follow_it(operations):
    accepted = {path: answer for path, _, item in operations if (answer := item["responses"].get("202"))}
    assert set(accepted) == {
        "/v1/deployments",
        "/v1/devices/{device_id}/front",
        "/v1/searches",
        "/v1/supernets/{supernet_id}/population",
        "/v1/supernets/{supernet_id}/predictor",
    }
    for path, answer in accepted.items():
        assert answer["headers"]["Location"]["schema"] == {"type": "string"}, path
        assert "$ref" in answer["content"]["application/json"]["schema"], path


def test_names_that_become_paths_say_what_they_may_be(document):
    schemas = document["components"]["schemas"]
    pattern = schemas["PopulationRequest"]["properties"]["images"]["pattern"]
    assert pattern.startswith("^[A-Za-z0-9]")
    assert schemas["PredictorRequest"]["properties"]["id"]["anyOf"][0]["pattern"] == pattern
