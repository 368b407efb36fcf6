"""`tailor supernet add, list, remove`: on the data folder, and on a service over HTTP, with the same outcome."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.bundle_archive import pack_bundle
from service.cli import app as command
from service.errors import ConflictError, RemoteError
from service.settings import Settings
from supernet.bundle import Bundle, write_manifest
from supernet.errors import InvalidBundleError
from supernet.spaces.presets import load_space

SERVER = "http://service.test:8000"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "notes.txt").write_text("stays at home")
    return write_manifest(
        folder,
        name="pets",
        space=load_space("cifar_mbv3").with_classes(2),
        classes=("cat", "dog"),
        normalisation=((0.5,) * 3, (0.25,) * 3),
        training={},
        versions={},
    )


@pytest.fixture
def run(settings, shipped, monkeypatch):
    """The command on the data folder of the settings; gives its outcome, whatever it raised."""
    monkeypatch.setenv("TAILOR_DATA_DIR", str(settings.data_dir))
    return lambda *arguments: CliRunner().invoke(command, ["supernet", *arguments])


@pytest.fixture(params=["folder", "server"])
def place(request: pytest.FixtureRequest) -> list[str]:
    """Where the command works."""
    if request.param == "folder":
        return []
    return ["--server", f"{request.getfixturevalue('served')}/"]


def listed(run, place: list[str]) -> dict[str, dict[str, Any]]:
    done = run("list", "--json", *place)
    assert done.exit_code == 0, done.exception
    return {entry.pop("supernet"): entry for entry in json.loads(done.stdout)}


def test_a_bundle_is_added_listed_and_removed(run, place, bundle, settings):
    before = listed(run, place)
    assert set(before) == {"cifar_mbv3", "search_only", "weights_only"}
    done = run("add", str(bundle.path), *place)
    assert (done.exit_code, done.stdout) == (0, ""), done.exception
    assert done.stderr == "Supernet 'pets' is registered.\n"
    assert listed(run, place)["pets"] == {
        "space": "cifar_mbv3",
        "classes": 2,
        "resolutions": [24, 28, 32],
        "parts": {"weights": 7},
        "default": False,
    }
    stored = settings.data_dir / "artifacts" / "bundles" / bundle.sha256
    assert {path.name for path in stored.iterdir()} == {"manifest.json", "weights.safetensors"}
    assert run("add", str(bundle.path), *place).exit_code == 0
    assert run("remove", "pets", *place).exit_code == 0
    assert listed(run, place) == before
    assert not stored.exists()


def test_an_archive_gets_an_id_and_becomes_the_default(run, place, bundle, tmp_path):
    archive = tmp_path / "pets.tar"
    with archive.open("wb") as file:
        pack_bundle(bundle, file)
    done = run("add", str(archive), "--id", "mine", "--default", *place)
    assert done.stderr == "Supernet 'mine' is registered and the default.\n"
    assert [name for name, entry in listed(run, place).items() if entry["default"]] == ["mine"]
    # The way back, which the refusal to delete a default names.
    assert run("add", "cifar_mbv3", "--default", *place).exit_code == 0
    assert run("remove", "mine", *place).exit_code == 0


def test_a_refusal_is_told(run, place, bundle):
    done = run("add", str(bundle.path), "--id", "cifar_mbv3", *place)
    assert isinstance(done.exception, RemoteError if place else ConflictError)
    assert "has another bundle" in str(done.exception)
    assert "comes with Tailor" in str(run("remove", "cifar_mbv3", *place).exception)
    assert "No supernet 'none'" in str(run("remove", "none", *place).exception)


@pytest.mark.parametrize("path", ["none", "bundle/notes.txt", "bundle/.."])
def test_what_is_no_bundle_is_refused(run, place, bundle, tmp_path, path):
    done = run("add", str(tmp_path / path), *place)
    assert isinstance(done.exception, InvalidBundleError | RemoteError), done.exception
    assert set(listed(run, place)) == {"cifar_mbv3", "search_only", "weights_only"}


def test_without_a_database_the_shipped_ones_are_listed(run, settings, monkeypatch, tmp_path):
    monkeypatch.setenv("TAILOR_DATA_DIR", str(tmp_path / "nothing"))
    assert set(listed(run, [])) == {"cifar_mbv3", "search_only", "weights_only"}
    assert not (tmp_path / "nothing").exists()


def test_a_new_data_folder_has_the_shipped_ones_first(run, bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("TAILOR_DATA_DIR", str(tmp_path / "new"))
    assert run("add", str(bundle.path)).exit_code == 0
    assert [name for name, entry in listed(run, []).items() if entry["default"]] == ["cifar_mbv3"]


@pytest.mark.parametrize(
    ("server", "part"),
    [
        ("http://127.0.0.1:9", "cannot be reached"),
        ("127.0.0.1:9", "cannot be reached"),
        ("http://[", "cannot be reached"),
    ],
)
def test_a_service_that_is_not_there_is_named(run, server, part, bundle):
    for arguments in (["list"], ["add", str(bundle.path)], ["remove", "pets"]):
        done = run(*arguments, "--server", server)
        assert isinstance(done.exception, RemoteError)
        assert part in str(done.exception)


def test_an_answer_of_another_server_is_no_traceback(run, monkeypatch):
    monkeypatch.setattr(httpx, "request", lambda *_, **__: httpx.Response(200, text="<html>"))
    assert "as no Tailor service does" in str(run("list", "--server", SERVER).exception)


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [(["add", "cifar_mbv3"], "sqlalchemy", "serve"), (["list", "--server", SERVER], "httpx", "agent")],
)
def test_a_missing_package_names_the_extra_to_install(arguments, package, extra, tmp_path):
    code = f"import sys; sys.modules['{package}'] = None; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "supernet", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert f"pip install 'tailor-nas[{extra}]'" in done.stderr


def test_the_base_install_lists_the_shipped_ones(tmp_path):
    code = (
        "import sys, importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'sqlalchemy' else find(name, *rest)\n"
        "sys.modules['pydantic_settings'] = sys.modules['sqlalchemy'] = None\n"
        "from service.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "supernet", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "cifar_mbv3" in {entry["supernet"] for entry in json.loads(done.stdout)}


def test_the_command_uses_the_artefact_store_of_the_environment(run, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("TAILOR_ARTIFACTS_URL", (tmp_path / "elsewhere").as_uri())
    assert run("add", str(bundle.path)).exit_code == 0
    assert (tmp_path / "elsewhere" / "bundles" / bundle.sha256 / "manifest.json").is_file()
    assert Settings().effective_artifacts_url.endswith("/elsewhere")
