"""Deletions on their way, and guarding images from which live instances were started.

Who begins a deletion holds the row of the image alone and looks for instances that run; who records
a start holds it too, by his reference to it, and looks for deletions. So of both at once the later
one sees the other. A deletion is on its way from before the registry is asked until the outcome is
noted; one that nobody notes the outcome of (its process was killed) counts no more after a while.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, insert, or_, select

from related_images.db import (
    orphans,
    relations,
)
from related_images.db.database import Database
from related_images.db.row_ids import project_ref
from related_images.db.tables import deletion, image, installation, instance, relation
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import BOOT, ImageState, NewRelation, Recorded

NAMED: Final = 5
"""How many instances a refusal names."""

LEASE: Final = timedelta(minutes=10)
"""How long a deletion of which nothing more is heard keeps instances from being started."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion on its way."""

    ref: int
    image_ref: int


@dataclass(frozen=True)
class StartedDeletion:
    """A deletion that may go to the registry, of an image that ``in_use`` live instances have."""

    image_id: str
    deletion: Deletion
    in_use: int


@dataclass(frozen=True, slots=True)
class Use:
    """The live instances that were started from an image: all, those that are seen, the first."""

    count: int
    seen: int
    first: Collection[tuple[str, str]]


def begin(
    database: Database,
    image_id: str,
    visible_to: str | None,
    *,
    forced: bool,
    seen: ImageState | None = None,
) -> StartedDeletion:
    """Let no instance be started from the image until the deletion has ended.

    :param seen: the image as Glance has it, if it was asked
    :param visible_to: the project whose instances a refusal may name; ``None`` for those of all
    :param forced: begin even if the image is in use
    :raises ImageInUse: if live instances were started from it
    :raises StoreUnavailable: if the database cannot tell
    """

    def task(connection: Connection) -> StartedDeletion:
        deletion = _begin(connection, image_id, datetime.now(UTC), seen)
        use = _use(connection, deletion.image_ref, visible_to, NAMED)
        if use.count and not forced:
            raise ImageInUse(_refusal(image_id, use))
        return StartedDeletion(image_id, deletion, use.count)

    return database.write(task)


def _refusal(image_id: str, use: Use) -> str:
    named = ", ".join(f"{id} of {uuid}" for uuid, id in use.first)
    more = ", ..." if use.seen > len(use.first) else ""
    users = [f"{use.seen} live instance{'s' * (use.seen != 1)} ({named}{more})"] * bool(use.seen)
    users += ["live instances of other projects"] * (use.count > use.seen)
    return (
        f"the image {image_id} cannot be deleted: {' and '.join(users)} had been started from it; "
        "delete those servers first; an administrator can record that a server is gone with "
        "`openstack server deletion record`, or delete the image in spite of them with "
        f"`openstack image force delete {image_id}` (X-Relation-Force: true)"
    )


def deleted(database: Database, begun: StartedDeletion) -> None:
    """Note that the registry deleted the image.

    That is remembered even of one without relations: a start from it may be about to be recorded.
    """

    def task(connection: Connection) -> None:
        relations.mark_deleted(connection, begun.image_id, datetime.now(UTC))
        _end(connection, begun.deletion)

    database.write(task)


def withdraw(database: Database, begun: StartedDeletion) -> None:
    """Note that the registry did not delete the image."""
    database.write(_withdraw, begun.deletion)


def check_start(
    connection: Connection, new: NewRelation, recorded: Recorded, *, vouched: bool
) -> None:
    """Raise if an instance cannot have been started from the image, since that is being deleted.

    :param vouched: the registry had the image after it was found to be marked deleted
    :raises ImageBeingDeleted: if the registry is being asked to delete it at the moment
    :raises ImageGone: if it is marked deleted
    """
    if new.kind != BOOT:
        return
    if _is_on_its_way(connection, recorded.image_ref, datetime.now(UTC)):
        raise ImageBeingDeleted(
            f"the image {new.image_id} is being deleted at the moment; try again to learn whether "
            "it was"
        )
    was_marked = recorded.revived_from is not None and not vouched
    if was_marked or _is_marked(connection, recorded.image_ref):
        raise ImageGone(f"the image {new.image_id} is marked deleted; use another one")


def _begin(
    connection: Connection, image_id: str, at: datetime, seen: ImageState | None = None
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


def _end(connection: Connection, begun: Deletion) -> None:
    """Note that the deletion is no longer on its way."""
    connection.execute(delete(deletion).where(deletion.c.id == begun.ref))


def _withdraw(connection: Connection, begun: Deletion) -> None:
    """Note that it came to nothing, and forget an image that is known by it alone."""
    _end(connection, begun)
    orphans.forget_image(connection, begun.image_ref)


def _use(connection: Connection, image_ref: int, visible_to: str | None, most: int) -> Use:
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


def _is_on_its_way(connection: Connection, image_ref: int, at: datetime) -> bool:
    """Whether a deletion of the image is on its way."""
    others = deletion.c.image_ref == image_ref, deletion.c.begun_at >= at - LEASE
    return bool(connection.execute(select(exists().where(*others))).scalar())


def _is_marked(connection: Connection, image_ref: int) -> bool:
    """Whether the image is marked deleted."""
    marked = select(image.c.deleted_at).where(image.c.id == image_ref)
    return connection.execute(marked).scalar() is not None


def _seen(visible_to: str | None) -> list[ColumnElement[bool]]:
    """What the start of an instance must fulfil for the project to be told of it."""
    if visible_to is None:
        return []
    own = project_ref(visible_to)
    return [or_(relation.c.project_ref == own, instance.c.project_ref == own)]
