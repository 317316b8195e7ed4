"""Forgetting: relations of images deleted long ago, and what is left without any relation.

Lineage is forgotten from its ends. An image that an instance was started from keeps its place for
as long as that instance lives or has an image itself, since what is below is found only through it:
its ``boot`` relation goes when the instance has ended and no image was made from it that is still
known, and its other relations go when no ``boot`` relation of it is left.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
)

from related_images.store.database import Database
from related_images.store.lookups import BOOT, MADE_FROM
from related_images.store.rows import Purged
from related_images.store.tables import deletion, image, instance, relation

BATCH: Final = 1000
"""How many relations one transaction removes at the most, and how many row numbers it looks at."""

_BEFORE: Final = bindparam("before", type_=image.c.deleted_at.type)


def _has_relation(column: Any, ref: Any, kinds: tuple[str, ...]) -> ColumnElement[bool]:
    other = relation.alias()
    return exists().where(other.c[column.name] == ref, other.c.kind.in_(kinds))


def _due(column: Any) -> Select[Any]:
    """Relations that nothing else stands on."""
    is_boot = relation.c.kind == BOOT
    has_made = _has_relation(relation.c.instance_ref, instance.c.id, MADE_FROM)
    has_started = _has_relation(relation.c.image_ref, image.c.id, (BOOT,))
    joined = image.join(relation, relation.c.image_ref == image.c.id).join(
        instance, relation.c.instance_ref == instance.c.id
    )
    return (
        select(column)
        .select_from(joined)
        .where(image.c.deleted_at < _BEFORE)
        .where(
            or_(
                and_(is_boot, instance.c.ended_at < _BEFORE, ~has_made),
                and_(~is_boot, ~has_started),
            )
        )
    )


# locked, so that an image which comes back at the same moment keeps its relations
_next: Final = _due(relation.c.id).limit(BATCH).with_for_update(of=[image, relation])
_unrelated_image: Final = and_(
    ~exists().where(relation.c.image_ref == image.c.id),
    # one that is being deleted, or was lately, is kept, so that no instance is started from it
    ~exists().where(deletion.c.image_ref == image.c.id),
    or_(image.c.deleted_at.is_(None), image.c.deleted_at < _BEFORE),
)
_unrelated_instance: Final = and_(
    # one that ended lately is kept: news of its last images may still be on the way
    instance.c.ended_at < _BEFORE,
    ~exists().where(relation.c.instance_ref == instance.c.id),
)


def due(connection: Connection, before: datetime) -> Purged:
    """What can be forgotten at once; more may follow when that is gone."""
    at = {"before": before}
    images = select(func.count()).select_from(image).where(_unrelated_image)
    instances = select(func.count()).select_from(instance).where(_unrelated_instance)
    return Purged(
        relations=connection.execute(_due(func.count(relation.c.id)), at).scalar_one(),
        images=connection.execute(images, at).scalar_one(),
        instances=connection.execute(instances, at).scalar_one(),
    )


def purge(database: Database, before: datetime) -> Purged:
    """Forget what was deleted and what has ended before that time, in many small transactions.

    :raises StoreUnavailable: if the database fails on the way; what went until then is gone, and
        running it again goes on
    """
    relations = sum(iter(lambda: database.write(forget_relations, before), 0))
    images = instances = 0
    for first in range(0, database.read(_highest) + 1, BATCH):
        gone = database.write(_forget_unrelated, before, first, first + BATCH - 1)
        images, instances = images + gone.images, instances + gone.instances
    return Purged(relations, images, instances)


def forget_relations(connection: Connection, before: datetime) -> int:
    refs = connection.execute(_next, {"before": before}).scalars().all()
    connection.execute(delete(relation).where(relation.c.id.in_(refs)))
    return len(refs)


def _highest(connection: Connection) -> int:
    highest = [select(func.max(table.c.id)).scalar_subquery() for table in (image, instance)]
    return max(number or 0 for number in connection.execute(select(*highest)).one())


def _forget_unrelated(connection: Connection, before: datetime, first: int, last: int) -> Purged:
    images = delete(image).where(image.c.id.between(first, last), _unrelated_image)
    instances = delete(instance).where(instance.c.id.between(first, last), _unrelated_instance)
    return Purged(
        images=connection.execute(images, {"before": before}).rowcount,
        instances=connection.execute(instances, {"before": before}).rowcount,
    )
