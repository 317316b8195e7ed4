"""Bulk recording has the same result as single recording, whatever was recorded before."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from related_images.db import (
    backfill,
    relation_queries,
    relations,
)
from related_images.db.database import Database
from related_images.db.tables import (
    descent,
    image,
    instance,
    project,
    relation,
)
from related_images.model import BACKFILL, Filters, NewRelation
from tests.db.samples import (
    OTHER_NOVA,
    at,
    counts,
    empty,
    image_id,
    new,
    record,
    record_claims,
)

A, B, C, D, E, F = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(6))


def claim(instance_id: str, image: str, minutes: float = 0, **more: Any) -> NewRelation:
    given: dict[str, Any] = {"source": BACKFILL, "created_at": at(minutes)} | more
    return new(instance_id, image, **given)


def nothing(database: Database) -> None:
    """Nothing was recorded before."""


def known_instance(database: Database) -> None:
    record(database, new("vm-1", F, "backup", created_at=at(5)))


def started_instance(database: Database) -> None:
    record(database, new("vm-1", F, "boot", created_at=at(-5)))


def started_from_claimed(database: Database) -> None:
    record(database, new("vm-2", A, "boot", created_at=at(5)))


def deleted_image(database: Database) -> None:
    record(database, new("vm-2", A, created_at=at(-5)))
    database.write(relations.mark_deleted, A, at(1))


def same_names_elsewhere(database: Database) -> None:
    record(database, new("vm-1", A, created_at=at(-5), installation_uuid=OTHER_NOVA))


CLAIMS = [
    claim("vm-1", A, 3),
    claim("vm-1", B, 2, kind="backup", label="daily"),
    claim("vm-1", C, 1, kind="backup", project_id="p-2"),
    claim("vm-2", D, 7),
    claim("vm-2", E, 8, instance_project_id="p-3", project_id="p-3"),
]


def record_in_bulk(database: Database, *claims: NewRelation) -> None:
    database.write(record_claims, *claims)


_PARENT = image.alias()
_OF_DESCENT = (
    select(image.c.uuid, _PARENT.c.uuid, project.c.project_id, descent.c.kind)
    .select_from(descent.join(image, descent.c.image_ref == image.c.id))
    .join(_PARENT, descent.c.parent_ref == _PARENT.c.id)
    .outerjoin(project, descent.c.project_ref == project.c.id)
)
_OF_INSTANCES = select(
    instance.c.instance_id,
    instance.c.latest_snapshot_at,
    instance.c.latest_backup_at,
    project.c.project_id,
).outerjoin(project, instance.c.project_ref == project.c.id)
_CLAIMED = select(image.c.uuid, relation.c.kind, relation.c.claimed).join(
    image, relation.c.image_ref == image.c.id
)


def left(database: Database) -> list[set[Any]]:
    """Return what is recorded, by IDs and UUIDs."""
    asked = (_OF_DESCENT, _OF_INSTANCES, _CLAIMED)
    found = database.read(lambda connection: [set(connection.execute(one)) for one in asked])
    return [set(database.read(relation_queries.find, Filters(), 100)), *found]


@pytest.mark.parametrize(
    "prepare",
    [
        nothing,
        known_instance,
        started_instance,
        started_from_claimed,
        deleted_image,
        same_names_elsewhere,
    ],
)
def test_bulk_recording_equals_single_recording(
    database: Database, prepare: Callable[[Database], None]
) -> None:
    prepare(database)
    for one in CLAIMS:
        database.write(relations.record, one, relied_on=True)
    wanted = left(database)
    database.write(empty)
    prepare(database)
    record_in_bulk(database, *CLAIMS)
    assert left(database) == wanted


def test_bulk_recording_stores_parent_links(database: Database) -> None:
    started_instance(database)
    record_in_bulk(database, *CLAIMS)
    assert {(row[0], row[1]) for row in left(database)[1]} == {(A, F), (B, F), (C, F)}


@pytest.mark.parametrize("instance_id", ["vm-1", "vm-3"])
def test_bulk_recording_is_repeated_after_a_concurrent_recording(
    pair: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch, instance_id: str
) -> None:
    database, other = pair
    record(database, new("vm-9", project_id="p-1"))
    known, meanwhile = backfill._started, [claim(instance_id, C, 9, source="service")]

    def recorded_meanwhile(*given: Any) -> Any:
        if meanwhile:
            record(other, meanwhile.pop())
        return known(*given)

    monkeypatch.setattr(backfill, "_started", recorded_meanwhile)
    record_in_bulk(database, *CLAIMS)
    rows = database.read(relation_queries.find, Filters(image_id=C), 10)
    assert {(row.instance_id, row.kind) for row in rows} == {
        (instance_id, "snapshot"),
        ("vm-1", "backup"),
    }
    assert counts(database)["relation"] == len(CLAIMS) + 2
    (latest,) = [row for row in left(database)[2] if row.instance_id == instance_id]
    assert latest.latest_snapshot_at == at(9)


@pytest.mark.parametrize("known", [0, 50])
def test_bulk_recording_takes_few_statements(database: Database, known: int) -> None:
    record(database, *(new(f"vm-{n}", image_id()) for n in range(known)))
    asked: list[str] = []
    claims = [claim(f"vm-{n}", image_id()) for n in range(50)]

    def task(connection: Connection) -> int:
        before = _written(connection)
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2]))
        record_claims(connection, *claims)
        asked_for = len(asked)
        return max(asked_for, _written(connection) - before)

    assert database.write(task) <= 14


def _written(connection: Connection) -> int:
    """Return the number of writes that MariaDB received: a driver may send one for each row."""
    if connection.dialect.name != "mysql":
        return 0
    told = "SHOW SESSION STATUS WHERE Variable_name IN ('Com_insert', 'Com_update')"
    return sum(int(row[1]) for row in connection.exec_driver_sql(told))
