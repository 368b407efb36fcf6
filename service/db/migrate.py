"""Brings the database to the newest schema and prepares the data folder. Safe to run from several processes at once.

Our tables come from Alembic, the queue's from its own library; both may share one SQLite file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from service.db.engine import READ_ONLY, DatabaseError, build_engine, is_outage, reason_of
from service.errors import StorageError
from service.jobs.queue import migrate_queue

if TYPE_CHECKING:
    from service.settings import Settings

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(settings: Settings) -> None:
    """Create the data folder and bring the database to the newest schema; nothing happens where both are current.

    Raises:
        StorageError: The folder or the database cannot be created or written.
    """
    prepare_folder(settings.data_dir)
    engine = build_engine(settings)
    try:
        # One transaction around everything: a second process waits here and then finds nothing to do.
        with engine.begin() as connection:
            _validate_known(engine, MigrationContext.configure(connection).get_current_revision())
            command.upgrade(_config(connection), "head")
        # After ours, so that the file is in WAL mode before the queue first opens it.
        migrate_queue(settings)
    except DatabaseError as error:
        # What is neither away nor full is damaged, or was never a database.
        what_to_do = (
            "Check TAILOR_DATABASE_URL and the free space."
            if is_outage(error)
            else "Restore it from a backup, or move it away: a new one is made at the next start."
        )
        raise StorageError(
            f"The database {engine.url!r} cannot be brought to the newest schema: {reason_of(error)}. {what_to_do}"
        ) from error
    finally:
        engine.dispose()


def check_current(engine: Engine) -> None:
    """Make sure the database has the schema this code needs.

    Raises:
        StorageError: It cannot be read, or its schema is another one.
    """
    try:
        with engine.connect().execution_options(**{READ_ONLY: True}) as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except DatabaseError as error:
        raise StorageError(f"The database {engine.url!r} cannot be read: {reason_of(error)}.") from error
    _validate_known(engine, found)
    needed = newest_revision()
    if found != needed:
        raise StorageError(
            f"The database {engine.url!r} has schema {found or 'none'}, this version needs {needed}. "
            "Run `tailor db upgrade`."
        )


def newest_revision() -> str | None:
    """Name of the newest migration."""
    return ScriptDirectory(str(_MIGRATIONS)).get_current_head()


def prepare_folder(folder: Path) -> None:
    """Create the data folder and prove that it can be written.

    Raises:
        StorageError: It cannot.
    """
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"The data folder {folder} cannot be written: {error.strerror or error}. "
            "Choose another one with TAILOR_DATA_DIR or --data-dir."
        ) from error


def _validate_known(engine: Engine, found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()}
    if found is not None and found not in known:
        raise StorageError(
            f"The database {engine.url!r} has schema {found}, which this version does not know (its newest is "
            f"{newest_revision()}): a newer version of Tailor made it. Update tailor-nas, or choose another folder "
            "with TAILOR_DATA_DIR or --data-dir."
        )


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
