"""Purge: remove the relations of images deleted long ago, and rows without any relation.

The lineage is removed from its leaves. The descendants of a deleted image are found only through
its relations. Therefore:

* a ``boot`` relation is removed when its instance has ended, no image of the instance is recorded,
  and no recorded instance comes from the instance;
* a ``snapshot`` or ``backup`` relation is removed when its image has no ``boot`` relation;
* a ``use`` relation is removed when its lease ended before, whether or not its image exists; the
  instance is removed with its last relation;
* an ended instance is removed, with its origins, when it has no relation and no recorded instance
  comes from it.
"""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
)

from related_images.db import (
    orphans,
)
from related_images.db.database import Database
from related_images.db.tables import (
    image,
    instance,
    lease,
    origin,
    relation,
)
from related_images.model import BOOT, MADE_FROM, Purged

BATCH: Final = 1000
"""The number of rows of a table that one transaction examines."""

Forget = Callable[[Connection, datetime, int, int], int]
"""Removes rows in a range of primary keys whose image was deleted, or whose instance ended, before
a time; returns the number of removed rows."""


def _has_other(column: Any, kinds: tuple[str, ...]) -> ColumnElement[bool]:
    """Return the condition that a relation of one of the ``kinds`` has the same ``column``."""
    other = relation.alias()
    return exists().where(other.c[column.name] == column, other.c.kind.in_(kinds))


def _due(column: Any, before: datetime) -> Select[Any]:
    """Return the query for the relations that can be removed now."""
    is_boot = relation.c.kind == BOOT
    # a relation of an unknown kind remains: this version does not know what depends on it
    is_made_from = relation.c.kind.in_(MADE_FROM)
    has_ended = exists().where(
        instance.c.id == relation.c.instance_ref, instance.c.ended_at < before
    )
    has_made = _has_other(relation.c.instance_ref, MADE_FROM)
    has_started = _has_other(relation.c.image_ref, (BOOT,))
    has_dependents = exists().where(origin.c.source_ref == relation.c.instance_ref)
    is_last_boot = and_(is_boot, has_ended, ~has_made, ~has_dependents)
    return (
        select(column)
        .select_from(image.join(relation, relation.c.image_ref == image.c.id))
        .where(image.c.deleted_at < before)
        .where(or_(is_last_boot, and_(is_made_from, ~has_started)))
    )


def _not_deleted_lately(before: datetime) -> ColumnElement[bool]:
    return or_(image.c.deleted_at.is_(None), image.c.deleted_at < before)


def _ended_unrelated(before: datetime) -> ColumnElement[bool]:
    # the row of a recently ended instance remains: its last images may be reported late
    return and_(instance.c.ended_at < before, orphans.INSTANCE)


def due(database: Database, before: datetime) -> Purged:
    """Count the rows that can be removed now; a purge may make more rows removable.

    :param before: images deleted, and instances and leases ended before this time can be removed
    :raises StoreUnavailable: if the database is unavailable
    """
    return database.read(_count, before)


def _count(connection: Connection, before: datetime) -> Purged:
    count = select(func.count())
    images = count.select_from(image).where(_not_deleted_lately(before), orphans.IMAGE)
    instances = count.select_from(instance).where(_ended_unrelated(before))
    relations, ended = (
        connection.execute(query).scalar_one()
        for query in (
            _due(func.count(relation.c.id), before),
            count.select_from(lease).where(lease.c.expires_at < before),
        )
    )
    return Purged(
        relations=relations + ended,
        images=connection.execute(images).scalar_one(),
        instances=connection.execute(instances).scalar_one(),
    )


def purge(database: Database, before: datetime) -> Purged:
    """Remove rows in many small transactions.

    :param before: images deleted, and instances and leases ended before this time are removed
    :returns: the numbers of removed rows
    :raises StoreUnavailable: if the database fails; rows removed until then stay removed, and the
        next purge continues
    """
    relations = sum(iter(lambda: database.write(_forget_leases, before), 0))
    instances = 0
    while True:
        relations += _all(database, relation, _forget_relations, before)
        removed = _all(database, instance, _forget_instances, before)
        instances += removed
        if not removed:
            break
    return Purged(relations, _everywhere(database, image, _forget_images, before), instances)


def _all(database: Database, table: Table, forget: Forget, before: datetime) -> int:
    """Apply ``forget`` until it removes no row: removed rows can make others removable."""
    return sum(iter(lambda: _everywhere(database, table, forget, before), 0))


def _everywhere(database: Database, table: Table, forget: Forget, before: datetime) -> int:
    """Apply ``forget`` to all rows of the table, latest first: leaves before their parents."""
    removed = 0
    refs = database.read(_highest_below, table, sys.maxsize)
    while refs:
        removed += database.write(forget, before, refs[-1], refs[0])
        refs = database.read(_highest_below, table, refs[-1])
    return removed


def _highest_below(connection: Connection, table: Table, ref: int) -> Sequence[int]:
    below = select(table.c.id).where(table.c.id < ref)
    return connection.execute(below.order_by(table.c.id.desc()).limit(BATCH)).scalars().all()


def _forget_relations(connection: Connection, before: datetime, first: int, last: int) -> int:
    due = _due(relation.c.id, before).where(relation.c.id.between(first, last))
    # the lock keeps the relations of an image that a concurrent transaction restores
    refs = connection.execute(due.with_for_update(of=[image, relation])).scalars().all()
    if refs:
        connection.execute(delete(relation).where(relation.c.id.in_(refs)))
    return len(refs)


def _forget_leases(connection: Connection, before: datetime) -> int:
    """Remove some leases that ended before a time; return their number."""
    ended = (
        select(relation.c.id, relation.c.instance_ref)
        .join(lease, lease.c.relation_ref == relation.c.id)
        .where(lease.c.expires_at < before)
        .order_by(lease.c.expires_at)
        .limit(BATCH)
    )
    # the lock keeps a lease that a concurrent transaction extends
    rows = connection.execute(ended.with_for_update(of=[relation, lease])).all()
    if rows:
        connection.execute(delete(relation).where(relation.c.id.in_([row.id for row in rows])))
        orphans.forget_instances(connection, {row.instance_ref for row in rows})
    return len(rows)


def _forget_images(connection: Connection, before: datetime, first: int, last: int) -> int:
    in_range = image.c.id.between(first, last)
    return orphans.forget_images(connection, and_(in_range, _not_deleted_lately(before)))


def _forget_instances(connection: Connection, before: datetime, first: int, last: int) -> int:
    in_range = instance.c.id.between(first, last)
    return orphans.remove_instances(connection, and_(in_range, _ended_unrelated(before)))
