"""A user's bundle over HTTP: registered, searched, deployed, deleted; and whatever is refused leaves nothing."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import supernet
from latency_tables.table import LatencyTable, spec_from_dict
from service.app import create_app
from service.artifacts import ArtifactStore
from service.bundle_archive import pack_bundle
from service.db.engine import session_scope
from service.db.repositories import find_job
from service.errors import StorageError
from service.jobs.handlers.registry import HANDLERS, Attempt, Stores
from service.jobs.states import JobKind, Lane
from service.jobs.worker import Worker
from service.usecases.shipped import register_shipped
from supernet import bundle as bundle_module
from supernet.bundle import Bundle, open_bundle, write_manifest
from supernet.predictors.accuracy import AccuracyPredictor
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.costs import macs_cost, params
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

TAR = {"content-type": "application/x-tar"}
MAX_BUNDLE_BYTES = 400_000
OWN_SPACE = SearchSpace(
    "own_space",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
        Stage(BlockKind.INVERTED, widths=(16,), depths=(1, 2, 3), kernel_sizes=(3, 5), expand_ratios=(2, 3), stride=2),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(2,), norm=False, bias=True),
    ),
    resolutions=(12, 16),
)


@pytest.fixture
def settings(settings):
    """Bundles may be larger than other bodies."""
    return settings.model_copy(update={"max_body_bytes": 10_000, "max_bundle_bytes": MAX_BUNDLE_BYTES})


@pytest.fixture(scope="module")
def predictor_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(6)
    rows = OWN_SPACE.sample_rows(rng, 30)
    top1 = 0.6 + 0.02 * np.log(macs_cost(OWN_SPACE)(rows) / 1e3)
    path = tmp_path_factory.mktemp("predictor") / "predictor.safetensors"
    AccuracyPredictor.fit(OWN_SPACE, rows, top1=top1, n_images=5000, rng=rng).save(path)
    return path


@pytest.fixture
def make_bundle(tmp_path: Path, predictor_file: Path) -> Callable[..., Bundle]:
    """A bundle of a space of the user's own; every keyword changes one thing."""

    def make(
        name: str = "own", *, space: SearchSpace = OWN_SPACE, weights: bytes = b"weights", predictor: bool = True
    ) -> Bundle:
        folder = tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(weights)
        (folder / "calibration.safetensors").write_bytes(b"calibration")
        if predictor:
            shutil.copy(predictor_file, folder)
        return write_manifest(
            folder,
            name=name,
            space=space,
            classes=tuple(f"class {index}" for index in range(space.classes)),
            normalisation=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            training={"method": "ours"},
            versions={"tailor": "0.1.0"},
        )

    return make


@pytest.fixture
def own(make_bundle) -> Bundle:
    return make_bundle()


def packed(bundle: Bundle) -> bytes:
    archive = io.BytesIO()
    pack_bundle(bundle, archive)
    return archive.getvalue()


@pytest.fixture
def post(client) -> Callable[..., Any]:
    """POST a bundle, or any bytes; keywords are query parameters."""

    def post(body: Bundle | bytes, **query: Any) -> Any:
        content = packed(body) if isinstance(body, Bundle) else body
        return client.post("/v1/supernets", content=content, params=query, headers=TAR)

    return post


@pytest.fixture
def stored(services, settings) -> Callable[[], list[str]]:
    """Every file of bundles: in the artefact store and in the data folder."""

    def list_files() -> list[str]:
        cache = settings.data_dir / "bundles"
        copies = [str(path.relative_to(settings.data_dir)) for path in cache.rglob("*")] if cache.exists() else []
        return services.artifacts.list_keys("bundles") + copies

    return list_files


def table_of(space: SearchSpace, make_table, device: str = "bench-1t") -> dict[str, Any]:
    other = make_table(device)
    blocks = space.distinct_blocks()
    stats = next(iter(other.rows.values()))
    rows = {spec: replace(stats, value_ms=0.01 + spec.macs / 1e7) for spec in blocks}
    return LatencyTable(other.device, space.name, {"measured_by": "a test"}, rows).to_dict()


def test_a_bundle_is_registered_searched_and_deployed(client, post, own, make_table, stored):
    response = post(own)
    assert response.status_code == 201, response.text
    made = response.json()
    assert response.headers["location"] == "/v1/supernets/own"
    assert client.get("/v1/supernets/own").json() == made
    assert (made["id"], made["space"], made["is_default"], made["deployable"]) == ("own", "own_space", False, True)
    assert made["bundle_sha256"] == own.sha256
    assert made["parts"]["weights"] == len(b"weights")
    assert len([name for name in stored() if name.endswith("weights.safetensors")]) == 2

    blocks = client.get("/v1/spaces/own_space/blocks").json()["items"]
    assert tuple(map(spec_from_dict, blocks)) == OWN_SPACE.distinct_blocks()
    table_url = "/v1/devices/bench-1t/tables/own_space"
    assert client.put(table_url, json=table_of(OWN_SPACE, make_table)).status_code == 201
    assert client.get(table_url).json()["space"] == "own_space"

    body = {"supernet": "own", "device": "bench-1t", "constraints": {"latency_ms": 1.0}, "deploy": True}
    found = client.post("/v1/searches", json=body)
    assert found.status_code == 201, found.text
    assert found.json()["versions"]["supernet"] == own.sha256
    assert found.json()["deployment"]["state"] == "queued"


def test_a_service_that_lost_its_copies_fetches_them(post, own, settings, shipped):
    post(own)
    shutil.rmtree(settings.data_dir / "bundles")
    again = create_app(settings)
    with TestClient(again) as client:
        arch = OWN_SPACE.smallest().to_dict()
        assert client.post("/v1/deployments", json={"supernet": "own", "arch": arch}).status_code == 202
    assert (settings.data_dir / "bundles" / own.sha256 / "manifest.json").is_file()


def test_a_supernet_whose_files_are_lost_is_told(post, own, client, services, settings, problem):
    post(own)
    services.artifacts.delete_prefix("bundles")
    shutil.rmtree(settings.data_dir / "bundles")
    body = {"supernet": "own", "arch": OWN_SPACE.smallest().to_dict()}
    problem(client.post("/v1/deployments", json=body), 409, "bundle_unavailable")


def test_the_same_bundle_under_the_same_id_is_no_second_one(post, own, counts, stored):
    first = post(own).json()
    before, files = counts(), stored()
    again = post(gzip.compress(packed(own)))
    assert (again.status_code, again.headers["location"]) == (200, "/v1/supernets/own")
    assert again.json() == first
    assert (counts(), sorted(stored())) == (before, sorted(files))


def test_another_bundle_under_a_taken_id_is_refused(post, own, make_bundle, counts, stored, problem):
    post(own)
    before, files = counts(), stored()
    problem(post(make_bundle(weights=b"others")), 409, "supernet_exists")
    problem(post(own, id="cifar_mbv3"), 409, "supernet_exists")
    assert (counts(), stored()) == (before, files)


def test_an_id_comes_before_the_name_of_the_manifest(post, client, make_bundle, problem):
    bundle = make_bundle("My own, the best")
    problem(post(bundle), 422, "invalid_request")
    for wrong in ("", "..", "a/b", "-x", "é", "x" * 65, "a b"):
        problem(post(bundle, id=wrong), 422, "invalid_request")
    assert post(bundle, id="mine-1.0_B").json()["id"] == "mine-1.0_B"
    assert client.get("/v1/supernets/mine-1.0_B").status_code == 200


def test_a_supernet_becomes_the_default_where_asked_for(post, own, make_bundle, client):
    def defaults() -> list[str]:
        return [item["id"] for item in client.get("/v1/supernets").json()["items"] if item["is_default"]]

    post(own)
    assert defaults() == ["cifar_mbv3"]
    assert post(make_bundle("second"), default=True).json()["is_default"] is True
    assert defaults() == ["second"]
    assert post(own, default=True).status_code == 200
    assert defaults() == ["own"]
    post(own)
    assert defaults() == ["own"]


def test_a_name_of_a_space_means_one_space(post, make_bundle, counts, stored, problem):
    preset = load_space("cifar_mbv3")
    stranger = replace(OWN_SPACE, name="cifar_mbv3")
    problem(post(make_bundle("stranger", space=stranger, predictor=False)), 409, "space_mismatch")
    assert (counts()["supernets"], stored()) == (3, [])
    assert post(make_bundle("pets", space=preset.with_classes(37), predictor=False)).status_code == 201
    post(make_bundle("own"))
    other = replace(OWN_SPACE, resolutions=(12, 20))
    problem(post(make_bundle("other", space=other, predictor=False)), 409, "space_mismatch")
    assert post(make_bundle("classes", space=OWN_SPACE.with_classes(5), predictor=False)).status_code == 201


def test_a_space_that_no_path_can_name_is_refused(post, make_bundle, problem):
    space = replace(OWN_SPACE, name="my/space")
    assert "my/space" in problem(post(make_bundle(space=space, predictor=False)), 422, "invalid_bundle")["detail"]


def broken_bodies(bundle: Bundle) -> dict[str, bytes]:
    whole = packed(bundle)
    manifest = (bundle.path / "manifest.json").read_bytes()

    def tar(*members: tuple[str, bytes], link: str = "") -> bytes:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as file:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                if link:
                    member.type, member.linkname, member.size = tarfile.SYMTYPE, link, 0
                file.addfile(member, io.BytesIO(content))
        return archive.getvalue()

    return {
        "empty": b"",
        "no archive": b"nonsense" * 100,
        "half": whole[: len(whole) // 2],
        "half a tar.gz": gzip.compress(whole)[:-2000],
        "no manifest": tar(("weights.safetensors", b"weights")),
        "wrong hash": whole.replace(b"weights\0", b"WEIGHTS\0"),
        "missing part": tar(("manifest.json", manifest)),
        "other member": tar(("setup.py", b"")),
        "way out": tar(("../manifest.json", manifest)),
        "link": tar(("weights.safetensors", b""), link="/etc/passwd"),
        "bomb": gzip.compress(tar(("weights.safetensors", bytes(MAX_BUNDLE_BYTES + 1)))),
    }


def test_a_broken_archive_stores_nothing(post, own, counts, stored, problem, settings):
    before = counts()
    files = sorted(path.name for path in settings.data_dir.iterdir())
    for name, body in broken_bodies(own).items():
        detail = problem(post(body), 422, "invalid_bundle")["detail"]
        assert str(settings.data_dir) not in detail, name
        assert (counts(), stored()) == (before, []), name
    assert sorted(path.name for path in settings.data_dir.iterdir()) == sorted([*files, "bundles"])


def test_a_predictor_of_another_space_stores_nothing(post, make_bundle, counts, stored, problem, settings):
    before = counts()
    bundle = make_bundle(space=OWN_SPACE.with_classes(7))
    detail = problem(post(bundle), 409, "fingerprint_mismatch")["detail"]
    assert str(settings.data_dir) not in detail
    assert (counts(), stored()) == (before, [])


@pytest.mark.parametrize("failing", ["predictor.safetensors", "manifest.json"])
def test_a_store_that_fails_on_the_way_leaves_nothing(post, own, counts, stored, problem, monkeypatch, failing):
    put = ArtifactStore.put_content

    def fail(self, key, path):
        if key.endswith(failing):
            raise StorageError("The disk is full.")
        put(self, key, path)

    monkeypatch.setattr(ArtifactStore, "put_content", fail)
    before = counts()
    problem(post(own), 503, "storage_unavailable")
    assert (counts(), stored()) == (before, [])
    monkeypatch.undo()
    assert post(own).status_code == 201


def test_a_body_has_its_own_limit(post, client, problem, settings, counts):
    assert "TAILOR_MAX_BUNDLE_BYTES" in problem(post(bytes(MAX_BUNDLE_BYTES + 1)), 413, "body_too_large")["detail"]
    sent = 0

    def endless():
        nonlocal sent
        while sent < 100 * MAX_BUNDLE_BYTES:
            sent += 10_000
            yield bytes(10_000)

    response = client.post("/v1/supernets", content=endless(), headers=TAR)
    problem(response, 413, "body_too_large")
    response = client.post("/v1/devices", content=bytes(settings.max_body_bytes + 1))
    assert "TAILOR_MAX_BODY_BYTES" in problem(response, 413, "body_too_large")["detail"]


@pytest.mark.parametrize("content_type", ["application/json", "", "application/x-www-form-urlencoded"])
def test_a_bundle_of_another_type_is_unsupported(client, own, problem, content_type):
    response = client.post("/v1/supernets", content=packed(own), headers={"content-type": content_type})
    assert "application/x-tar" in problem(response, 415, "unsupported_media_type")["detail"]


def test_requests_that_race_register_one_supernet(services, own, client, counts):
    gate = threading.Barrier(4)
    statuses = []

    def send() -> None:
        gate.wait()
        statuses.append(client.post("/v1/supernets", content=packed(own), headers=TAR).status_code)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 200, 201]
    assert counts()["supernets"] == 4
    assert services.bundles.holds(own)


def test_a_deleted_supernet_is_gone_with_its_files(post, own, client, counts, stored, problem):
    before = counts()
    post(own)
    assert client.delete("/v1/supernets/own").status_code == 204
    assert (counts(), stored()) == (before, [])
    problem(client.get("/v1/supernets/own"), 404, "unknown_supernet")
    problem(client.delete("/v1/supernets/own"), 404, "unknown_supernet")
    problem(client.get("/v1/spaces/own_space/blocks"), 404, "unknown_space")
    assert post(own).status_code == 201


def test_files_that_two_supernets_share_stay_with_the_other(post, own, client, services):
    post(own)
    post(own, id="twin")
    client.delete("/v1/supernets/own")
    assert services.bundles.holds(own)
    client.delete("/v1/supernets/twin")
    assert services.artifacts.list_keys("bundles") == []


def test_a_supernet_that_is_needed_is_not_deleted(post, own, client, counts, problem):
    post(own, default=True)
    detail = problem(client.delete("/v1/supernets/own"), 409, "default_supernet")["detail"]
    assert "cifar_mbv3" in detail
    assert "default=true" in detail
    client.post("/v1/deployments", json={"supernet": "own", "arch": OWN_SPACE.smallest().to_dict()})
    before = counts()
    problem(client.delete("/v1/supernets/own"), 409, "supernet_in_use")
    problem(client.delete("/v1/supernets/search_only"), 409, "shipped_supernet")
    assert counts() == before


def test_a_shipped_bundle_does_not_take_the_place_of_a_users(post, make_bundle, services, bundles, tmp_path, client):
    mine = make_bundle("cifar_next")
    post(mine)
    with pytest.MonkeyPatch.context() as patch:
        newer = tmp_path / "newer"
        shutil.copytree(bundles / "search_only", newer / "cifar_next")
        manifest = json.loads((newer / "cifar_next" / "manifest.json").read_text()) | {"name": "cifar_next"}
        (newer / "cifar_next" / "manifest.json").write_text(json.dumps(manifest))
        patch.setattr(bundle_module, "_SHIPPED", newer)
        with session_scope(services.sessions) as session:
            register_shipped(session)
    assert client.get("/v1/supernets/cifar_next").json()["bundle_sha256"] == mine.sha256


def test_a_deployment_is_cut_from_a_registered_bundle(settings, shipped, tmp_path, monkeypatch):
    """The trained bundle of the package, as if it were a user's, as far as the export, which takes the time."""
    settings = settings.model_copy(update={"max_bundle_bytes": 2**26})
    trained = open_bundle(Path(supernet.__file__).parent / "bundles" / "cifar_mbv3")
    arch = trained.space.smallest()
    app = create_app(settings)
    with TestClient(app) as client:
        response = client.post("/v1/supernets?id=mine", content=packed(trained), headers=TAR)
        assert response.status_code == 201, response.text
        made = client.post("/v1/deployments", json={"supernet": "mine", "arch": arch.to_dict()}).json()
    with session_scope(app.state.services.sessions, write=False) as session:
        job = find_job(session, made["job"]["id"])
    assert job.payload["bundle_uri"] == f"artifact:bundles/{trained.sha256}"
    shutil.rmtree(settings.data_dir / "bundles")
    handler = HANDLERS[JobKind.EXPORT_SUBNET]
    services = app.state.services
    stores = Stores(services.sessions, services.artifacts, services.bundles, settings)
    fetched = handler.fetch(Attempt(job, stores, tmp_path))
    assert fetched["bundle_uri"] == f"folder:{settings.data_dir / 'bundles' / trained.sha256}"

    exported: list[dict[str, Any]] = []
    module, _, function = handler.target.partition(":")
    run = getattr(import_module(module), function)  # torch, as late as in the child

    def export(_folder, subnet, **facts):
        exported.append({"parameters": sum(parameter.numel() for parameter in subnet.parameters()), **facts})
        return SimpleNamespace(to_dict=lambda: {"done": True})

    monkeypatch.setattr("supernet.deployment.write_deployment", export)
    assert run(fetched, tmp_path / "out", lambda _share, _stage: None) == {"done": True}
    (found,) = exported
    assert (found["arch"], found["parameters"]) == (arch, params(trained.space, arch))


def test_a_job_whose_bundle_is_lost_says_so(post, own, client, services, settings):
    post(own)
    made = client.post("/v1/deployments", json={"supernet": "own", "arch": OWN_SPACE.smallest().to_dict()}).json()
    services.artifacts.delete_prefix("bundles")
    shutil.rmtree(settings.data_dir / "bundles")
    worker = Worker(settings, services.engine, lane=Lane.SHORT, stop=threading.Event(), handlers=HANDLERS)
    worker._child.prepare = lambda: None  # no process for a job that needs none
    try:
        worker.execute(made["job"]["id"])
    finally:
        worker.close()
    job = client.get(f"/v1/jobs/{made['job']['id']}").json()
    assert (job["state"], job["error"]["code"]) == ("failed", "bundle_unavailable")
