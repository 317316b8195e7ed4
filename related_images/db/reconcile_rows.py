"""What a reconciliation reads, batch by batch, and what it puts right.

Each function takes a connection; those that write, inside a transaction of its caller.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    select,
    update,
)

from related_images.db import image_identity, latest_images, orphans
from related_images.db.column_types import EPOCH, Moment
from related_images.db.lookups import FIRST_RECORDED
from related_images.db.tables import image, project, relation
from related_images.model import MADE_FROM, SERVICE, Seen


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image in a relation, by its row number ``ref``; ``created_at`` is when Glance made it.

    ``oldest_at`` is :data:`lookups.FIRST_RECORDED`, ``newest_at`` its latest relation.
    ``announced_at`` is the latest relation of before a time that nothing speaks for but an
    announcement before the image was to be made; ``None`` if there is no such one. ``owners`` are
    who owns the image, as those relations say that name an instance from which it was made.
    """

    ref: int
    image_id: str
    deleted_at: datetime | None
    created_at: datetime
    oldest_at: datetime | None
    newest_at: datetime
    announced_at: datetime | None
    owners: frozenset[str | None] = frozenset()

    def is_seen_as(self, seen: Seen) -> bool:
        """Whether Glance has this image, and not another one under its ID."""
        times = self.created_at, self.deleted_at, self.oldest_at
        if not image_identity.is_same(*times, seen.created_at):
            return False
        # as image_identity.stands_for says
        return self.deleted_at is None or self.owners <= {None, seen.owner}


_is_announcement: Final = and_(
    relation.c.claimed == 0, relation.c.source == SERVICE, relation.c.kind.in_(MADE_FROM)
)


def highest(connection: Connection) -> int:
    """The highest row number of an image; 0 if there is none."""
    return connection.execute(select(func.max(image.c.id))).scalar() or 0


def batch(
    connection: Connection, after: int, size: int, before: datetime
) -> tuple[list[KnownImage], int | None]:
    """The related images among the next ``size`` rows behind ``after``, and the last row's number.

    The number is ``None`` where no row is left. Announcements count that are older than ``before``.
    """
    rows = select(image.c.id).where(image.c.id > after).order_by(image.c.id).limit(size)
    refs = list(connection.execute(rows).scalars())
    return (_known(connection, refs, before), refs[-1]) if refs else ([], None)


def latest_live(connection: Connection, before: datetime, size: int) -> list[KnownImage]:
    """The images of the latest relations older than ``before``, but for those marked deleted."""
    rows = (
        select(relation.c.image_ref)
        .join(image, relation.c.image_ref == image.c.id)
        .where(relation.c.created_at < before, image.c.deleted_at.is_(None))
        .order_by(relation.c.created_at.desc())
        .limit(size)
    )
    return _known(connection, set(connection.execute(rows).scalars()), before)


def _known(connection: Connection, refs: Collection[int], before: datetime) -> list[KnownImage]:
    if not refs:
        return []
    is_old = _is_announcement & (relation.c.created_at < before)
    announced_at = case((is_old, relation.c.created_at))
    rows = connection.execute(
        select(
            image.c.id,
            image.c.uuid,
            image.c.deleted_at,
            image.c.created_at,
            FIRST_RECORDED,
            func.max(relation.c.created_at),
            func.max(announced_at),
        )
        .join(relation, relation.c.image_ref == image.c.id)
        .where(image.c.id.in_(refs), _HAS_ID)
        .group_by(image.c.id, image.c.uuid, image.c.deleted_at, image.c.created_at)
        .order_by(image.c.id)
    )
    known, owners = [KnownImage(*row) for row in rows], _owners(connection, refs)
    return [replace(one, owners=frozenset(owners.get(one.ref, ()))) for one in known]


_HAS_ID: Final = image.c.former_uuid.is_(None)
"""Whether the ID of an image was not given to another, which only one that is gone lets happen."""


def _owners(connection: Connection, refs: Collection[int]) -> dict[int, set[str | None]]:
    asked = (
        select(relation.c.image_ref, project.c.project_id)
        .outerjoin_from(relation, project, project.c.id == relation.c.project_ref)
        .where(relation.c.image_ref.in_(refs), relation.c.kind.in_(MADE_FROM))
        .distinct()
    )
    found: dict[int, set[str | None]] = {}
    for ref, owner in connection.execute(asked):
        found.setdefault(ref, set()).add(owner)
    return found


def learn(connection: Connection, times: Mapping[int, datetime]) -> None:
    """Note when Glance made these images, by their rows, where that is not known."""
    if times:
        told = case({ref: literal(at, Moment) for ref, at in times.items()}, value=image.c.id)
        unknown = image.c.id.in_(times), image.c.created_at == EPOCH, _HAS_ID
        connection.execute(update(image).where(*unknown).values(created_at=told))


def restore(connection: Connection, refs: Collection[int]) -> int:
    """Take the mark off images that are there again, and say off how many."""
    if not refs:
        return 0
    marked = update(image).where(image.c.id.in_(refs), image.c.deleted_at.is_not(None), _HAS_ID)
    restored = connection.execute(marked.values(deleted_at=None)).rowcount
    if restored:
        latest_images.refresh_with(connection, image.c.id.in_(refs))
    return restored


def mark_deleted(
    connection: Connection, refs: Collection[int], at: datetime, before: datetime
) -> int:
    """Mark images deleted that have no relation since ``before``, and say how many."""
    if not refs:
        return 0
    lately = exists().where(relation.c.image_ref == image.c.id, relation.c.created_at >= before)
    live = update(image).where(image.c.id.in_(refs), image.c.deleted_at.is_(None), ~lately)
    deleted = connection.execute(live.values(deleted_at=at)).rowcount
    if deleted:
        latest_images.refresh_with(connection, image.c.id.in_(refs))
    return deleted


def announcements(
    connection: Connection, ref: int, since: datetime, before: datetime
) -> Sequence[int]:
    """Of which instances the image was announced between these times."""
    void = _announced(ref, since, before)
    return connection.execute(select(relation.c.instance_ref).where(void)).scalars().all()


def _announced(ref: int, since: datetime, before: datetime) -> ColumnElement[bool]:
    at = relation.c.created_at
    return and_(relation.c.image_ref == ref, _is_announcement, at >= since, at < before)


def withdraw_announcements(
    connection: Connection, ref: int, since: datetime, before: datetime
) -> int:
    """Remove announcements of the image between these times, and say how many.

    What nothing refers to then goes with them.
    """
    instances = announcements(connection, ref, since, before)
    gone = connection.execute(delete(relation).where(_announced(ref, since, before))).rowcount
    latest_images.refresh(connection, instances)
    orphans.forget_image(connection, ref)
    orphans.forget_instances(connection, instances)
    return gone
