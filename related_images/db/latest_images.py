"""The time of the latest image of each kind, kept in the row of its instance.

Without it, who asks which instances lack a recent backup would have every instance looked at.

Whoever changes it holds the row of the instance until he commits, and takes hold of it before he
looks at the relations: of two at once the later one sees what the earlier one did.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    func,
    literal,
    select,
    update,
)

from related_images.db.column_types import EPOCH, UtcDateTime
from related_images.db.tables import (
    LATEST,
    image,
    instance,
    relation,
)


def _latest_of(kind: str) -> ColumnElement[Any]:
    found = (
        select(func.max(relation.c.created_at))
        .select_from(relation.join(image, relation.c.image_ref == image.c.id))
        .where(relation.c.instance_ref == instance.c.id, relation.c.kind == kind)
        .where(image.c.deleted_at.is_(None))
    )
    return func.coalesce(found.correlate(instance).scalar_subquery(), literal(EPOCH, UtcDateTime))


_refresh: Final = update(instance).values(
    {column.name: _latest_of(kind) for kind, column in LATEST.items()}
)
_is_right: Final = [column == _latest_of(kind) for kind, column in LATEST.items()]


def wrong(connection: Connection, after: int, size: int) -> tuple[Collection[int], int | None]:
    """Those of the next ``size`` instances behind ``after`` that are noted wrongly; the last one.

    The last is ``None`` where no instance is left.
    """
    rows = select(instance.c.id).where(instance.c.id > after).order_by(instance.c.id).limit(size)
    last = connection.execute(select(func.max(rows.subquery().c.id))).scalar()
    if last is None:
        return (), None
    these = instance.c.id > after, instance.c.id <= last
    found = connection.execute(select(instance.c.id).where(*these, ~and_(*_is_right)))
    return found.scalars().all(), last


_AT: Final = bindparam("at", type_=UtcDateTime)
_ADVANCE: Final = {
    kind: update(instance)
    .where(instance.c.id == bindparam("instance"))
    .values({column.name: case((column < _AT, _AT), else_=column)})
    for kind, column in LATEST.items()
}
"""Written even where it stays as it is, for the sake of holding the row."""


def first(kind: str, at: datetime) -> dict[str, datetime]:
    """What stands in the row of an instance that is made with its first relation."""
    return {LATEST[kind].name: at} if kind in LATEST else {}


def advance(connection: Connection, instance_ref: int, kind: str, at: datetime) -> None:
    """Note an image of the instance that is being recorded."""
    if kind in LATEST:
        connection.execute(_ADVANCE[kind], {"instance": instance_ref, "at": at})


def advance_many(connection: Connection, kind: str, times: Mapping[int, datetime]) -> None:
    """The same of several instances that are held, by their numbers, in one statement."""
    if kind in LATEST and times:
        column = LATEST[kind]
        told = {ref: literal(at, UtcDateTime) for ref, at in times.items()}
        at = case(told, value=instance.c.id)
        noted = {column.name: case((column < at, at), else_=column)}
        connection.execute(update(instance).where(instance.c.id.in_(times)).values(noted))


def refresh(connection: Connection, instance_refs: Collection[int]) -> None:
    """Find out anew after images of these instances were removed, or came back."""
    if not instance_refs:
        return
    these = instance.c.id.in_(instance_refs)
    hold = select(instance.c.id).where(these).order_by(instance.c.id)
    connection.execute(hold.with_for_update(key_share=True))
    connection.execute(_refresh.where(these))


def refresh_with(connection: Connection, images: ColumnElement[bool]) -> None:
    """The same for the instances of the images that fulfil the condition ``images``."""
    found = (
        select(relation.c.instance_ref)
        .select_from(relation.join(image, relation.c.image_ref == image.c.id))
        .where(images, relation.c.kind.in_(LATEST))
    )
    refresh(connection, set(connection.execute(found).scalars()))
