"""Relations that the tests of the database record, and what is stored."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, select

from related_images.db import (
    backfill,
    relation_queries,
    relations,
)
from related_images.db.database import Database
from related_images.db.tables import metadata
from related_images.model import MADE_FROM, Filters, InstanceRef, NewRelation, Recorded

NOVA = "6f0c3a3e-3f1c-4a53-9b0c-0d5a6c1f2e01"
OTHER_NOVA = "6f0c3a3e-3f1c-4a53-9b0c-0d5a6c1f2e02"
NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def server(instance_id: str, installation: str = NOVA) -> InstanceRef:
    """Return the name of a server."""
    return InstanceRef(installation, instance_id)


def of(ref: InstanceRef) -> Filters:
    """Return the filters for the relations of a resource."""
    return Filters(ref.installation_uuid, ref.instance_id, resource_type=ref.resource_type)


def at(minutes: float) -> datetime:
    """Return the time ``minutes`` after noon."""
    return NOON + timedelta(minutes=minutes)


def image_id() -> str:
    return str(uuid4())


def new(
    instance_id: str = "vm-1",
    image: str | None = None,
    kind: str = "snapshot",
    *,
    installation_uuid: str = NOVA,
    resource_type: str = "server",
    **more: Any,
) -> NewRelation:
    given: dict[str, Any] = {
        "instance": InstanceRef(installation_uuid, instance_id, resource_type),
        "image_id": image or image_id(),
        "kind": kind,
        "label": None,
        "source": "service",
        "project_id": "p-1",
        "created_at": NOON,
    }
    return NewRelation(**(given | more))


def record(database: Database, *relations_: NewRelation) -> list[Recorded]:
    return [database.write(relations.record, one) for one in relations_]


def record_claims(connection: Connection, *claims: NewRelation) -> None:
    """Record relations of :data:`NOVA` in bulk, as a backfill does."""
    images = {one.image_id for one in claims}
    instances = {one.instance.instance_id for one in claims}
    backfill._record_claims(connection, backfill._lock(connection, NOVA, images, instances), claims)


def shown(
    database: Database,
    instance_id: str = "vm-1",
    *,
    kinds: Collection[str] = MADE_FROM,
    limit: int = 100,
    or_unlabelled: bool = False,
    **more: Any,
) -> list[str]:
    """Return the image IDs of an instance in an image list."""
    filters = replace(of(server(instance_id)), **more)
    found, _ = database.read(
        relation_queries.images, filters, kinds, limit, or_unlabelled=or_unlabelled
    )
    return sorted(image.image_id for image in found)


def found(database: Database, limit: int = 100, **filters: Any) -> list[tuple[str, str]]:
    """Return the instance and kind of each relation that matches."""
    rows = database.read(relation_queries.find, Filters(**filters), limit)
    return [(row.instance_id, row.kind) for row in rows]


def counts(database: Database) -> dict[str, int]:
    """Return the number of rows of each table that is not empty."""
    tables = metadata.tables.values()
    asked = select(*(select(func.count()).select_from(table).scalar_subquery() for table in tables))
    found = database.read(lambda connection: connection.execute(asked).one())
    names = (table.name.removeprefix("related_") for table in tables)
    return {name: number for name, number in zip(names, found, strict=True) if number}


def empty(connection: Connection) -> None:
    """Remove all rows of all tables."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(table.delete())
