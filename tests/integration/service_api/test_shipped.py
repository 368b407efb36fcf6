"""What comes with the package is there after the start, once, and never hides what a user measured."""

from __future__ import annotations

import json
import shutil

import pytest

from service.db import repositories
from service.db.engine import session_scope
from service.usecases import shipped
from service.usecases.shipped import register_shipped
from supernet import bundle as bundle_module


@pytest.fixture
def start(services, monkeypatch):
    """Register shipped things again, with these tables."""

    def run(*tables) -> None:
        monkeypatch.setattr(shipped, "shipped_tables", lambda: iter(tables))
        with session_scope(services.sessions) as session:
            register_shipped(session)

    return run


def version_of(services) -> int | None:
    with session_scope(services.sessions, write=False) as session:
        found = repositories.find_table(session, "bench-1t", space="cifar_mbv3")
    return None if found is None else found.version


def test_starting_again_changes_nothing(start, make_table, services, counts):
    start(make_table())
    before = counts()
    start(make_table())
    assert counts() == before
    assert version_of(services) == 1


def test_a_changed_shipped_table_is_a_new_version(start, make_table, services):
    start(make_table())
    start(make_table(factor=1.1))
    assert version_of(services) == 2


def test_a_shipped_table_does_not_come_back_over_a_newer_one(start, make_table, with_table, table_url, services):
    start(make_table())
    with_table.put(table_url, json=make_table(factor=3.0).to_dict())
    start(make_table())
    assert version_of(services) == 2


def test_a_changed_shipped_table_does_not_hide_what_a_user_registered(
    start, make_table, with_table, table_url, services
):
    start(make_table())
    own = make_table(factor=3.0)
    with_table.put(table_url, json=own.to_dict())
    start(make_table(factor=1.1))
    assert version_of(services) == 2
    assert with_table.get(table_url).json() == own.to_dict()


def test_a_changed_shipped_bundle_takes_the_place_of_the_old_one(start, client, bundles, tmp_path, monkeypatch, counts):
    before = client.get("/v1/supernets/cifar_mbv3").json()
    folder = tmp_path / "bundles"
    shutil.copytree(bundles, folder)
    manifest = json.loads((folder / "cifar_mbv3" / "manifest.json").read_text())
    manifest["training"] = {"method": "another"}
    (folder / "cifar_mbv3" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(bundle_module, "_SHIPPED", folder)
    start()
    after = client.get("/v1/supernets/cifar_mbv3").json()
    assert (before["is_default"], after["is_default"], after["training"]) == (True, True, {"method": "another"})
    assert before["bundle_sha256"] != after["bundle_sha256"]
    assert counts()["supernets"] == 3


def test_searches_of_the_old_bundle_are_not_deployed_with_the_new_one(
    start, ask, with_table, bundles, tmp_path, monkeypatch, problem
):
    search_id = ask().json()["id"]
    folder = tmp_path / "bundles"
    shutil.copytree(bundles, folder)
    manifest = json.loads((folder / "cifar_mbv3" / "manifest.json").read_text())
    (folder / "cifar_mbv3" / "manifest.json").write_text(json.dumps(manifest | {"training": {}}))
    monkeypatch.setattr(bundle_module, "_SHIPPED", folder)
    start()
    problem(with_table.post("/v1/deployments", json={"search_id": search_id}), 409, "stale_search")


def test_every_shipped_table_can_be_read():
    for table in shipped.shipped_tables():
        assert table.rows
