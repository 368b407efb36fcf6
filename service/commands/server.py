"""`tailor serve`, `tailor worker` and `tailor db`: the service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.output import note

if TYPE_CHECKING:
    from service.settings import Settings

database = typer.Typer(no_args_is_help=True)
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of database and artefacts; default TAILOR_DATA_DIR or .tailor.")
]


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    data_dir: DataDir = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Start a worker beside the API.")] = True,
) -> None:
    """Start the API and its worker; needs nothing else."""
    settings = _settings(data_dir)
    from service.supervisor import serve as run

    run(settings, host=host, port=port, with_worker=worker)


def worker(*, data_dir: DataDir = None) -> None:
    """Run the jobs of a data folder; one worker per folder."""
    settings = _settings(data_dir)
    from service.jobs.worker import run_worker
    from service.logs import configure_logging

    configure_logging()
    run_worker(settings)


@database.callback()
def group() -> None:
    """The service's database."""


@database.command()
def upgrade(*, data_dir: DataDir = None) -> None:
    """Create the database or bring it to this version's schema."""
    settings = _settings(data_dir)
    from service.db.migrate import upgrade as migrate

    migrate(settings)
    note("The database is up to date.")


def _settings(data_dir: Path | None) -> Settings:
    from service.settings import list_unknown_settings, load_settings

    for sentence in list_unknown_settings():
        note(f"Warning: {sentence}")
    return load_settings(data_dir=data_dir)
