"""Guarding images from which live instances were started against deletion."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection

from related_images.db import deletions, relations
from related_images.db.database import Database
from related_images.db.deletions import Deletion, Use
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import BOOT, NewRelation, Recorded, Seen

NAMED: Final = 5
"""How many instances a refusal names."""

__all__ = ["Begun", "begin", "check_start", "deleted", "withdraw"]


@dataclass(frozen=True)
class Begun:
    """A deletion that may go to the registry, of an image that ``in_use`` live instances have."""

    image_id: str
    deletion: Deletion
    in_use: int


def begin(
    database: Database,
    image_id: str,
    visible_to: str | None,
    *,
    forced: bool,
    seen: Seen | None = None,
) -> Begun:
    """Let no instance be started from the image until the deletion has ended.

    :param seen: the image as Glance has it, if it was asked
    :param visible_to: the project whose instances a refusal may name; ``None`` for those of all
    :param forced: begin even if the image is in use
    :raises ImageInUse: if live instances were started from it
    :raises StoreUnavailable: if the database cannot tell
    """

    def task(connection: Connection) -> Begun:
        deletion = deletions.begin(connection, image_id, datetime.now(UTC), seen)
        use = deletions.use(connection, deletion.image_ref, visible_to, NAMED)
        if use.count and not forced:
            raise ImageInUse(_refusal(image_id, use))
        return Begun(image_id, deletion, use.count)

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


def deleted(database: Database, begun: Begun) -> None:
    """Note that the registry deleted the image.

    That is remembered even of one without relations: a start from it may be about to be recorded.
    """

    def task(connection: Connection) -> None:
        relations.mark_deleted(connection, begun.image_id, datetime.now(UTC))
        deletions.end(connection, begun.deletion)

    database.write(task)


def withdraw(database: Database, begun: Begun) -> None:
    """Note that the registry did not delete the image."""
    database.write(deletions.withdraw, begun.deletion)


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
    if deletions.is_on_its_way(connection, recorded.image_ref, datetime.now(UTC)):
        raise ImageBeingDeleted(
            f"the image {new.image_id} is being deleted at the moment; try again to learn whether "
            "it was"
        )
    was_marked = recorded.revived_from is not None and not vouched
    if was_marked or deletions.is_marked(connection, recorded.image_ref):
        raise ImageGone(f"the image {new.image_id} is marked deleted; use another one")
