"""The parent of each image, in the table :data:`related_images.db.tables.descent`.

The parent of an image is the image from which its instance was last started before the image was
made; if no such start is recorded, it is the image of the first start. The links are derived from
the relations. They are stored when a relation is recorded or removed, so that the cost of a query
grows with its result.

A transaction that records an image shares a lock on the row of the instance, through its foreign
key. A transaction that records a start locks that row exclusively. So the later of two concurrent
transactions sees the changes of the other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    case,
    delete,
    insert,
    select,
    union_all,
    update,
)

from related_images.db.tables import (
    descent,
    instance,
    rebuild,
    relation,
)
from related_images.model import BOOT, MADE_FROM, NOTIFICATION, NewRelation, Recorded

TIMELY: Final = NOTIFICATION
"""The source that reports the time of a start; other sources report a start at a later time."""


@dataclass(frozen=True, order=True, slots=True)
class Start:
    """A start of an instance from an image; starts sort by time."""

    at: datetime
    relation_ref: int
    image_ref: int


_INSTANCE: Final = bindparam("instance", type_=relation.c.instance_ref.type)
_is_boot: Final = (relation.c.instance_ref == _INSTANCE) & (relation.c.kind == BOOT)
_starts: Final = union_all(
    select(relation.c.created_at, relation.c.id, relation.c.image_ref).where(_is_boot),
    select(rebuild.c.started_at, relation.c.id, relation.c.image_ref)
    .join_from(rebuild, relation, rebuild.c.relation_ref == relation.c.id)
    .where(_is_boot),
)
_viewer: Final = case((relation.c.project_ref == instance.c.project_ref, relation.c.project_ref))
"""The project that owns both the image and the instance, and so sees the link; else null."""
_with_instance: Final = relation.join(instance, instance.c.id == relation.c.instance_ref)
_made: Final[Select[Any]] = (
    select(
        relation.c.id,
        relation.c.image_ref,
        _viewer.label("project_ref"),
        relation.c.kind,
        relation.c.created_at,
    )
    .select_from(_with_instance)
    .where(relation.c.instance_ref == _INSTANCE, relation.c.kind.in_(MADE_FROM))
)
_instance_locked: Final = (
    select(instance.c.project_ref).where(instance.c.id == _INSTANCE).with_for_update()
)
_delete_links: Final = delete(descent).where(
    descent.c.relation_ref.in_(
        select(relation.c.id).where(
            relation.c.instance_ref == _INSTANCE, relation.c.kind.in_(MADE_FROM)
        )
    )
)


def in_force(starts: Sequence[Start], at: datetime) -> Start | None:
    """Return the last of the ``starts`` up to the time ``at``, or else the first start."""
    before = [start for start in starts if start.at <= at]
    return max(before) if before else min(starts, default=None)


def is_rebuild(starts: Sequence[Start], start: Start, source: str) -> bool:
    """Return whether ``start`` is a rebuild, if the instance was started from its image before.

    If the source reports the time of its report instead, it is a rebuild only if the instance was
    started from another image in between.

    :param starts: the other starts of the instance
    """
    before = in_force(starts, start.at)
    return source == TIMELY or (before is not None and before.image_ref != start.image_ref)


def lock_instance(connection: Connection, instance_ref: int) -> int | None:
    """Lock the row of the instance exclusively until the transaction ends.

    :returns: the primary key of the project that owns the instance, if that is known
    """
    return connection.execute(_instance_locked, {"instance": instance_ref}).scalar()


def follow(connection: Connection, new: NewRelation, recorded: Recorded) -> None:
    """Update the links after the relation ``new`` was recorded in this transaction."""
    if new.kind == BOOT:
        if recorded.created or _record_rebuild(connection, new, recorded):
            refresh(connection, recorded.instance_ref)
    elif recorded.created and not recorded.instance_created:
        _insert_links(
            connection, recorded.instance_ref, _made.where(relation.c.id == recorded.relation_ref)
        )


def refresh(connection: Connection, instance_ref: int) -> None:
    """Compute the links of all images of an instance again."""
    connection.execute(_delete_links, {"instance": instance_ref})
    _insert_links(connection, instance_ref, _made)


def review(connection: Connection, relations: ColumnElement[bool]) -> None:
    """Update who sees the links of the relations that match, after an owner changed."""
    refs = select(relation.c.id).where(relations, relation.c.kind.in_(MADE_FROM))
    viewer = select(_viewer).select_from(_with_instance)
    own = viewer.where(relation.c.id == descent.c.relation_ref).correlate(descent)
    links = update(descent).where(descent.c.relation_ref.in_(refs))
    connection.execute(links.values(project_ref=own.scalar_subquery()))


def _record_rebuild(connection: Connection, new: NewRelation, recorded: Recorded) -> bool:
    """Record a rebuild if a recorded start is reported again with another time.

    :returns: whether a rebuild was recorded
    """
    starts = starts_of(connection, recorded.instance_ref)
    start = Start(new.created_at, recorded.relation_ref, recorded.image_ref)
    if start in starts or not is_rebuild(starts, start, new.source):
        return False
    values = {"relation_ref": recorded.relation_ref, "started_at": new.created_at}
    connection.execute(insert(rebuild), values)
    return True


def _insert_links(connection: Connection, instance_ref: int, made: Select[Any]) -> None:
    starts = starts_of(connection, instance_ref)
    if not starts:
        return
    found = connection.execute(made, {"instance": instance_ref}).all()
    rows = [_row(image, in_force(starts, image.created_at)) for image in found]
    if rows:
        connection.execute(insert(descent), rows)


def starts_of(connection: Connection, instance_ref: int) -> list[Start]:
    """Return the starts of the instance, rebuilds included."""
    return [Start(*row) for row in connection.execute(_starts, {"instance": instance_ref})]


def _row(image: Any, start: Start | None) -> dict[str, Any]:
    return {
        "relation_ref": image.id,
        "image_ref": image.image_ref,
        "parent_ref": start and start.image_ref,
        "project_ref": image.project_ref,
        "kind": image.kind,
    }
