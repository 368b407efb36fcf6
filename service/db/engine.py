"""Engine and sessions. `session_scope` is the only place in the project that commits."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from service.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.settings import Settings

DatabaseError = SQLAlchemyError
"""What sessions raise when the database is away, locked for too long, or refuses a statement."""
READ_ONLY = "tailor_read_only"
"""Execution option of connections that only read."""
_BUSY_TIMEOUT_MS = 10_000
_WAL_RETRY_S = 0.02
_URL_HELP = (
    "Allowed are sqlite:////folder/file.sqlite and postgresql+psycopg://user:password@host/database; "
    "unset it for a file in the data folder."
)
_READ_OPTIONS = {READ_ONLY: True, "postgresql_readonly": True}


def build_engine(settings: Settings) -> Engine:
    """An engine for the database of the settings; nothing is connected yet.

    SQLite needs all four of WAL, `BEGIN IMMEDIATE`, a busy timeout and synchronous=NORMAL: without `BEGIN IMMEDIATE`
    173 of 240 concurrent read-modify-write transactions lost an update, without the timeout 134 failed. The file has
    to lie on a local disk.

    Raises:
        StorageError: The URL names no database the service can use, or its driver is not installed.
    """
    try:
        url = make_url(settings.effective_database_url)
        backend = url.get_backend_name()
        if backend not in ("sqlite", "postgresql") or (backend == "sqlite" and url.database in (None, "", ":memory:")):
            raise StorageError(f"TAILOR_DATABASE_URL is {url!r}, which the service cannot use. {_URL_HELP}")
        if backend != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        # FastAPI runs at most 40 requests at once; each may hold one connection.
        engine = create_engine(url, pool_size=10, max_overflow=30)
    except ArgumentError as error:
        # The text is not shown: it may hold a password.
        raise StorageError(f"TAILOR_DATABASE_URL is no database URL. {_URL_HELP}") from error
    except ImportError as error:
        raise StorageError(
            f"TAILOR_DATABASE_URL asks for the driver '{error.name}', which is not installed. {_URL_HELP}"
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def has_database(settings: Settings) -> bool:
    """Whether the file of a SQLite database is there; a database server is taken to have one.

    Raises:
        StorageError: As `build_engine`.
    """
    url = build_engine(settings).url
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).exists()


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def session_scope(factory: sessionmaker[Session], *, write: bool = True) -> Iterator[Session]:
    """One transaction: committed when the block ends, rolled back when it raises.

    Args:
        factory: Where the session comes from.
        write: Take SQLite's write lock at once, so that what is read stays true until the commit. Without it readers
            do not queue behind writers, and the database refuses to write.
    """
    with factory() as session:
        if not write:
            session.connection(execution_options=_READ_OPTIONS)
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling begins too late and never IMMEDIATE; `_begin_sqlite` does it instead.
    connection.isolation_level = None
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}").close()
        _switch_to_wal(connection)
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()
    except sqlite3.Error:
        connection.close()  # the pool forgets a connection that could not be prepared
        raise


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Wait for others here: SQLite's own busy timeout does not hold for the first switch of a new file."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    reading = bool(connection.get_execution_options().get(READ_ONLY))
    # The pool hands connections on, so the switch is set both ways.
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reading else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def is_outage(error: Exception) -> bool:
    """Whether the database cannot be used now (away, locked, full), as opposed to being used wrongly."""
    return isinstance(error, OperationalError | InterfaceError | TimeoutError)


def reason_of(error: Exception) -> str:
    """What the database said, in one line without the statement."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(said).partition("\n")[0].rstrip(".")
