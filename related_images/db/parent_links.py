"""From which image each image descends, kept at hand as relations come and go.

An image was made of an instance, and the instance ran an image: the last that it was started from
before, or where relations came late the first that is known. That follows from the relations alone;
it is written down when one is recorded, so that to ask costs as much as there is to answer.

Who records an image holds the row of its instance (by the reference to it) until he commits, and
who records a start holds it alone, so that of two at once the later one sees the other.
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
"""The source that tells when an instance was started; others are told of it at some time after."""


@dataclass(frozen=True, order=True, slots=True)
class Start:
    """That an instance was started at a time from an image."""

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
"""Who sees that the image was made of the instance, and from what that had been started."""
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
_hold_instance: Final = (
    select(instance.c.project_ref).where(instance.c.id == _INSTANCE).with_for_update()
)
_forget: Final = delete(descent).where(
    descent.c.relation_ref.in_(
        select(relation.c.id).where(
            relation.c.instance_ref == _INSTANCE, relation.c.kind.in_(MADE_FROM)
        )
    )
)


def in_force(starts: Sequence[Start], at: datetime) -> Start | None:
    """The last of the ``starts`` before that time, or else the first of all."""
    before = [start for start in starts if start.at <= at]
    return max(before) if before else min(starts, default=None)


def hold(connection: Connection, instance_ref: int) -> int | None:
    """Let nobody else record anything of the instance until the transaction ends.

    :returns: the number of the project that owns it, if that is known
    """
    return connection.execute(_hold_instance, {"instance": instance_ref}).scalar()


def follow(connection: Connection, new: NewRelation, recorded: Recorded) -> None:
    """Note what the relation, just ``recorded``, says of descent."""
    if new.kind == BOOT:
        if recorded.created or _restarted(connection, new, recorded):
            refresh(connection, recorded.instance_ref)
    elif recorded.created and not recorded.instance_created:
        _descend(
            connection, recorded.instance_ref, _made.where(relation.c.id == recorded.relation_ref)
        )


def refresh(connection: Connection, instance_ref: int) -> None:
    """Find out anew from what every image of an instance descends."""
    connection.execute(_forget, {"instance": instance_ref})
    _descend(connection, instance_ref, _made)


def review(connection: Connection, relations: ColumnElement[bool]) -> None:
    """Find out anew who sees the links of these relations, after an owner changed."""
    refs = select(relation.c.id).where(relations, relation.c.kind.in_(MADE_FROM))
    viewer = select(_viewer).select_from(_with_instance)
    own = viewer.where(relation.c.id == descent.c.relation_ref).correlate(descent)
    links = update(descent).where(descent.c.relation_ref.in_(refs))
    connection.execute(links.values(project_ref=own.scalar_subquery()))


def _restarted(connection: Connection, new: NewRelation, recorded: Recorded) -> bool:
    """Whether a known start is told again of another time: a rebuild back to its image.

    Where the time is that of the telling it is one only after a start from another image.
    """
    starts = _starts_of(connection, recorded.instance_ref)
    if Start(new.created_at, recorded.relation_ref, recorded.image_ref) in starts:
        return False
    start = in_force(starts, new.created_at)
    if new.source != TIMELY and (start is None or start.image_ref == recorded.image_ref):
        return False
    again = {"relation_ref": recorded.relation_ref, "started_at": new.created_at}
    connection.execute(insert(rebuild), again)
    return True


def _descend(connection: Connection, instance_ref: int, made: Select[Any]) -> None:
    starts = _starts_of(connection, instance_ref)
    if not starts:
        return
    found = connection.execute(made, {"instance": instance_ref}).all()
    rows = [_row(image, in_force(starts, image.created_at)) for image in found]
    if rows:
        connection.execute(insert(descent), rows)


def _starts_of(connection: Connection, instance_ref: int) -> list[Start]:
    return [Start(*row) for row in connection.execute(_starts, {"instance": instance_ref})]


def _row(image: Any, start: Start | None) -> dict[str, Any]:
    return {
        "relation_ref": image.id,
        "image_ref": image.image_ref,
        "parent_ref": start and start.image_ref,
        "project_ref": image.project_ref,
        "kind": image.kind,
    }
