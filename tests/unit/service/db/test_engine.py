"""Transactions on SQLite: no update is lost, readers do not write, only the scope commits."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from service.db.engine import DatabaseError, build_engine, session_scope
from service.db.models import Device
from service.errors import StorageError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker

    from service.settings import Settings

INCREMENTS = 25


def increment(factory: sessionmaker[Session], times: int) -> None:
    for _ in range(times):
        with session_scope(factory) as session:
            device = session.get_one(Device, "counter")
            device.profile = {"n": device.profile["n"] + 1}


@pytest.fixture
def counter(factory: sessionmaker[Session]) -> str:
    with session_scope(factory) as session:
        session.add(Device(device_id="counter", profile={"n": 0}))
    return "counter"


def read_counter(factory: sessionmaker[Session]) -> int:
    with session_scope(factory, write=False) as session:
        return int(session.get_one(Device, "counter").profile["n"])


def test_threads_lose_no_update(factory, counter):
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(increment, factory, INCREMENTS) for _ in range(6)]:
            done.result()
    assert read_counter(factory) == 6 * INCREMENTS


_PROCESS = """
import sys
from service.db.engine import build_engine, session_factory, session_scope
from service.db.models import Device
from service.settings import Settings

factory = session_factory(build_engine(Settings(data_dir=sys.argv[1])))
for _ in range(int(sys.argv[2])):
    with session_scope(factory) as session:
        device = session.get_one(Device, "counter")
        device.profile = {"n": device.profile["n"] + 1}
"""


def test_processes_lose_no_update(factory, counter, settings: Settings):
    command = [sys.executable, "-c", _PROCESS, str(settings.data_dir), str(INCREMENTS)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert read_counter(factory) == 2 * INCREMENTS


def test_an_error_rolls_everything_back(factory):
    def insert_and_raise() -> None:
        with session_scope(factory) as session:
            session.add(Device(device_id="d", profile={}))
            session.flush()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        insert_and_raise()
    with session_scope(factory, write=False) as session:
        assert session.get(Device, "d") is None


def test_a_reading_transaction_cannot_write(factory):
    def insert(*, write: bool) -> None:
        with session_scope(factory, write=write) as session:
            session.add(Device(device_id="d", profile={}))

    with pytest.raises(DatabaseError, match="readonly"):
        insert(write=False)
    # The connection goes back to the pool and writes again.
    insert(write=True)


def test_readers_do_not_wait_for_a_writer(factory, counter):
    with session_scope(factory) as writer:
        writer.get_one(Device, "counter").profile = {"n": 7}
        writer.flush()
        assert read_counter(factory) == 0
    assert read_counter(factory) == 7


def test_objects_stay_readable_after_the_commit(factory):
    with session_scope(factory) as session:
        device = Device(device_id="d", profile={"a": 1})
        session.add(device)
    assert device.profile == {"a": 1}


@pytest.mark.parametrize(
    ("pragma", "expected"),
    [("journal_mode", "wal"), ("synchronous", 1), ("busy_timeout", 10_000), ("foreign_keys", 1)],
)
def test_connections_are_set_up(engine: Engine, pragma: str, expected: object):
    with engine.connect() as connection:
        assert connection.execute(text(f"PRAGMA {pragma}")).scalar_one() == expected


@pytest.mark.parametrize(
    "url",
    [
        "nonsense with secret",
        "oracle://u:secret@host/x",
        "nonsense://u:secret@host/x",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+nodriver://u:secret@host/x",
        "sqlite+pysqlcipher:///secret",
    ],
)
def test_a_database_the_service_cannot_use_is_refused_without_its_password(settings: Settings, url: str) -> None:
    with pytest.raises(
        StorageError, match=r"TAILOR_DATABASE_URL .* Allowed are sqlite:////folder/file\.sqlite"
    ) as caught:
        build_engine(settings.model_copy(update={"database_url": url}))
    assert "secret" not in str(caught.value)


def test_a_new_database_that_is_locked_is_waited_for(settings: Settings) -> None:
    settings.data_dir.mkdir()
    with closing(sqlite3.connect(settings.data_dir / "tailor.sqlite", check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.rollback).start()
        engine = build_engine(settings)
        with engine.connect() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        engine.dispose()
