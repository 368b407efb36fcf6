"""`tailor supernet`: supernets of this installation, or of a running service."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.output import JsonFlag, note, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from sqlalchemy.orm import Session, sessionmaker

    from service.bundles import BundleStore
    from service.settings import Settings

app = typer.Typer(no_args_is_help=True)
Server = Annotated[
    str | None,
    typer.Option(help="Address of a running service; by default the data folder that the environment names."),
]
_PAGE = "100"


@app.callback()
def group() -> None:
    """Supernets."""


@app.command()
def add(
    path: Annotated[str, typer.Argument(help="A bundle's folder, a tar or tar.gz of one, or a shipped name.")],
    *,
    supernet_id: Annotated[str | None, typer.Option("--id", help="By default the bundle's own name.")] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Requests that name no supernet shall mean this one.")
    ] = False,
    server: Server = None,
) -> None:
    """Register a bundle as a supernet; once more is fine."""
    if server is not None:
        from service.commands.remote import call

        query = {"default": "true"} if default else {}
        with _archive_of(path) as archive:
            answer = call(
                server,
                "POST",
                "/v1/supernets",
                query=query | ({} if supernet_id is None else {"id": supernet_id}),
                archive=archive,
            )
        found, is_default = answer["id"], answer["is_default"]
    else:
        from service.usecases.registration import register_archive, register_bundle
        from supernet.bundle import open_bundle

        with _local_service() as (settings, sessions, bundles):
            if Path(path).is_file():
                with Path(path).open("rb") as archive:
                    row, _ = register_archive(
                        sessions,
                        bundles,
                        archive,
                        max_bytes=settings.max_bundle_bytes,
                        supernet_id=supernet_id,
                        default=default,
                    )
            else:
                row, _ = register_bundle(sessions, bundles, open_bundle(path), supernet_id=supernet_id, default=default)
        found, is_default = row.supernet_id, row.is_default
    note(f"Supernet '{found}' is registered{' and the default' if is_default else ''}.")


@app.command("list")
def list_all(*, server: Server = None, as_json: JsonFlag = False) -> None:
    """List the supernets there are: the shipped ones and those that were registered."""
    listed = _list_local() if server is None else _list_remote(server)
    if as_json:
        print_json(listed)
    else:
        print_table(
            ["supernet", "space", "classes", "resolutions", "parts (bytes)", "default"],
            [tuple(entry.values()) for entry in listed],
        )


@app.command()
def remove(
    supernet_id: Annotated[str, typer.Argument(help="Id of a registered supernet.")],
    *,
    server: Server = None,
) -> None:
    """Delete a registered supernet with its searches and files."""
    if server is not None:
        from urllib.parse import quote

        from service.commands.remote import call

        call(server, "DELETE", f"/v1/supernets/{quote(supernet_id, safe='')}")
    else:
        from service.usecases.registration import delete_supernet

        with _local_service() as (_, sessions, bundles):
            delete_supernet(sessions, bundles, supernet_id)
    note(f"Supernet '{supernet_id}' is deleted.")


def _list_local() -> list[dict[str, Any]]:
    from importlib.util import find_spec

    from supernet.bundle import DEFAULT_BUNDLE, open_bundle, shipped_bundles

    listed = {
        name: _describe(name, open_bundle(path).manifest.to_dict(), is_default=name == DEFAULT_BUNDLE)
        for name, path in shipped_bundles().items()
    }
    # Without the service's packages there is no database either.
    if find_spec("pydantic_settings") is not None and find_spec("sqlalchemy") is not None:
        listed |= _list_registered()
    return list(listed.values())


def _list_registered() -> dict[str, dict[str, Any]]:
    """By id; none where no service has run on the data folder yet."""
    from service.db import repositories
    from service.db.engine import build_engine, has_database, session_factory, session_scope
    from service.db.migrate import check_current
    from service.settings import load_settings

    settings = load_settings()
    if not has_database(settings):
        return {}
    engine = build_engine(settings)
    try:
        check_current(engine)
        with session_scope(session_factory(engine), write=False) as session:
            rows = [repositories.find_supernet(session, name) for name in repositories.list_supernet_ids(session)]
    finally:
        engine.dispose()
    return {
        row.supernet_id: _describe(row.supernet_id, row.manifest, is_default=row.is_default)
        for row in rows
        if row is not None
    }


def _list_remote(server: str) -> list[dict[str, Any]]:
    from service.commands.remote import call

    listed: list[dict[str, Any]] = []
    query = {"limit": _PAGE}
    while True:
        page = call(server, "GET", "/v1/supernets", query=query)
        listed += [
            {
                "supernet": item["id"],
                "space": item["space"],
                "classes": len(item["classes"]),
                "resolutions": item["resolutions"],
                "parts": item["parts"],
                "default": item["is_default"],
            }
            for item in page["items"]
        ]
        if page["next_cursor"] is None:
            return listed
        query = {"limit": _PAGE, "cursor": page["next_cursor"]}


def _describe(name: str, manifest: dict[str, Any], *, is_default: bool) -> dict[str, Any]:
    return {
        "supernet": name,
        "space": manifest["space"]["name"],
        "classes": len(manifest["classes"]),
        "resolutions": manifest["space"]["resolutions"],
        "parts": {part: entry["bytes"] for part, entry in manifest["parts"].items()},
        "default": is_default,
    }


@contextmanager
def _archive_of(path: str) -> Iterator[IO[bytes]]:
    """A bundle as a tar to send: packed here, unless it is one already."""
    from service.bundle_archive import pack_bundle
    from supernet.bundle import open_bundle

    if Path(path).is_file():
        with Path(path).open("rb") as file:
            yield file
        return
    bundle = open_bundle(path)
    with TemporaryFile() as archive:
        pack_bundle(bundle, archive)
        archive.seek(0)
        yield archive


@contextmanager
def _local_service() -> Iterator[tuple[Settings, sessionmaker[Session], BundleStore]]:
    """Database and bundles of the data folder, as `tailor serve` finds them after its start."""
    from service.artifacts import ArtifactStore
    from service.bundles import BundleStore
    from service.db.engine import build_engine, session_factory, session_scope
    from service.db.migrate import upgrade
    from service.settings import load_settings
    from service.usecases.shipped import register_shipped

    settings = load_settings()
    upgrade(settings)
    engine = build_engine(settings)
    try:
        sessions = session_factory(engine)
        with session_scope(sessions) as session:
            register_shipped(session)
        yield settings, sessions, BundleStore(ArtifactStore(settings.effective_artifacts_url), settings.data_dir)
    finally:
        engine.dispose()
