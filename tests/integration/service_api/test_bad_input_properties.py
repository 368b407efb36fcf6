"""Any JSON value in any field of a request: the answer is 2xx or a problem with a code; a refusal stores nothing."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latency_tables.table import parse_table
from supernet.spaces.presets import load_space

DEVICE = "bench-1t"
JUNK = st.sampled_from(
    [
        *(None, True, False, "", " ", "x", "5", "NaN", "x" * 70, "\x00", "a\nb", "\ud800", "café", "../..", "' OR 1=1"),
        *(0, -1, 1, 1.5, -0.0, 0.5, 1e-300, 1e308, 10**6, 2**31, 2**53 + 1, 2**63, 10**30, 10**400),
        *(math.nan, math.inf, -math.inf, [], {}, [None], [[]], {"a": 1}, [1] * 2000),
        *(DEVICE, "cifar_mbv3", "search_only", "weights_only", "fp32", "int8", 500, 18, 32, 2.0),
    ]
).map(copy.deepcopy)
PROFILE = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(deep for key, child in inner for deep in places(child, (*path, key)))]


def mutate(document: dict[str, Any], data: st.DataObject) -> None:
    """Drop, replace or add up to two values anywhere."""
    for _ in range(data.draw(st.integers(1, 2))):
        if not document:
            return
        path = data.draw(st.sampled_from(places(document)))
        holder: Any = document
        for key in path[:-1]:
            holder = holder[key]
        match data.draw(st.sampled_from(["replace", "replace", "drop", "add"])):
            case "drop":
                del holder[path[-1]]
            case "add" if isinstance(holder, dict):
                holder[data.draw(st.sampled_from(["surprise", "", "\ud800", "__proto__", "a.b"]))] = data.draw(JUNK)
            case _:
                holder[path[-1]] = data.draw(JUNK)


def check(response: Any, *, before: dict[str, int], after: dict[str, int]) -> bool:
    """Whether the request was accepted; a refused one is a problem that says why and stores nothing."""
    assert response.status_code < 500, response.text
    assert "Traceback" not in response.text
    json.loads(response.text, parse_constant=lambda name: 1 / 0)  # standard JSON, without NaN
    if response.status_code in (200, 201, 202):
        return True
    assert response.status_code in (400, 404, 409, 413, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"]
    assert body["detail"]
    assert body["status"] == response.status_code
    assert len(response.text) < 30_000
    assert after == before
    return False


def send(client: Any, method: str, path: str, document: Any) -> Any:
    content = json.dumps(document).encode()
    return client.request(method, path, content=content, headers={"content-type": "application/json"})


@PROFILE
@given(data=st.data())
def test_any_value_in_any_field_of_a_search(with_table, counts, data):
    body: dict[str, Any] = {
        "supernet": "cifar_mbv3",
        "device": DEVICE,
        "constraints": {"latency_ms": 2.0, "macs": 20_000_000, "params": 2_000_000, "size_bytes": 8_000_000},
        "confidence": 0.9,
        "precision": "fp32",
        "seed": 1,
        "evaluations": 200,
        "deploy": False,
    }
    mutate(body, data)
    before = counts()
    response = send(with_table, "POST", "/v1/searches", body)
    if check(response, before=before, after=counts()):
        found = response.json()
        assert counts()["searches"] == before["searches"] + 1
        for name, most in found["constraints"].items():
            if name != "latency_ms":
                assert found[name] <= most
        assert 0 <= found["accuracy"]["low"] <= found["accuracy"]["high"] <= 1
        assert with_table.get(f"/v1/searches/{found['id']}").json()["arch_id"] == found["arch_id"]


@PROFILE
@given(data=st.data())
def test_any_value_in_any_field_of_a_deployment(with_table, counts, data):
    body = {
        "supernet": "cifar_mbv3",
        "arch": load_space("cifar_mbv3").smallest().to_dict(),
        "device": DEVICE,
        "precision": "fp32",
        "opset": 18,
    }
    if data.draw(st.booleans()):
        body["search_id"] = data.draw(JUNK)
    mutate(body, data)
    before = counts()
    response = send(with_table, "POST", "/v1/deployments", body)
    if check(response, before=before, after=counts()):
        assert counts()["jobs"] == before["jobs"] + 1
        assert load_space("cifar_mbv3").smallest().arch_id == response.json()["arch_id"] or body["arch"]


@PROFILE
@given(data=st.data())
def test_any_value_in_any_field_of_a_device(client, counts, data):
    body = {
        "id": "board",
        "name": "Board",
        "chip": "c",
        "runtime": "r",
        "runtime_version": "1",
        "precision": "fp32",
        "threads": 1,
        "batch_size": 1,
        "clock_mhz": 1000.0,
        "governor": "performance",
        "temperature_c": 40.0,
    }
    mutate(body, data)
    before = counts()
    response = send(client, "POST", "/v1/devices", body)
    check(response, before=before, after=counts())


@PROFILE
@given(data=st.data())
def test_any_value_in_any_field_of_a_table_that_is_then_searched(with_table, make_table, table_url, counts, ask, data):
    """What was accepted must be searchable too: no absurd number may wait in the database for a search to fail on."""
    document = copy.deepcopy(make_table().to_dict())
    document["calibration"] = {"call_ms": 0.01, "per_block_ms": 0.001, "slope": 1.1, "residuals": [0.9, 1.0, 1.1]}
    document["rows"] = document["rows"][:3] + document["rows"][3:]
    # Most faults of a table lie in its head; in the rows, two are as good as two hundred.
    head = {key: document[key] for key in document if key != "rows"} | {"rows": document["rows"][:2]}
    rest = document["rows"][2:]
    mutate(head, data)
    if isinstance(head.get("rows"), list):
        head["rows"] = head["rows"] + rest
    before = counts()
    response = send(with_table, "PUT", table_url, head)
    if check(response, before=before, after=counts()):
        version = response.json()["version"]
        stored = with_table.get(f"{table_url}?version={version}")
        assert parse_table(stored.text).fingerprint == parse_table(json.dumps(head)).fingerprint
        for confidence in (None, 0.95, 1e-9, 1 - 1e-9):
            extra = {} if confidence is None else {"confidence": confidence}
            answer = ask(5.0, evaluations=100, **extra)
            assert answer.status_code in (201, 409), answer.text


@PROFILE
@given(
    path=st.sampled_from(["/v1/searches", "/v1/deployments", "/v1/devices"]),
    content=st.one_of(
        st.binary(max_size=40),
        st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
        JUNK.map(lambda value: json.dumps(value).encode()),
        st.sampled_from(
            [b"[" * 50_000, b'{"a":' * 20_000, b"9" * 20_000, b"\xef\xbb\xbf{}", b'{"device":1,"device":2}']
        ),
    ),
)
def test_any_body_at_all(client, counts, path, content):
    before = counts()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert not check(response, before=before, after=counts())


@PROFILE
@given(data=st.data())
def test_any_text_in_a_path_or_a_query(with_table, counts, data):
    text = data.draw(st.one_of(st.text(max_size=20), JUNK.map(str)))
    path, query = data.draw(
        st.sampled_from(
            [
                ("/v1/devices/{}", {}),
                ("/v1/devices/{}/limits", {}),
                ("/v1/devices/bench-1t/limits", {"supernet": text}),
                ("/v1/devices/{}/tables/cifar_mbv3", {}),
                ("/v1/devices/bench-1t/tables/{}", {}),
                ("/v1/devices/bench-1t/tables/cifar_mbv3", {"version": text}),
                ("/v1/devices/bench-1t/tables/cifar_mbv3", {"format": text}),
                ("/v1/searches", {"limit": text}),
                ("/v1/searches", {"cursor": text}),
                ("/v1/deployments", {"cursor": text, "limit": text}),
                ("/v1/jobs/{}", {}),
                ("/v1/supernets/{}", {}),
                ("/v1/spaces/{}/blocks", {}),
                ("/v1/deployments/{}/model.onnx", {}),
            ]
        )
    )
    quoted = "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
    before = counts()
    url = path.format(quoted or "%20")
    params = {key: "".join(c for c in value if not 0xD800 <= ord(c) < 0xE000) for key, value in query.items()}
    response = with_table.get(url, params=params)
    assert response.status_code < 500, response.text
    assert "Traceback" not in response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"]
    assert counts() == before
