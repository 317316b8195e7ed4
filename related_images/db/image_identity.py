"""Which image a row stands for: the one that Glance made at a certain time under an ID.

An ID may be used again once Glance has forgotten the image that had it. Then the row of the former
image gives it up and keeps it as the one that it had; the row with the ID stands for the other.

Each function takes a connection inside a transaction of its caller.
"""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    Connection,
    bindparam,
    case,
    exists,
    func,
    select,
    update,
)

from related_images.db import dialects, latest_images
from related_images.db.column_types import (
    EPOCH,
    UtcDateTime,
)
from related_images.db.row_ids import former_images
from related_images.db.tables import image, project, relation
from related_images.model import (
    MADE_FROM,
    ImageState,
)

CLOCKS_APART: Final = timedelta(minutes=1)
"""How far the clocks of Glance and of those who report relations may differ."""

FIRST_RECORDED: Final = func.min(case((relation.c.claimed != 1, relation.c.created_at)))
"""When the oldest relation of an image was recorded.

One with a single claim was announced again for an image that may have been made only then.
"""

HAS_ID: Final = image.c.former_uuid.is_(None)
"""That an image has not given up its ID to another."""

_oldest: Final = select(FIRST_RECORDED).where(relation.c.image_ref == bindparam("image"))
_learn: Final = (
    update(image)
    .where(image.c.id == bindparam("image"), image.c.created_at == EPOCH)
    .values(created_at=bindparam("at", type_=UtcDateTime))
)


def is_same(
    known_at: datetime, deleted_at: datetime | None, oldest_at: datetime | None, made_at: datetime
) -> bool:
    """Whether a known image can be the one that Glance made at ``made_at``.

    :param known_at: when Glance made the known one; the epoch if that is not known. Then it cannot
        be one that was made after it was deleted, or after its oldest relation was recorded
    """
    if known_at != EPOCH:
        return known_at == made_at
    if deleted_at is not None and made_at > deleted_at:
        return False
    return oldest_at is None or made_at <= oldest_at + CLOCKS_APART


def stands_for(connection: Connection, ref: int, known: Any, seen: ImageState) -> bool:
    """Whether the row, of which ``known`` gives the times, stands for the image that was seen.

    One that is marked deleted and has another owner now does not: Glance tells the time of its
    making in whole seconds, and lets nobody have an image that is deleted.
    """
    oldest_at = None
    if known.image_created_at == EPOCH:
        oldest_at = connection.execute(_oldest, {"image": ref}).scalar()
    if not is_same(known.image_created_at, known.deleted_at, oldest_at, seen.created_at):
        return False
    return known.deleted_at is None or not _has_other_owner(connection, ref, seen.owner)


def _has_other_owner(connection: Connection, ref: int, owner: str | None) -> bool:
    others = (
        select(relation.c.id)
        .join(project, project.c.id == relation.c.project_ref)
        .where(relation.c.image_ref == ref, relation.c.kind.in_(MADE_FROM))
        .where(project.c.project_id != (owner or ""))
    )
    return connection.execute(others.limit(1)).first() is not None


def learn(connection: Connection, ref: int, made_at: datetime) -> None:
    """Note when Glance made the image, unless that is known."""
    connection.execute(_learn, {"image": ref, "at": made_at})


def retire(connection: Connection, ref: int, at: datetime) -> None:
    """Have the image give up its ID to another: Glance deleted it, at the latest ``at``.

    :raises ConcurrentChange: if another did so at the same moment
    """
    has_id = update(image).where(image.c.id == ref, HAS_ID)
    given_up = has_id.ordered_values(
        # MariaDB and MySQL put one after the other in force
        (image.c.former_uuid, image.c.uuid),
        (image.c.uuid, str(uuid4())),
        (image.c.deleted_at, func.coalesce(image.c.deleted_at, bindparam(None, at, UtcDateTime()))),
    )
    if not connection.execute(given_up).rowcount:
        raise dialects.ConcurrentChange("the image gave up its ID to another at the same moment")
    latest_images.refresh_with(connection, image.c.id == ref)


def give_back(connection: Connection, image_id: str) -> None:
    """Give the ID back to the image that had it last, if no image has it."""
    last = former_images(image_id).order_by(image.c.id.desc()).limit(1)
    ref = connection.execute(last.with_for_update()).scalar()
    if ref is None or connection.execute(select(exists().where(image.c.uuid == image_id))).scalar():
        return
    has_again = update(image).where(image.c.id == ref, image.c.former_uuid == image_id)
    connection.execute(has_again.values(uuid=image_id, former_uuid=None))
