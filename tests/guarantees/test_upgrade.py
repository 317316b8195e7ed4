"""Upgrades and downgrades of each revision with data, and with a previous version that writes."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.engine import make_url

from related_images import failpoints
from related_images.db import (
    dialects,
    recording,
    relation_queries,
    schema,
    tables,
)
from related_images.db.database import Database
from related_images.failpoints import Point
from related_images.model import Filters
from tests.guarantees.reconciling import INSTALLATION
from tests.guarantees.upgrading import BEGIN, columns_of, numbers, write

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("before", "after"), pairwise(schema.REVISIONS))
def test_data_survives_an_upgrade_and_a_downgrade(
    database_url: str, before: str, after: str
) -> None:
    schema.upgrade(database_url, before)
    with schema.connected(database_url) as connection:
        known = columns_of(connection)
    write(database_url, 1, 2, known=known)
    schema.upgrade(database_url, after)
    write(database_url, 3, known=known)
    assert numbers(database_url) == [1, 2, 3]
    schema.downgrade(database_url, before)
    write(database_url, 4, known=known)
    schema.upgrade(database_url)
    assert numbers(database_url) == [1, 2, 3, 4]
    with schema.connected(database_url) as connection:
        schema.verify(connection)
        assert schema.differences(connection) == []
    database = Database(database_url, 20)
    assert len(database.read(relation_queries.find, Filters(), 10)) == 4
    database.close()


@pytest.mark.parametrize(("before", "after"), pairwise(schema.REVISIONS))
def test_the_previous_version_of_the_filter_still_works(
    database_url: str, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    schema.upgrade(database_url, after)
    until_before = schema.REVISIONS[: schema.REVISIONS.index(after)]
    monkeypatch.setattr(schema, "REVISIONS", until_before)
    database = Database(database_url, 20)
    # columns that exist in each version
    assert database.read(recording._knows_image, INSTALLATION) is False
    database.close()


def filled(url: str) -> tuple[int, object]:
    """Return the number of parent links, and the time of the latest snapshot."""
    with schema.connected(url) as connection:
        descents = connection.execute(select(tables.descent.c.relation_ref)).all()
        latest = connection.execute(select(tables.instance.c.latest_snapshot_at)).scalar_one()
    return len(descents), latest


def test_what_was_recorded_before_is_filled_in_range_by_range(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[Point] = []
    schema.upgrade(database_url, schema.REVISIONS[0])
    write(database_url, *range(1, 8))
    monkeypatch.setattr("related_images.migrations.ranges.STEP", 3)
    monkeypatch.setattr(failpoints, "hook", reached.append)
    schema.upgrade(database_url)
    assert filled(database_url) == (6, BEGIN + timedelta(hours=7))
    # seven relations are three ranges, filled three times; one instance is one range
    assert reached.count(Point.MIGRATE_FILLED) == 10


IMPATIENT = dict.fromkeys(dialects.MYSQL, "SET innodb_lock_wait_timeout = 1") | {
    "postgresql": "SET lock_timeout = '1s'",
    "sqlite": "PRAGMA busy_timeout = 1000",
}


def test_nobody_waits_for_an_upgrade_that_fills_in(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(point: Point) -> None:
        if point is Point.MIGRATE_FILLED:
            with schema.connected(database_url) as connection:
                connection.execute(text(IMPATIENT[connection.dialect.name]))
                connection.execute(update(tables.instance).values(ended_at=BEGIN))
                connection.execute(update(tables.image).values(deleted_at=None))
                connection.rollback()
            looked.append(point)

    looked: list[Point] = []
    schema.upgrade(database_url, schema.REVISIONS[0])
    write(database_url, 1, 2)
    monkeypatch.setattr(failpoints, "hook", look)
    schema.upgrade(database_url)
    assert len(looked) == 4


def test_the_former_condition_of_an_index_is_replaced(sqlite_url: str) -> None:
    name = "ix_related_relation_project_ref_kind_image_ref"
    schema.upgrade(sqlite_url, "0012")
    with schema.connected(sqlite_url) as connection:
        connection.execute(text(f"DROP INDEX {name}"))
        former = "related_relation (project_ref, kind, image_ref) WHERE kind > 0"
        connection.execute(text(f"CREATE INDEX {name} ON {former}"))
        connection.commit()
    schema.upgrade(sqlite_url)
    with schema.connected(sqlite_url) as connection:
        find = text("SELECT sql FROM sqlite_master WHERE name LIKE '%kind_image_ref'")
        found = connection.execute(find).scalars().all()
    assert [sql.partition(" WHERE ")[2] for sql in found] == ["kind + 0 > 0"] * 2


def test_other_writers_of_sqlite_get_their_turn_between_two_indexes(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is free for longer than a waiting process sleeps between two attempts."""
    pauses: list[float] = []

    def write_during(pause: float) -> None:
        with closing(sqlite3.connect(str(make_url(sqlite_url).database), timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.rollback()
        pauses.append(pause)

    schema.upgrade(sqlite_url, "0010")
    monkeypatch.setattr("related_images.migrations.ranges.time.sleep", write_during)
    schema.upgrade(sqlite_url)
    assert len(pauses) == 2
    assert min(pauses) > 0.1
