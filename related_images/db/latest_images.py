"""The time of the latest image of each kind, stored in the row of the instance.

Without it, a query for the instances without a recent backup would read every instance.

A transaction that changes these times locks the row of the instance before it reads the relations,
and until it commits. So the later of two concurrent transactions sees the changes of the other one.
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


def find_wrong(connection: Connection, after: int, size: int) -> tuple[Collection[int], int | None]:
    """Check the next ``size`` instances after the row ``after``.

    :returns: the rows with a wrong time, and the last row that was checked; ``None`` at the end
    """
    rows = select(instance.c.id).where(instance.c.id > after).order_by(instance.c.id).limit(size)
    last = connection.execute(select(func.max(rows.subquery().c.id))).scalar()
    if last is None:
        return (), None
    in_range = instance.c.id > after, instance.c.id <= last
    found = connection.execute(select(instance.c.id).where(*in_range, ~and_(*_is_right)))
    return found.scalars().all(), last


_AT: Final = bindparam("at", type_=UtcDateTime)
_ADVANCE: Final = {
    kind: update(instance)
    .where(instance.c.id == bindparam("instance"))
    .values({column.name: case((column < _AT, _AT), else_=column)})
    for kind, column in LATEST.items()
}
"""These statements update the row even if the time does not change, in order to lock it."""


def first(kind: str, at: datetime) -> dict[str, datetime]:
    """Return the columns of a new instance whose first relation has this kind and time."""
    return {LATEST[kind].name: at} if kind in LATEST else {}


def advance(connection: Connection, instance_ref: int, kind: str, at: datetime) -> None:
    """Update the row of an instance for a new image of it; this locks the row.

    :param at: when the image was made
    """
    if kind in LATEST:
        connection.execute(_ADVANCE[kind], {"instance": instance_ref, "at": at})


def advance_many(connection: Connection, kind: str, times: Mapping[int, datetime]) -> None:
    """Do as :func:`advance` for several instances, in one statement.

    :param times: the time by the row of the instance; the caller has locked these rows
    """
    if kind in LATEST and times:
        column = LATEST[kind]
        new_times = {ref: literal(at, UtcDateTime) for ref, at in times.items()}
        at = case(new_times, value=instance.c.id)
        values = {column.name: case((column < at, at), else_=column)}
        connection.execute(update(instance).where(instance.c.id.in_(times)).values(values))


def refresh(connection: Connection, instance_refs: Collection[int]) -> None:
    """Compute the times of these instances again, after images were removed or restored."""
    if not instance_refs:
        return
    is_chosen = instance.c.id.in_(instance_refs)
    lock = select(instance.c.id).where(is_chosen).order_by(instance.c.id)
    connection.execute(lock.with_for_update(key_share=True))
    connection.execute(_refresh.where(is_chosen))


def refresh_with(connection: Connection, images: ColumnElement[bool]) -> None:
    """Do as :func:`refresh` for the instances of the images that match the condition ``images``."""
    found = (
        select(relation.c.instance_ref)
        .select_from(relation.join(image, relation.c.image_ref == image.c.id))
        .where(images, relation.c.kind.in_(LATEST))
    )
    refresh(connection, set(connection.execute(found).scalars()))
