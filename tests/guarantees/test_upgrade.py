"""Each revision forwards and back with data in it, the version before still writing."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Table, insert, inspect, select

from related_images.store import lookups, schema, tables
from related_images.store.database import Database
from related_images.store.rows import Filters
from tests.guarantees.reconciling import INSTALLATION

Columns = dict[str, set[str]]
TABLES = (tables.installation, tables.project, tables.instance, tables.image, tables.relation)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def columns_of(connection: Connection) -> Columns:
    """What the version that this schema is of knows of its tables."""
    found = inspect(connection)
    return {
        table.name: {column["name"] for column in found.get_columns(table.name)} for table in TABLES
    }


def rows(number: int) -> list[tuple[Table, dict[str, Any]]]:
    """A boot of an instance for the first number, a snapshot of it for every other one."""
    at = BEGIN + timedelta(hours=number)
    kind = "boot" if number == 1 else "snapshot"
    relation = {"id": number, "instance_ref": 1, "image_ref": number, "project_ref": 1}
    own: list[tuple[Table, dict[str, Any]]] = [
        (tables.image, {"id": number, "uuid": str(uuid4())}),
        (tables.relation, {**relation, "kind": kind, "source": "service", "created_at": at}),
    ]
    if number > 1:
        return own
    instance = {"id": 1, "installation_ref": 1, "instance_id": "i-1", "project_ref": 1}
    return [
        (tables.installation, {"id": 1, "uuid": INSTALLATION}),
        (tables.project, {"id": 1, "project_id": "demo"}),
        (tables.instance, instance),
        *own,
    ]


def write(url: str, number: int, known: Columns) -> None:
    """Write a relation with the columns that a version knows."""
    with schema.connected(url) as connection:
        for table, row in rows(number):
            kept = {name: value for name, value in row.items() if name in known[table.name]}
            connection.execute(insert(table).values(kept))
        connection.commit()


def numbers(url: str) -> list[int]:
    with schema.connected(url) as connection:
        found = connection.execute(select(tables.relation.c.id).order_by(tables.relation.c.id))
        return list(found.scalars())


@pytest.mark.parametrize(("before", "after"), pairwise(schema.REVISIONS))
def test_data_survives_the_way_forwards_and_back(
    database_url: str, before: str, after: str
) -> None:
    schema.upgrade(database_url, before)
    with schema.connected(database_url) as connection:
        known = columns_of(connection)
    write(database_url, 1, known)
    write(database_url, 2, known)
    schema.upgrade(database_url, after)
    write(database_url, 3, known)
    assert numbers(database_url) == [1, 2, 3]
    schema.downgrade(database_url, before)
    write(database_url, 4, known)
    schema.upgrade(database_url)
    assert numbers(database_url) == [1, 2, 3, 4]
    with schema.connected(database_url) as connection:
        schema.verify(connection)
        assert schema.differences(connection) == []
    database = Database(database_url, 20)
    assert len(database.read(lookups.relations, Filters(), 10)) == 4
    database.close()


@pytest.mark.parametrize(("before", "after"), pairwise(schema.REVISIONS))
def test_the_filter_of_the_version_before_serves_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    schema.upgrade(database_url, after)
    until_before = schema.REVISIONS[: schema.REVISIONS.index(after)]
    monkeypatch.setattr(schema, "REVISIONS", until_before)
    database = Database(database_url, 20)
    assert database.read(lookups.relations, Filters(), 10) == []
    database.close()
