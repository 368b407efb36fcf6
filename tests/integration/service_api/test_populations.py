"""Populations and predictors over HTTP: ordered, listed, downloaded, and at the end a supernet that predicts anew."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.bundle_archive import pack_bundle
from service.db import job_repository
from service.db.engine import session_scope
from service.db.models import Population, Supernet
from service.jobs.handlers.registry import HANDLERS
from service.jobs.states import JobState, Lane
from service.jobs.worker import Worker
from supernet.bundle import PARTS, Bundle, write_manifest
from supernet.spaces.arch_csv import read_archs
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage

CLASSES = ("cat", "dog")
SPACE = SearchSpace(
    "tiny_population",
    stages=(
        Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), stride=2, act=Act.HSWISH),
        Stage(BlockKind.INVERTED, widths=(8,), depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(1, 2), stride=2),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(len(CLASSES),), norm=False, bias=True),
    ),
    resolutions=(12, 16),
)
NORMALISATION = ((0.5,) * 3, (0.25,) * 3)
URL = "/v1/supernets/weights_only"
HEADER = "ks,e,d,r,correct,images,top1_percent\n"


@pytest.fixture
def settings(settings, tmp_path):
    """Two sets of images, a file, and links in and out."""
    images = tmp_path / "images"
    for name in ("held-out", "other"):
        (images / name).mkdir(parents=True)
    (images / "file").write_text("no folder")
    (tmp_path / "outside").mkdir()
    (images / "out").symlink_to(tmp_path / "outside")
    (images / "alias").symlink_to(images / "held-out")
    (images / "loop").symlink_to(images / "loop")
    return settings.model_copy(update={"images_dir": images, "job_poll_s": 0.05, "max_bundle_bytes": 10**6})


@pytest.fixture
def post(client) -> Callable[..., Any]:
    """Order a population; keywords are fields of the body."""
    return lambda url=URL, images="held-out", **fields: client.post(
        f"{url}/population", json={"images": images, **fields}
    )


@pytest.fixture
def evaluated(services, post) -> Callable[..., str]:
    """A population that a worker has finished; its id."""

    def run(*, n_images: int = 1000, archs: int = 24, **fields: Any) -> str:
        made = post(archs=archs, **fields).json()
        key = f"populations/{made['id']}/1/population.csv"
        seed = made["seed"]
        rows = [f"3,3,2,{160 + arch + 100 * seed},{arch},{n_images},50.0\n" for arch in range(archs)]
        services.artifacts.put_bytes(key, "".join([HEADER, *rows]).encode())
        summary = {"archs": archs, "images": n_images, "mean_top1": 0.5, "best_top1": 0.75, "sha256": "0" * 64}
        with session_scope(services.sessions) as session:
            job_repository.begin_attempt(session, made["id"], max_attempts=3)
            job_repository.finish_attempt(session, made["id"], 1, state=JobState.SUCCEEDED)
            job_repository.publish_population(session, made["id"], key=key, summary=summary)
        return made["id"]

    return run


# ---------------------------------------------------------------------------- populations


def test_a_population_is_a_job_of_its_supernet(client, post):
    response = post(archs=30, seed=7)
    assert response.status_code == 202
    made = response.json()
    assert client.get(response.headers["location"]).json() == made
    assert (made["state"], made["job"]) == ("queued", {"id": made["id"], "state": "queued"})
    assert (made["supernet"], made["images"], made["archs"], made["seed"]) == ("weights_only", "held-out", 30, 7)
    assert (made["evaluated"], made["file"], made["error"]) == (None, None, None)
    job = client.get(f"/v1/jobs/{made['id']}").json()
    assert (job["kind"], job["state"], job["result"], job["deployment"]) == (
        "evaluate_population",
        "queued",
        None,
        None,
    )
    assert post().json()["archs"] == 250


def test_populations_are_listed_newest_first_for_their_supernet_alone(client, post, evaluated):
    ids = [evaluated(), evaluated(), post().json()["id"]]
    post(url="/v1/supernets/cifar_mbv3")
    first = client.get(f"{URL}/population?limit=2").json()
    rest = client.get(f"{URL}/population?limit=2&cursor={first['next_cursor']}").json()
    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None
    oldest = rest["items"][0]
    assert oldest["evaluated"] == {"archs": 24, "images": 1000, "mean_top1": 0.5, "best_top1": 0.75}
    assert oldest["file"] == f"{URL}/population/{ids[0]}.csv" == client.get(f"/v1/jobs/{ids[0]}").json()["result"]
    response = client.get(oldest["file"])
    assert response.text.startswith(HEADER)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"


def test_before_success_there_is_no_csv_and_after_a_cancellation_neither(client, post, problem):
    made = post().json()
    file = f"{URL}/population/{made['id']}.csv"
    assert problem(client.get(file), 409, "not_ready")["job"] == made["job"]
    assert client.post(f"/v1/jobs/{made['id']}/cancel").json()["state"] == "cancelled"
    problem(client.get(file), 409, "failed")
    assert client.get(f"{URL}/population/{made['id']}").json()["state"] == "cancelled"


def test_unknown_ids_are_named(client, post, evaluated, problem):
    problem(post(url="/v1/supernets/none"), 404, "unknown_supernet")
    problem(client.get("/v1/supernets/none/population"), 404, "unknown_supernet")
    for path in ("none", "none.csv"):
        problem(client.get(f"{URL}/population/{path}"), 404, "unknown_population")
    # A population of another supernet is none of this one.
    problem(client.get(f"/v1/supernets/cifar_mbv3/population/{evaluated()}"), 404, "unknown_population")


@pytest.mark.parametrize("images", ["file", "out", "loop", "none", "HELD-OUT"])
def test_images_are_folders_below_the_one_of_the_settings(post, problem, counts, images, tmp_path):
    body = problem(post(images=images), 404, "unknown_images")
    assert body["detail"].endswith("There are: alias, held-out, other.")
    assert str(tmp_path) not in body["detail"]
    assert counts()["jobs"] == 0


@pytest.mark.parametrize(
    "images", ["..", ".", "../images/held-out", "/tmp", "held-out/", ".hidden", "a b", "", "x" * 65]
)
def test_images_are_named_and_never_a_path(post, problem, images):
    problem(post(images=images), 422, "invalid_request")


def test_a_link_within_the_folder_is_followed(post):
    assert post(images="alias").status_code == 202


@pytest.mark.parametrize(
    "fields", [{"archs": 0}, {"archs": 10_001}, {"archs": "5"}, {"seed": -1}, {"seed": 2**31}, {"path": "/tmp"}]
)
def test_malformed_orders_are_refused(post, problem, counts, fields):
    problem(post(**fields), 422, "invalid_request")
    assert counts()["jobs"] == 0


def test_a_supernet_needs_weights(post, problem):
    problem(post(url="/v1/supernets/search_only"), 409, "no_weights")


def test_a_service_without_a_folder_of_images_says_how_to_get_one(services, post, problem, monkeypatch):
    object.__setattr__(services, "settings", services.settings.model_copy(update={"images_dir": None}))
    assert "Set TAILOR_IMAGES_DIR" in problem(post(), 409, "no_images_dir")["detail"]
    object.__setattr__(services, "settings", services.settings.model_copy(update={"images_dir": Path("/nowhere")}))
    problem(post(), 503, "storage_unavailable")


# ---------------------------------------------------------------------------- predictors


def test_a_predictor_is_fitted_on_the_newest_population(client, evaluated, post, services):
    evaluated()
    newest = evaluated()
    post()  # not finished
    response = client.post(f"{URL}/predictor", json={"id": "mine"})
    assert response.status_code == 202
    job = response.json()
    assert client.get(response.headers["location"]).json() == job
    assert (job["kind"], job["state"], job["result"]) == ("fit_predictor", "queued", None)
    with session_scope(services.sessions, write=False) as session:
        payload = job_repository.lock_job(session, job["id"]).payload
    assert payload["populations"] == {newest: f"populations/{newest}/1/population.csv"}
    assert payload["target_id"] == "mine"
    assert payload["bundle_sha256"] == client.get(URL).json()["bundle_sha256"]


def test_a_predictor_needs_populations_that_fit(client, evaluated, post, problem, services):
    order = lambda *ids, **more: client.post(f"{URL}/predictor", json={"populations": ids, "id": "mine", **more})  # noqa: E731
    problem(order(), 409, "no_population")
    problem(order("none"), 404, "unknown_population")
    problem(order(post().json()["id"]), 409, "not_ready")
    few, one, other, more = evaluated(archs=10), evaluated(), evaluated(images="other"), evaluated(n_images=7)
    assert "hold 10" in problem(order(few), 422, "invalid_request")["detail"]
    assert "hold 10" in problem(order(few, few), 422, "invalid_request")["detail"]
    # The same archs again are no more of them, others are.
    assert "hold 10" in problem(order(few, evaluated(archs=10)), 422, "invalid_request")["detail"]
    assert order(few, evaluated(archs=10, seed=1)).status_code == 202
    problem(order(one, other), 409, "mixed_populations")
    problem(order(one, more), 409, "mixed_populations")
    assert order(few, one).status_code == 202
    with session_scope(services.sessions) as session:
        session.get_one(Population, one).weights_sha256 = "0" * 64
    problem(order(one), 409, "stale_population")
    problem(order(few, one, id="not an id"), 422, "invalid_request")
    problem(order(few, id="cifar_mbv3"), 409, "supernet_exists")


def test_a_shipped_supernet_keeps_its_predictor(client, evaluated, problem):
    evaluated()
    for answer in (client.post(f"{URL}/predictor"), client.post(f"{URL}/predictor", json={})):
        assert "'id' of its own" in problem(answer, 409, "shipped_supernet")["detail"]


# ---------------------------------------------------------------------------- with a worker


@pytest.fixture
def own(tmp_path: Path) -> Bundle:
    """A bundle of an untrained supernet, with all that a subnet is recalibrated from."""
    import torch

    from supernet.data.batches import Normalisation
    from supernet.evaluation.calibration import Calibration, save_calibration
    from supernet.network.checkpoint import save_tensors
    from supernet.network.elastic_net import Supernet as Network

    folder = tmp_path / "bundle"
    folder.mkdir()
    network = Network(SPACE, torch.Generator().manual_seed(0))
    save_tensors(folder / PARTS["weights"], network.state_dict(), SPACE)
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)
    save_calibration(folder / PARTS["calibration"], Calibration(SPACE, Normalisation(*NORMALISATION), (), images))
    return write_manifest(
        folder, name="own", space=SPACE, classes=CLASSES, normalisation=NORMALISATION, training={}, versions={}
    )


def draw_images(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_from_images_to_a_supernet_that_predicts_anew(
    client, own, services, settings, post, problem, tmp_path, monkeypatch
):
    monkeypatch.setattr("service.jobs.worker.LONG_NICENESS", 0)  # this test has a time-out
    archive = io.BytesIO()
    pack_bundle(own, archive)
    headers = {"content-type": "application/x-tar"}
    assert client.post("/v1/supernets", content=archive.getvalue(), headers=headers).status_code == 201
    draw_images(settings.images_dir / "held-out")
    url = "/v1/supernets/own"

    good = post(url=url, archs=24).json()
    problem(client.delete(url), 409, "supernet_in_use")
    worker = Worker(settings, services.engine, lane=Lane.LONG, stop=threading.Event(), handlers=HANDLERS)
    try:
        worker.execute(good["id"])
        job = client.get(f"/v1/jobs/{good['id']}").json()
        assert (job["state"], job["stage"], job["progress"]) == ("succeeded", "evaluate", 1.0), job
        made = client.get(f"{url}/population/{good['id']}").json()
        assert (made["evaluated"]["archs"], made["evaluated"]["images"]) == (24, 24)
        response = client.get(job["result"])
        (tmp_path / "population.csv").write_bytes(response.content)
        read = read_archs(tmp_path / "population.csv", SPACE)
        top1 = [int(row["correct"]) / 24 for _, row in read]
        assert len({arch for arch, _ in read}) == 24
        assert (np.mean(top1), max(top1)) == (
            pytest.approx(made["evaluated"]["mean_top1"]),
            made["evaluated"]["best_top1"],
        )

        order = client.post(f"{url}/predictor", json={"populations": [good["id"]]}).json()
        worker.execute(order["id"])
    finally:
        worker.close()
    job = client.get(f"/v1/jobs/{order['id']}").json()
    assert (job["state"], job["error"], job["result"]) == ("succeeded", None, url)
    fitted = client.get(url).json()
    assert (fitted["predictor"]["quality"]["n_archs"], fitted["predictor"]["quality"]["n_images"]) == (24, 24)
    assert fitted["bundle_sha256"] != own.sha256
    assert fitted["parts"]["weights"] == own.manifest.parts["weights"]["bytes"]
    with session_scope(services.sessions, write=False) as session:
        assert services.catalog.supernet(session.get_one(Supernet, "own")).predictor.resolutions == SPACE.resolutions

    # What the supernet leaves: nothing.
    assert client.delete(url).status_code == 204
    assert services.artifacts.list_keys("populations") == services.artifacts.list_keys("bundles") == []


def test_populations_keep_their_files_until_their_supernet_is_gone(client, own, services, post, problem, monkeypatch):
    archive = io.BytesIO()
    pack_bundle(own, archive)
    client.post("/v1/supernets", content=archive.getvalue(), headers={"content-type": "application/x-tar"})
    made = post(url="/v1/supernets/own", archs=20).json()
    services.artifacts.put_bytes(f"populations/{made['id']}/1/population.csv", HEADER.encode())
    client.post(f"/v1/jobs/{made['id']}/cancel")

    def fail(*_):
        raise OperationalError("", {}, Exception("the commit failed"))

    with monkeypatch.context() as patch:
        patch.setattr(Session, "commit", fail)
        problem(client.delete("/v1/supernets/own"), 503, "storage_unavailable")
    assert len(services.artifacts.list_keys("populations")) == 1
    assert client.delete("/v1/supernets/own").status_code == 204
    assert services.artifacts.list_keys("populations") == services.artifacts.list_keys("bundles") == []


@pytest.mark.parametrize("path", ["population", "predictor", "deployments"])
def test_what_a_job_is_ordered_for_stays_until_the_order_is_written(client, evaluated, post, path, monkeypatch):
    """PostgreSQL only: SQLite has one writer at a time."""
    evaluated()
    statements = []

    def listen(state):
        if state.is_select:
            statements.append(str(state.statement.compile(dialect=postgresql.dialect())))

    event.listen(Session, "do_orm_execute", listen)
    try:
        match path:
            case "population":
                answer = post()
            case "predictor":
                answer = client.post(f"{URL}/predictor", json={"id": "mine"})
            case _:
                order = {"supernet": "weights_only", "arch": load_space("cifar_mbv3").smallest().to_dict()}
                answer = client.post("/v1/deployments", json=order)
    finally:
        event.remove(Session, "do_orm_execute", listen)
    assert answer.status_code == 202
    assert any("FROM supernets" in text and text.endswith("FOR SHARE") for text in statements)


def test_a_search_made_before_a_new_predictor_is_stale(ask, services, with_table, problem):
    search_id = ask().json()["id"]
    with session_scope(services.sessions) as session:
        row, other = session.get_one(Supernet, "cifar_mbv3"), session.get_one(Supernet, "weights_only")
        row.bundle_uri, row.bundle_sha256 = other.bundle_uri, other.bundle_sha256
    problem(with_table.post("/v1/deployments", json={"search_id": search_id}), 409, "stale_search")
