"""Deletions on their way, and what stands against them.

Who begins a deletion holds the row of the image alone and looks for instances that run; who records
a start holds it too, by his reference to it, and looks for deletions. So of both at once the later
one sees the other. A deletion is on its way from before the registry is asked until the outcome is
noted; one that nobody notes the outcome of (its process was killed) counts no more after a while.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, insert, or_, select

from related_images.db import orphans, relations
from related_images.db.row_ids import project_ref
from related_images.db.tables import (
    deletion,
    image,
    installation,
    instance,
    relation,
)
from related_images.model import BOOT, Seen

LEASE: Final = timedelta(minutes=10)
"""How long a deletion of which nothing more is heard keeps instances from being started."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion on its way."""

    ref: int
    image_ref: int


@dataclass(frozen=True, slots=True)
class Use:
    """The live instances that were started from an image: all, those that are seen, the first."""

    count: int
    seen: int
    first: Collection[tuple[str, str]]


def begin(
    connection: Connection, image_id: str, at: datetime, seen: Seen | None = None
) -> Deletion:
    """Note that Glance is about to be asked to delete the image, which no start can pass.

    :param seen: the image as Glance has it, if it was asked: what is recorded of another image that
        had the ID before does not count
    """
    image_ref = relations.hold_image(connection, image_id, seen, at)
    connection.execute(delete(deletion).where(deletion.c.begun_at < at - LEASE))
    added = insert(deletion).values(image_ref=image_ref, begun_at=at)
    made: Any = connection.execute(added).inserted_primary_key
    return Deletion(int(made[0]), image_ref)


def end(connection: Connection, begun: Deletion) -> None:
    """Note that the deletion is no longer on its way."""
    connection.execute(delete(deletion).where(deletion.c.id == begun.ref))


def withdraw(connection: Connection, begun: Deletion) -> None:
    """Note that it came to nothing, and forget an image that is known by it alone."""
    end(connection, begun)
    orphans.forget_image(connection, begun.image_ref)


def use(connection: Connection, image_ref: int, visible_to: str | None, most: int) -> Use:
    """What live instances were started from the image, ``most`` of them by name."""
    live = (
        relation.c.image_ref == image_ref,
        relation.c.kind == BOOT,
        instance.c.ended_at.is_(None),
    )
    seen = _seen(visible_to)
    count = connection.execute(_of_live(func.count()).where(*live)).scalar_one()
    if not count:
        return Use(0, 0, ())
    named = _of_live(installation.c.uuid, instance.c.instance_id).where(*live, *seen)
    first = connection.execute(named.order_by(relation.c.id).limit(most)).all()
    visible = connection.execute(_of_live(func.count()).where(*live, *seen)).scalar_one()
    return Use(count, visible, [(uuid, id) for uuid, id in first])


def _of_live(*columns: Any) -> Select[Any]:
    return select(*columns).select_from(
        relation.join(instance, relation.c.instance_ref == instance.c.id).join(
            installation, instance.c.installation_ref == installation.c.id
        )
    )


def is_on_its_way(connection: Connection, image_ref: int, at: datetime) -> bool:
    """Whether a deletion of the image is on its way."""
    others = deletion.c.image_ref == image_ref, deletion.c.begun_at >= at - LEASE
    return bool(connection.execute(select(exists().where(*others))).scalar())


def is_marked(connection: Connection, image_ref: int) -> bool:
    """Whether the image is marked deleted."""
    marked = select(image.c.deleted_at).where(image.c.id == image_ref)
    return connection.execute(marked).scalar() is not None


def _seen(visible_to: str | None) -> list[ColumnElement[bool]]:
    """What the start of an instance must fulfil for the project to be told of it."""
    if visible_to is None:
        return []
    own = project_ref(visible_to)
    return [or_(relation.c.project_ref == own, instance.c.project_ref == own)]
