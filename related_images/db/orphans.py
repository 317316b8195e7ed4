"""Forgetting images and instances that nothing refers to any more.

Each function takes a connection inside a transaction of its caller.
"""

from collections.abc import Collection
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select

from related_images.db.tables import (
    deletion,
    image,
    instance,
    relation,
)

IMAGE: Final = and_(
    ~exists().where(relation.c.image_ref == image.c.id),
    # one that is being deleted, or was lately, is kept, so that no instance is started from it
    ~exists().where(deletion.c.image_ref == image.c.id),
)
INSTANCE: Final = ~exists().where(relation.c.instance_ref == instance.c.id)


def forget_image(connection: Connection, ref: int) -> None:
    """Forget the image unless it is in anything still, or marked deleted.

    One that is marked is remembered: a start from it may be about to be recorded.
    """
    forget_images(connection, and_(image.c.id == ref, image.c.deleted_at.is_(None)))


def forget_images(connection: Connection, which: ColumnElement[bool]) -> int:
    """Forget those images that are in nothing any more, and say how many.

    They are locked by a statement of its own: PostgreSQL does not look again at the conditions of
    one that waited for a lock, and the row of an image takes its deletions with it.
    """
    chosen = and_(which, IMAGE)
    locked = select(image.c.id).where(chosen).with_for_update(of=image)
    refs = connection.execute(locked).scalars().all()
    if not refs:
        return 0
    return connection.execute(delete(image).where(image.c.id.in_(refs), chosen)).rowcount


def forget_instances(connection: Connection, refs: Collection[int]) -> None:
    """Forget those of the instances that are in nothing any more.

    That an instance has ended is remembered: its start may be told later.
    """
    if refs:
        live = instance.c.id.in_(refs), instance.c.ended_at.is_(None)
        connection.execute(delete(instance).where(*live, INSTANCE))
