"""The pools of a registered bundle over HTTP, with what was deployed of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle_archive import pack_bundle
from service.db import repositories
from service.db.engine import session_scope
from supernet.bundle import PARTS, Bundle, write_manifest
from supernet.pools.storage import PoolChoice, save_pools
from supernet.spaces.arch import Arch
from supernet.spaces.costs import macs, params
from supernet.spaces.norms import norm_layers
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace

SPACE = load_space("cifar_mbv3")
SMALL, LARGE = SPACE.smallest(), SPACE.largest()


def choice_of(resource: str, low: float, arch: Arch) -> PoolChoice:
    channels = sum(found.layer.out_chs for found in norm_layers(SPACE, arch))
    return PoolChoice(resource, low, 2 * low, arch, 0.625, 5000, np.ones((2, channels), np.float32))


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """A bundle with two pools by MACs and one by a device's latency."""

    def make(*, space: SearchSpace = SPACE, pools: bytes | None = None) -> Bundle:
        folder = tmp_path / "pooled"
        folder.mkdir()
        for part in ("weights", "calibration"):
            (folder / PARTS[part]).write_bytes(part.encode())
        if pools is None:
            choices = [choice_of("phone", 0.25, SMALL), choice_of("macs", 5e7, LARGE), choice_of("macs", 5e6, SMALL)]
            save_pools(folder / PARTS["pools"], choices, SPACE)
        else:
            (folder / PARTS["pools"]).write_bytes(pools)
        return write_manifest(
            folder,
            name="pooled",
            space=space,
            classes=tuple(f"class {index}" for index in range(space.classes)),
            normalisation=((0.5,) * 3, (0.25,) * 3),
            training={"method": "pss_net"},
            versions={},
        )

    return make


@pytest.fixture
def post(client) -> Callable[[Bundle], Any]:
    def post(bundle: Bundle) -> Any:
        archive = io.BytesIO()
        pack_bundle(bundle, archive)
        content_type = {"content-type": "application/x-tar"}
        return client.post("/v1/supernets", content=archive.getvalue(), headers=content_type)

    return post


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"max_bundle_bytes": 10_000_000})


def test_every_pool_is_listed_with_its_subnet_by_resource_from_the_smallest(client, post, make_bundle):
    made = post(make_bundle())
    assert made.status_code == 201, made.text
    assert "pools" in made.json()["parts"]
    body = client.get("/v1/supernets/pooled/pools").json()
    assert body["next_cursor"] is None
    assert [(item["resource"], item["low"], item["high"]) for item in body["items"]] == [
        ("macs", 5e6, 1e7),
        ("macs", 5e7, 1e8),
        ("phone", 0.25, 0.5),
    ]
    assert body["items"][1] == {
        "resource": "macs",
        "low": 5e7,
        "high": 1e8,
        "arch": LARGE.to_dict(),
        "arch_id": LARGE.arch_id,
        "accuracy": {"evaluated": 0.625, "images": 5000},
        "macs": macs(SPACE, LARGE),
        "params": params(SPACE, LARGE),
        "deployments": [],
    }


def test_a_pool_shows_the_deployments_of_its_arch(client, post, make_bundle, finish):
    def deploy(supernet: str, arch: Arch) -> dict[str, Any]:
        response = client.post("/v1/deployments", json={"supernet": supernet, "arch": arch.to_dict()})
        assert response.status_code == 202, response.text
        return response.json()

    post(make_bundle())
    first, second = deploy("pooled", LARGE), deploy("pooled", LARGE)
    deploy("cifar_mbv3", SMALL)  # another supernet's
    finish(first)
    shown = [item["deployments"] for item in client.get("/v1/supernets/pooled/pools").json()["items"]]
    newest_first = [{"id": second["id"], "state": "queued"}, {"id": first["id"], "state": "succeeded"}]
    assert shown == [[], newest_first, []]


def test_a_pool_shows_its_newest_deployments_alone(client, post, make_bundle, monkeypatch):
    monkeypatch.setattr("service.usecases.pools.MOST_DEPLOYMENTS", 2)
    post(make_bundle())
    made = [
        client.post("/v1/deployments", json={"supernet": "pooled", "arch": arch.to_dict()}).json()["id"]
        for arch in (LARGE, LARGE, LARGE, SMALL)
    ]
    shown = client.get("/v1/supernets/pooled/pools").json()["items"]
    assert [item["id"] for item in shown[1]["deployments"]] == [made[2], made[1]]
    assert [item["id"] for item in shown[0]["deployments"]] == [made[3]]


def test_the_arch_of_a_pool_can_be_deployed_as_it_is_listed(client, post, make_bundle):
    post(make_bundle())
    pool = client.get("/v1/supernets/pooled/pools").json()["items"][0]
    made = client.post("/v1/deployments", json={"supernet": "pooled", "arch": pool["arch"]}).json()
    shown = client.get("/v1/supernets/pooled/pools").json()["items"]
    # The same arch is the choice of two pools.
    assert [len(item["deployments"]) for item in shown] == [1, 0, 1]
    assert shown[0]["deployments"][0]["id"] == made["id"]


def test_a_supernet_without_pools_has_an_empty_list(client):
    assert client.get("/v1/supernets/cifar_mbv3/pools").json() == {"items": [], "next_cursor": None}


def test_pools_of_an_unknown_supernet_are_not_found(client, problem):
    problem(client.get("/v1/supernets/nobody/pools"), 404, "unknown_supernet")


def test_a_row_of_an_earlier_version_has_no_pools(client, services):
    with session_scope(services.sessions) as session:
        row = repositories.find_supernet(session, "cifar_mbv3")
        row.manifest = {key: value for key, value in row.manifest.items() if key != "pools"}
    assert client.get("/v1/supernets/cifar_mbv3/pools").json()["items"] == []


def test_damaged_pools_store_nothing(client, post, make_bundle, counts, problem, settings):
    before = counts()
    detail = problem(post(make_bundle(pools=b"nonsense")), 422, "invalid_bundle")["detail"]
    assert "pools.safetensors' cannot be read" in detail
    assert str(settings.data_dir) not in detail
    assert counts() == before


def test_pools_of_another_space_store_nothing(client, post, make_bundle, counts, problem):
    before = counts()
    problem(post(make_bundle(space=SPACE.with_classes(7))), 409, "fingerprint_mismatch")
    assert counts() == before
