"""Alive and ready are two questions."""

from __future__ import annotations

import shutil
from pathlib import Path

from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings


def test_a_migrated_service_is_alive_and_ready(client):
    for path in ("/healthz", "/readyz"):
        response = client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_a_database_without_tables_is_alive_but_not_ready(tmp_path: Path, problem):
    with TestClient(create_app(Settings(data_dir=tmp_path)), raise_server_exceptions=False) as client:
        assert client.get("/healthz").status_code == 200
        assert "db upgrade" in problem(client.get("/readyz"), 503, "storage_unavailable")["detail"]


def test_an_artefact_store_that_cannot_be_written_is_not_ready(settings, client, problem):
    folder = settings.data_dir / "artifacts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file where the folder was")
    problem(client.get("/readyz"), 503, "storage_unavailable")
