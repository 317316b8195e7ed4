"""Forgetting: relations of images deleted long ago, and what is left without any relation.

Lineage is forgotten from its ends. An image that an instance was started from keeps its place for
as long as that instance lives or has an image itself, since what is below is found only through it:
its ``boot`` relation goes when the instance has ended and no image was made from it that is still
known, and its other relations go when no ``boot`` relation of it is left.
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
    relation,
)
from related_images.model import BOOT, MADE_FROM, Purged

BATCH: Final = 1000
"""How many rows of a table one transaction looks at."""

Forget = Callable[[Connection, datetime, int, int], int]
"""Forgets what was deleted or has ended before that time, in that range of row numbers."""


def _has_other(column: Any, kinds: tuple[str, ...]) -> ColumnElement[bool]:
    """Whether one of those kinds refers to the same row."""
    other = relation.alias()
    return exists().where(other.c[column.name] == column, other.c.kind.in_(kinds))


def _due(column: Any, before: datetime) -> Select[Any]:
    """Relations that nothing else stands on."""
    is_boot = relation.c.kind == BOOT
    # of a kind that this version does not know it cannot tell what stands on the relation
    is_made_from = relation.c.kind.in_(MADE_FROM)
    has_ended = exists().where(
        instance.c.id == relation.c.instance_ref, instance.c.ended_at < before
    )
    has_made = _has_other(relation.c.instance_ref, MADE_FROM)
    has_started = _has_other(relation.c.image_ref, (BOOT,))
    return (
        select(column)
        .select_from(image.join(relation, relation.c.image_ref == image.c.id))
        .where(image.c.deleted_at < before)
        .where(or_(and_(is_boot, has_ended, ~has_made), and_(is_made_from, ~has_started)))
    )


def _not_deleted_lately(before: datetime) -> ColumnElement[bool]:
    return or_(image.c.deleted_at.is_(None), image.c.deleted_at < before)


def _ended_unrelated(before: datetime) -> ColumnElement[bool]:
    # one that ended lately is kept: news of its last images may still be on the way
    return and_(instance.c.ended_at < before, orphans.INSTANCE)


def due(database: Database, before: datetime) -> Purged:
    """Count what can be forgotten at once; more may follow when that is gone.

    :raises StoreUnavailable: if the database cannot answer
    """
    return database.read(_count, before)


def _count(connection: Connection, before: datetime) -> Purged:
    count = select(func.count())
    images = count.select_from(image).where(_not_deleted_lately(before), orphans.IMAGE)
    instances = count.select_from(instance).where(_ended_unrelated(before))
    return Purged(
        relations=connection.execute(_due(func.count(relation.c.id), before)).scalar_one(),
        images=connection.execute(images).scalar_one(),
        instances=connection.execute(instances).scalar_one(),
    )


def purge(database: Database, before: datetime) -> Purged:
    """Forget what was deleted and what has ended before that time, in many small transactions.

    :raises StoreUnavailable: if the database fails on the way; what went until then is gone, and
        running it again goes on
    """
    return Purged(
        # what goes may have kept others in their places
        relations=sum(iter(lambda: _everywhere(database, relation, _forget_relations, before), 0)),
        images=_everywhere(database, image, _forget_images, before),
        instances=_everywhere(database, instance, _forget_instances, before),
    )


def _everywhere(database: Database, table: Table, forget: Forget, before: datetime) -> int:
    """Forget rows of the table, the latest first: a lineage ends with those."""
    gone = 0
    numbers = database.read(_highest_below, table, sys.maxsize)
    while numbers:
        gone += database.write(forget, before, numbers[-1], numbers[0])
        numbers = database.read(_highest_below, table, numbers[-1])
    return gone


def _highest_below(connection: Connection, table: Table, number: int) -> Sequence[int]:
    below = select(table.c.id).where(table.c.id < number)
    return connection.execute(below.order_by(table.c.id.desc()).limit(BATCH)).scalars().all()


def _forget_relations(connection: Connection, before: datetime, first: int, last: int) -> int:
    due = _due(relation.c.id, before).where(relation.c.id.between(first, last))
    # locked, so that an image which comes back at the same moment keeps its relations
    refs = connection.execute(due.with_for_update(of=[image, relation])).scalars().all()
    if refs:
        connection.execute(delete(relation).where(relation.c.id.in_(refs)))
    return len(refs)


def _forget_images(connection: Connection, before: datetime, first: int, last: int) -> int:
    some = image.c.id.between(first, last)
    return orphans.forget_images(connection, and_(some, _not_deleted_lately(before)))


def _forget_instances(connection: Connection, before: datetime, first: int, last: int) -> int:
    some = instance.c.id.between(first, last)
    return connection.execute(delete(instance).where(some, _ended_unrelated(before))).rowcount
