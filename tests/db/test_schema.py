"""The schema: creation, checks, concurrent upgrades, removal, tables of others."""

import multiprocessing
import sqlite3
from contextlib import closing
from threading import Timer
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from related_images.db import dialects, schema
from related_images.db.database import Database
from related_images.db.tables import metadata
from related_images.errors import (
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
    StoreUnavailable,
)
from tests import servers
from tests.db import server_failures
from tests.db.samples import new, record, shown


def execute(url: str, *statements: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def tables(url: str) -> set[str]:
    return set(inspect(create_engine(url, poolclass=NullPool)).get_table_names())


def version(url: str) -> str | None:
    with schema.connected(url) as connection:
        return schema.version(connection)


def differences(url: str) -> list[str]:
    with schema.connected(url) as connection:
        return schema.differences(connection)


def verify(url: str) -> None:
    with schema.connected(url) as connection:
        schema.verify(connection)


def test_migrations_create_the_tables_that_the_program_needs(url: str) -> None:
    assert differences(url) == []
    assert version(url) == schema.REVISIONS[-1]
    verify(url)


def test_every_revision_is_known() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory("migrations")
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(schema.REVISIONS)


def test_a_downgrade_keeps_tables_of_others(database_url: str) -> None:
    execute(database_url, "CREATE TABLE images (id INTEGER)", "INSERT INTO images VALUES (1)")
    schema.upgrade(database_url)
    assert tables(database_url) == {"images", schema.VERSION_TABLE, *metadata.tables}
    schema.downgrade(database_url, "base")
    ours = {name for name in tables(database_url) if name.startswith(schema.PREFIX)}
    assert ours == {schema.VERSION_TABLE}
    assert "images" in tables(database_url)
    assert version(database_url) is None
    schema.upgrade(database_url)
    assert differences(database_url) == []


def test_a_second_upgrade_keeps_the_data(url: str) -> None:
    database, wanted = Database(url, 10.0), new()
    record(database, wanted)
    schema.upgrade(url)
    assert shown(database) == [wanted.image_id]
    database.close()


def test_an_interrupted_upgrade_is_completed_by_the_next(url: str) -> None:
    execute(url, "DELETE FROM related_alembic_version", "DROP TABLE related_state")
    schema.upgrade(url)
    assert differences(url) == []


def test_several_may_upgrade_at_once(database_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(schema.upgrade, [database_url] * 4, chunksize=1)
    assert differences(database_url) == []
    assert version(database_url) == schema.REVISIONS[-1]


def test_an_index_whose_concurrent_build_was_interrupted_is_built_again(
    postgresql: servers.DatabaseServer,
) -> None:
    url = postgresql.create()
    schema.upgrade(url)
    invalid = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"
    index = "indexrelid = 'ix_related_relation_kind_image_ref'::regclass"
    execute(url, f"UPDATE pg_index SET indisvalid = false WHERE {index}")  # noqa: S608
    assert server_failures.run(url, invalid) == ["ix_related_relation_kind_image_ref"]
    execute(url, "UPDATE related_alembic_version SET version_num = '0010'")
    schema.upgrade(url)
    assert server_failures.run(url, invalid) == []
    assert differences(url) == []


def test_an_upgrade_waits_for_concurrent_writes(sqlite_url: str) -> None:
    """SQLite refuses at once to change the journal mode while another connection writes."""
    file = make_url(sqlite_url).database
    assert file
    with closing(sqlite3.connect(file, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        Timer(0.5, other.rollback).start()
        schema.upgrade(sqlite_url)
    assert differences(sqlite_url) == []


def test_missing_tables_are_reported(database_url: str) -> None:
    execute(database_url, "CREATE TABLE images (id INTEGER)")
    assert version(database_url) is None
    with pytest.raises(SchemaMissing, match="db upgrade"):
        verify(database_url)


def test_an_older_schema_is_reported(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))
    with pytest.raises(SchemaOutdated, match="db upgrade"):
        verify(url)


def test_a_newer_schema_is_reported_and_not_changed(url: str) -> None:
    execute(url, "UPDATE related_alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="install the version"):
        verify(url)
    with pytest.raises(SchemaTooNew, match="install the version"):
        schema.upgrade(url)
    assert version(url) == "9999"


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        ("DROP TABLE related_state", "missing: table related_state"),
        (
            "ALTER TABLE related_relation ADD COLUMN extra INTEGER",
            "additional: column extra of related_relation",
        ),
        (
            "CREATE INDEX ix_extra ON related_relation (label)",
            "additional: index ix_extra of related_relation",
        ),
    ],
)
def test_a_difference_is_reported(url: str, statement: str, difference: str) -> None:
    execute(url, statement)
    assert differences(url) == [difference]


def test_a_missing_index_is_reported(url: str) -> None:
    name = "ix_related_relation_created_at"
    on_table = " ON related_relation" if url.startswith("mysql") else ""
    execute(url, f"DROP INDEX {name}{on_table}")
    assert differences(url) == [f"missing: index {name} of related_relation"]


def test_an_upgrade_waits_for_another_upgrade(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialects, "LONGEST_TURN", 0)
    with schema._only_upgrade(schema._engine(database_url)):
        with pytest.raises(StoreUnavailable, match="another upgrade"):
            schema.upgrade(database_url)
        assert tables(database_url) == set()
    schema.upgrade(database_url)
    assert differences(database_url) == []


def refusing_named_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse named locks as Percona XtraDB Cluster does, which the tests do not install."""
    execute = Cursor.execute

    def refuse(cursor: Cursor, query: str, args: Any = None) -> Any:
        if "_LOCK(" in query:
            raise pymysql.err.OperationalError(
                1105, "Percona-XtraDB-Cluster prohibits use of GET_LOCK with pxc_strict_mode"
            )
        return execute(cursor, query, args)

    monkeypatch.setattr(Cursor, "execute", refuse)


def test_a_server_without_named_locks_is_upgraded(
    mariadb: servers.DatabaseServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = mariadb.create()
    refusing_named_locks(monkeypatch)
    schema.upgrade(url)
    assert differences(url) == []
    assert "1105: Percona" in caplog.text
    assert "make sure that only one upgrade runs" in caplog.text


def test_a_command_limits_its_statements(server_url: str) -> None:
    asked = {
        "postgresql": "SHOW statement_timeout",
        "mysql": "SELECT @@SESSION.innodb_lock_wait_timeout",
    }
    with schema.connected(server_url) as connection:
        limit = connection.execute(text(asked[connection.dialect.name])).scalar()
    assert limit in ("1min", int(schema.LONGEST_STATEMENT))
