"""Lists: every item once, newest first, whatever is inserted in between."""

from __future__ import annotations

import pytest

LISTS = (
    *("/v1/supernets", "/v1/devices", "/v1/searches", "/v1/deployments", "/v1/jobs"),
    "/v1/supernets/cifar_mbv3/population",
)


@pytest.fixture
def post_device(client):
    def post(device_id: str) -> None:
        body = {"id": device_id, "chip": "c", "runtime": "r", "runtime_version": "1"}
        assert client.post("/v1/devices", json=body).status_code == 201

    return post


def test_pages_join_to_the_whole_list(client, post_device):
    for number in range(7):
        post_device(f"board-{number}")
    seen, cursor = [], ""
    for _ in range(10):
        page = client.get(f"/v1/devices?limit=3{cursor}").json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == 3
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [f"board-{number}" for number in reversed(range(7))]


def test_what_is_inserted_or_deleted_meanwhile_shifts_no_page(client, post_device):
    for number in range(4):
        post_device(f"board-{number}")
    first = client.get("/v1/devices?limit=2").json()
    post_device("later")
    client.delete("/v1/devices/board-2")  # the very item the cursor names
    rest = client.get(f"/v1/devices?limit=2&cursor={first['next_cursor']}").json()
    assert [item["id"] for item in rest["items"]] == ["board-1", "board-0"]
    assert rest["next_cursor"] is None


def test_items_of_one_moment_are_told_apart_by_id(client, post_device, monkeypatch):
    from service.db.clock import utc_now
    from service.db.models import Device

    moment = utc_now()
    monkeypatch.setattr(Device.__table__.c.created_at.default, "arg", lambda _: moment)
    for number in range(5):
        post_device(f"board-{number}")
    seen, cursor = [], ""
    while True:
        page = client.get(f"/v1/devices?limit=2{cursor}").json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(seen) == [f"board-{number}" for number in range(5)]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "cursor", ["x", "", "AAAA", "WyJub3ciLCAieCJd", "WzEsIDJd", "bnVsbA", "W10", "a b", "ü" * 10, "A" * 401]
)
def test_a_cursor_of_somebody_else_is_refused(client, path: str, cursor: str):
    response = client.get(path, params={"cursor": cursor})
    assert response.status_code == 422
    assert response.json()["code"] in ("invalid_cursor", "invalid_request")


@pytest.mark.parametrize("limit", ["0", "-1", "201", "x", "1.5", ""])
def test_a_limit_out_of_range_is_refused(client, problem, limit: str):
    problem(client.get(f"/v1/jobs?limit={limit}"), 422, "invalid_request")


@pytest.mark.parametrize(
    ("path", "name", "offer"),
    [
        ("/v1/devices?limits=5", "limits", "allowed are cursor, limit"),
        ("/v1/deployments?stale=true", "stale", "allowed are cursor, limit"),
        ("/v1/searches?limit=5&device=x", "device", "allowed are cursor, limit"),
        ("/v1/devices/none/tables/cifar_mbv3?Version=1", "Version", "allowed are format, version"),
        ("/v1/devices/none/limits?supernets=x", "supernets", "allowed are supernet"),
        ("/v1/jobs/none?x", "x", "this call takes none"),
    ],
)
def test_a_query_parameter_nobody_reads_is_refused(client, problem, path: str, name: str, offer: str):
    body = problem(client.get(path), 422, "invalid_request")
    assert [(error["field"], error["in"]) for error in body["errors"]] == [(name, "query")]
    assert body["detail"] == f"{name}: Unknown query parameter; {offer}"
    assert client.get("/healthz?probe=1").status_code == 200
