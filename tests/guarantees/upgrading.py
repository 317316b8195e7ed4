"""A database of any revision, and the rows that a filter of that revision writes."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Table, insert, inspect, select

from related_images.db import schema, tables
from tests.guarantees.reconciling import INSTALLATION

Columns = dict[str, set[str]]
TABLES = (tables.installation, tables.project, tables.instance, tables.image, tables.relation)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def columns_of(connection: Connection) -> Columns:
    """Return the columns of the tables in this revision."""
    found = inspect(connection)
    return {
        table.name: {column["name"] for column in found.get_columns(table.name)} for table in TABLES
    }


def rows(number: int) -> list[tuple[Table, dict[str, Any]]]:
    """Return the rows of a relation: a boot for the first number, a snapshot for the others."""
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


def write(url: str, *numbers: int, known: Columns | None = None) -> None:
    """Write these relations with the ``known`` columns, by default those of the revision."""
    with schema.connected(url) as connection:
        known = known or columns_of(connection)
        for table, row in (row for number in numbers for row in rows(number)):
            kept = {name: value for name, value in row.items() if name in known[table.name]}
            connection.execute(insert(table).values(kept))
        connection.commit()


def numbers(url: str) -> list[int]:
    with schema.connected(url) as connection:
        found = connection.execute(select(tables.relation.c.id).order_by(tables.relation.c.id))
        return list(found.scalars())
