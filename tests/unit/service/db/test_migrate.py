"""Migrations equal the models, leave the queue's tables alone and may run at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from service.db import migrate
from service.db.engine import build_engine
from service.db.migrate import check_current, upgrade
from service.db.migrations.scope import include_name
from service.db.models import Base
from service.errors import StorageError

OPTIONS = {"include_name": include_name, "render_as_batch": True, "compare_server_default": True}


def differences(engine, options):
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": Base.metadata, **options})
        return compare_metadata(context, Base.metadata)


def constraints(engine):
    """Names of CHECK constraints per table, which `compare_metadata` does not look at."""
    inspector = inspect(engine)
    return {
        table: {check["name"] for check in inspector.get_check_constraints(table)} for table in Base.metadata.tables
    }


def test_migrations_equal_the_models(engine, tmp_path):
    assert differences(engine, OPTIONS) == []
    plain = build_engine(migrate_settings(tmp_path))
    Base.metadata.create_all(plain)
    try:
        assert constraints(engine) == constraints(plain)
    finally:
        plain.dispose()


def migrate_settings(tmp_path):
    from service.settings import Settings

    (tmp_path / "plain").mkdir()
    return Settings(data_dir=tmp_path / "plain")


def test_autogenerate_does_not_see_the_tables_of_the_queue(engine):
    tables = set(inspect(engine).get_table_names())
    assert "workflow_status" in tables
    unlimited = differences(engine, {})
    assert any(kind == "remove_table" and table.name == "workflow_status" for kind, table in removals(unlimited))
    assert differences(engine, OPTIONS) == []


def removals(changes):
    return [(change[0], change[1]) for change in changes if change[0] == "remove_table"]


def test_downgrade_removes_our_tables_only_and_upgrade_brings_them_back(engine, settings):
    with engine.begin() as connection:
        command.downgrade(migrate._config(connection), "base")
    tables = set(inspect(engine).get_table_names())
    assert not tables & set(Base.metadata.tables)
    assert "workflow_status" in tables
    with pytest.raises(StorageError, match="tailor db upgrade"):
        check_current(engine)
    upgrade(settings)
    check_current(engine)
    assert differences(engine, OPTIONS) == []


def test_a_second_upgrade_changes_nothing_and_keeps_the_data(engine, settings):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO devices VALUES ('d', '{}', '2026-01-01')"))
    upgrade(settings)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM devices")).scalar_one() == 1


def test_upgrades_may_run_at_the_same_time(settings):
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, settings) for _ in range(4)]:
            done.result()
    engine = build_engine(settings)
    check_current(engine)
    engine.dispose()


def test_a_database_without_tables_is_not_current(settings):
    settings.data_dir.mkdir()
    engine = build_engine(settings)
    with pytest.raises(StorageError, match="has schema none"):
        check_current(engine)
    engine.dispose()


def test_a_folder_that_cannot_be_made_is_named(settings):
    settings.data_dir.write_text("in the way")
    with pytest.raises(StorageError, match=r"data folder .* cannot be written"):
        upgrade(settings)


def test_a_file_that_is_no_database_is_named(settings):
    settings.data_dir.mkdir()
    (settings.data_dir / "tailor.sqlite").write_text("in the way, and long enough to be no header of SQLite" * 20)
    with pytest.raises(StorageError, match="cannot be brought to the newest schema") as caught:
        upgrade(settings)
    assert "file is not a database. Restore it from a backup, or move it away" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_database_is_named(engine, settings):
    path = settings.data_dir / "tailor.sqlite"
    engine.dispose()
    path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * 100_000)
    with pytest.raises(StorageError, match=r"database disk image is malformed\. Restore it from a backup"):
        upgrade(settings)


def test_a_database_of_a_newer_version_is_left_alone(engine, settings):
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    for look in (lambda: upgrade(settings), lambda: check_current(engine)):
        with pytest.raises(StorageError, match=r"schema 0099, which this version does not know .* Update tailor-nas"):
            look()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0099"


def test_the_table_an_older_version_shipped_is_known_as_shipped(engine, settings):
    with engine.begin() as connection:
        command.downgrade(migrate._config(connection), "0001")
        for device, version in (("intel-xeon-processor-2c-1t", 1), ("intel-xeon-processor-2c-1t", 2), ("mine", 1)):
            row = {"device": device, "version": version}
            connection.execute(text("INSERT OR IGNORE INTO devices VALUES (:device, '{}', '2026-01-01')"), row)
            insert = (
                "INSERT INTO latency_table_versions VALUES (:device, 'cifar_mbv3', :version, '{}', '', '2026-01-01')"
            )
            connection.execute(text(insert), row)
    upgrade(settings)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT device_id, version FROM latency_table_versions WHERE shipped")).all()
    assert [tuple(row) for row in rows] == [("intel-xeon-processor-2c-1t", 1)]
