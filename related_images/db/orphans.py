"""Remove the rows of images and instances to which no other row refers.

Each function takes a connection inside a transaction of its caller.
"""

from collections.abc import Collection
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select

from related_images.db.tables import (
    deletion,
    image,
    instance,
    origin,
    relation,
)

IMAGE: Final = and_(
    ~exists().where(relation.c.image_ref == image.c.id),
    # a recent deletion keeps the row, so that no start from the image can be recorded
    ~exists().where(deletion.c.image_ref == image.c.id),
)
"""The condition that no row refers to an image."""
INSTANCE: Final = and_(
    ~exists().where(relation.c.instance_ref == instance.c.id),
    # the uses and the parents of images are found through the source of each origin
    ~exists().where(origin.c.source_ref == instance.c.id),
)
"""The condition that no row refers to an instance, except for its own origins."""


def forget_image(connection: Connection, ref: int) -> None:
    """Remove the row of the image, unless another row refers to it or it is marked deleted.

    The mark must remain: a concurrent transaction may be about to record a start from the image.
    """
    forget_images(connection, and_(image.c.id == ref, image.c.deleted_at.is_(None)))


def forget_images(connection: Connection, which: ColumnElement[bool]) -> int:
    """Remove the rows of those images that match ``which`` and to which no row refers.

    A separate statement locks them first. After a wait for a lock, PostgreSQL does not evaluate
    subqueries of the condition again. So a single DELETE could remove an image to which a new
    pending deletion refers; the foreign key would remove the pending deletion too.

    :returns: the number of removed rows
    """
    condition = and_(which, IMAGE)
    locked = select(image.c.id).where(condition).with_for_update(of=image)
    refs = connection.execute(locked).scalars().all()
    if not refs:
        return 0
    return connection.execute(delete(image).where(image.c.id.in_(refs), condition)).rowcount


def forget_instances(
    connection: Connection, refs: Collection[int], *which: ColumnElement[bool]
) -> None:
    """Remove the rows of those instances that have not ended and to which no row refers.

    The row of an ended instance remains, because its start may be reported later. The row of an
    instance with an origin remains too.

    :param which: further conditions
    """
    if refs:
        has_origin = exists().where(origin.c.instance_ref == instance.c.id)
        is_live = and_(instance.c.id.in_(refs), instance.c.ended_at.is_(None), ~has_origin, *which)
        remove_instances(connection, and_(is_live, INSTANCE))


def remove_instances(connection: Connection, which: ColumnElement[bool]) -> int:
    """Remove the rows of those instances that match ``which``, with their own origins.

    A separate statement locks them first, as in :func:`forget_images`.

    :returns: the number of removed rows
    """
    locked = select(instance.c.id).where(which).with_for_update(of=instance)
    refs = connection.execute(locked).scalars().all()
    if not refs:
        return 0
    return connection.execute(delete(instance).where(instance.c.id.in_(refs), which)).rowcount
