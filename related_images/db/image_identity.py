"""The identity of images: an image is its ID and the time at which Glance created it.

A user may create an image with a chosen ID, and Glance accepts the ID of an image that was purged
from its database. Then the row of the former image moves its ID from ``uuid`` to ``former_uuid``,
and a new row represents the new image.

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
"""The largest difference between the clocks of Glance and of the services that report relations."""

RECORDED_AT: Final = case((relation.c.claimed != 1, relation.c.created_at))
FIRST_RECORDED: Final = func.min(RECORDED_AT)
"""An aggregate: when the oldest relation of an image was recorded.

Relations with one claim are left out: they were recorded a second time, before a request that may
have created the image.
"""

HAS_ID: Final = image.c.former_uuid.is_(None)
"""The condition that no other image has taken the ID of an image."""

_oldest: Final = select(FIRST_RECORDED).where(relation.c.image_ref == bindparam("image"))
_learn: Final = (
    update(image)
    .where(image.c.id == bindparam("image"), image.c.created_at == EPOCH)
    .values(created_at=bindparam("at", type_=UtcDateTime))
)


def is_same(
    known_at: datetime, deleted_at: datetime | None, oldest_at: datetime | None, made_at: datetime
) -> bool:
    """Return whether a recorded image can be the image that Glance created at ``made_at``.

    :param known_at: when Glance created the recorded image; the epoch if that is unknown. In that
        case the images differ if ``made_at`` is after the deletion or after the oldest relation
    :param deleted_at: when the recorded image was marked deleted
    :param oldest_at: when its oldest relation was recorded
    """
    if known_at != EPOCH:
        return known_at == made_at
    if deleted_at is not None and made_at > deleted_at:
        return False
    return oldest_at is None or made_at <= oldest_at + CLOCKS_APART


def stands_for(connection: Connection, ref: int, known: Any, image_state: ImageState) -> bool:
    """Return whether the row ``ref`` represents the image ``image_state``.

    A row that is marked deleted does not represent an image with another owner: Glance reports
    creation times in whole seconds, so that two images can have equal times, and nobody can become
    the owner of a deleted image.

    :param known: a row with ``image_created_at`` and ``deleted_at`` of the recorded image
    """
    oldest_at = None
    if known.image_created_at == EPOCH:
        oldest_at = connection.execute(_oldest, {"image": ref}).scalar()
    if not is_same(known.image_created_at, known.deleted_at, oldest_at, image_state.created_at):
        return False
    return known.deleted_at is None or not _has_other_owner(connection, ref, image_state.owner)


def _has_other_owner(connection: Connection, ref: int, owner: str | None) -> bool:
    others = (
        select(relation.c.id)
        .join(project, project.c.id == relation.c.project_ref)
        .where(relation.c.image_ref == ref, relation.c.kind.in_(MADE_FROM))
        .where(project.c.project_id != (owner or ""))
    )
    return connection.execute(others.limit(1)).first() is not None


def learn(connection: Connection, ref: int, made_at: datetime) -> None:
    """Record when Glance created the image, unless that is known."""
    connection.execute(_learn, {"image": ref, "at": made_at})


def retire(connection: Connection, ref: int, at: datetime) -> None:
    """Take the ID from an image because another image has it; Glance deleted the former image.

    :param at: the deletion time to record, unless the image is marked deleted already
    :raises ConcurrentChange: if a concurrent transaction did so
    """
    has_id = update(image).where(image.c.id == ref, HAS_ID)
    given_up = has_id.ordered_values(
        # in MariaDB and MySQL, an assignment sees the values of the assignments to its left
        (image.c.former_uuid, image.c.uuid),
        (image.c.uuid, str(uuid4())),
        (image.c.deleted_at, func.coalesce(image.c.deleted_at, bindparam(None, at, UtcDateTime()))),
    )
    if not connection.execute(given_up).rowcount:
        raise dialects.ConcurrentChange("a concurrent transaction took the ID from the image")
    latest_images.refresh_with(connection, image.c.id == ref)


def give_back(connection: Connection, image_id: str) -> None:
    """Give the ID back to the image that had it last, unless an image has it."""
    last = former_images(image_id).order_by(image.c.id.desc()).limit(1)
    ref = connection.execute(last.with_for_update()).scalar()
    if ref is None or connection.execute(select(exists().where(image.c.uuid == image_id))).scalar():
        return
    former = update(image).where(image.c.id == ref, image.c.former_uuid == image_id)
    connection.execute(former.values(uuid=image_id, former_uuid=None))
