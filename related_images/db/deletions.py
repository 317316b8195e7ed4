"""Delete protection: pending deletions, and images from which live resources were made.

A resource is a server that was started from the image, a volume that was made from it, or a
resource that comes, through origins, from one of these. A
transaction that begins a deletion locks the row of the image exclusively and then looks for live
resources. A transaction that records a start shares a lock on that row, through its foreign
key, and then looks for pending deletions. So the later of two concurrent transactions sees the
other one.

A deletion is pending from before the request is sent to Glance until its outcome is recorded. If
the process is killed in between, the deletion expires after :data:`LEASE`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    union_all,
)

from related_images.db import (
    origin_walk,
    orphans,
    relations,
)
from related_images.db.database import Database
from related_images.db.row_ids import project_ref, shown_installation
from related_images.db.tables import deletion, image, installation, instance, relation
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import BOOT, SERVER, ImageState, InstanceRef, NewRelation, Recorded

LISTED: Final = 5
"""The number of resources that an error message lists."""

LEASE: Final = timedelta(minutes=10)
"""The time for which a deletion without an outcome prevents starts from the image."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """The row of a pending deletion, and the row of its image."""

    ref: int
    image_ref: int


@dataclass(frozen=True)
class StartedDeletion:
    """A pending deletion that may be sent to Glance.

    :ivar in_use: the number of live resources that were made from the image
    """

    image_id: str
    deletion: Deletion
    in_use: int


@dataclass(frozen=True, slots=True)
class Use:
    """The live resources that use an image.

    :ivar is_known: false if there are resources beyond the longest walk along origins, of which it
        is not known whether they are live
    :ivar count: the number of all live ones
    :ivar visible: the number of those that the caller sees, by resource type
    :ivar first: the first of those, at most :data:`LISTED`
    """

    count: int
    visible: Mapping[str, int]
    first: Sequence[InstanceRef]
    is_known: bool = True


def begin(
    database: Database,
    image_id: str,
    visible_to: str | None,
    *,
    forced: bool,
    image_state: ImageState | None = None,
) -> StartedDeletion:
    """Begin a deletion: until it ends, no start from the image can be recorded.

    :param visible_to: the project whose resources the error may list; ``None`` for all projects
    :param forced: begin the deletion even if the image is in use
    :param image_state: the image as Glance reports it, if Glance was asked
    :returns: the deletion; pass it to :func:`deleted` or :func:`withdraw`
    :raises ImageInUse: if live resources were made from the image, unless ``forced``
    :raises StoreUnavailable: if the database is unavailable
    """

    def task(connection: Connection) -> StartedDeletion:
        deletion = _begin(connection, image_id, datetime.now(UTC), image_state)
        use = _use(connection, deletion.image_ref, visible_to)
        if (use.count or not use.is_known) and not forced:
            raise ImageInUse(_refusal(image_id, use))
        return StartedDeletion(image_id, deletion, use.count)

    return database.write(task)


def _refusal(image_id: str, use: Use) -> str:
    users = [_shown(type, number, use.first) for type, number in use.visible.items()]
    users += ["live resources of other projects"] * (use.count > sum(use.visible.values()))
    if not use.is_known:
        users.append(f"resources that come from it through more than {origin_walk.STEPS} origins")
    return (
        f"the image {image_id} cannot be deleted: it is used by {' and '.join(users)}; "
        "delete them first; an administrator can record that a server was deleted with "
        "`openstack server deletion record`, or delete the image although it is in use with "
        f"`openstack image force delete {image_id}` (X-Relation-Force: true)"
    )


def _shown(resource_type: str, number: int, first: Sequence[InstanceRef]) -> str:
    """Return the number of resources of a type, with the IDs of the first ones."""
    listed = [one for one in first if one.resource_type == resource_type]
    names = [f"{one.instance_id} of {one.installation_uuid}" for one in listed]
    names += ["..."] * (number > len(listed))
    return f"{number} live {resource_type}{'s' * (number != 1)} ({', '.join(names)})"


def deleted(database: Database, begun: StartedDeletion) -> None:
    """Record that Glance deleted the image.

    This is recorded even of an image without relations, because a concurrent transaction may be
    about to record a start from it.

    :raises StoreUnavailable: if it could not be committed
    """

    def task(connection: Connection) -> None:
        relations.mark_deleted(connection, begun.image_id, datetime.now(UTC))
        _end(connection, begun.deletion)

    database.write(task)


def withdraw(database: Database, begun: StartedDeletion) -> None:
    """Record that Glance did not delete the image.

    :raises StoreUnavailable: if it could not be committed
    """
    database.write(_withdraw, begun.deletion)


def check_start(
    connection: Connection, new: NewRelation, recorded: Recorded, *, confirmed_by_glance: bool
) -> None:
    """Raise if ``new`` is a start from an image that is deleted or is being deleted.

    :param recorded: what recording ``new`` changed in this transaction
    :param confirmed_by_glance: whether Glance showed the image after it had been found marked
        deleted
    :raises ImageBeingDeleted: if a deletion of the image is pending
    :raises ImageGone: if the image is marked deleted
    """
    if new.kind != BOOT:
        return
    if _is_pending(connection, recorded.image_ref, datetime.now(UTC)):
        raise ImageBeingDeleted(
            f"the image {new.image_id} is being deleted; repeat the request later to learn whether "
            "the deletion succeeded"
        )
    was_marked = recorded.revived_from is not None and not confirmed_by_glance
    if was_marked or _is_marked(connection, recorded.image_ref):
        raise ImageGone(f"the image {new.image_id} is marked deleted; use another one")


def _begin(
    connection: Connection, image_id: str, at: datetime, image_state: ImageState | None = None
) -> Deletion:
    """Insert the row of a pending deletion, with an exclusive lock on the row of the image.

    :param image_state: the image as Glance reports it, if Glance was asked; relations of another
        image that had the same ID before do not count
    """
    image_ref = relations.lock_image(connection, image_id, image_state, at)
    connection.execute(delete(deletion).where(deletion.c.begun_at < at - LEASE))
    added = insert(deletion).values(image_ref=image_ref, begun_at=at)
    made: Any = connection.execute(added).inserted_primary_key
    return Deletion(int(made[0]), image_ref)


def _end(connection: Connection, begun: Deletion) -> None:
    """Record that the deletion is no longer pending."""
    connection.execute(delete(deletion).where(deletion.c.id == begun.ref))


def _withdraw(connection: Connection, begun: Deletion) -> None:
    """End the deletion, and remove the row of the image if nothing else refers to it."""
    _end(connection, begun)
    orphans.forget_image(connection, begun.image_ref)


def _use(connection: Connection, image_ref: int, visible_to: str | None) -> Use:
    """Return the live resources that use the image.

    Origins are followed only if other resources than servers were made from the image, because
    nothing comes from a server.
    """
    users = _starts(image_ref)
    is_live = instance.c.ended_at.is_(None)
    is_other = installation.c.resource_type != SERVER
    number = _select_use(users, func.count(case((is_live, 1))), func.count(case((is_other, 1))))
    count, others = connection.execute(number).one()
    is_known = True
    if others:
        walk = origin_walk.dependents(relation.c.image_ref == image_ref)
        users = _starts(image_ref, select(literal(LAST), walk.c.ref, null()))
        steps = connection.execute(select(func.max(walk.c.step))).scalar()
        is_known = steps != origin_walk.BEYOND
        count = connection.execute(_select_use(users, func.count()).where(is_live)).scalar_one()
    if not count:
        return Use(0, {}, (), is_known)
    visible = (is_live, *_visible(users, visible_to))
    resource_type = installation.c.resource_type
    by_type = _select_use(users, resource_type, func.count()).where(*visible)
    counts = connection.execute(by_type.group_by(resource_type).order_by(resource_type))
    names = _select_use(users, shown_installation(), instance.c.instance_id, resource_type)
    in_order = names.where(*visible).order_by(users.c.position, users.c.instance_ref)
    first = [InstanceRef(*row) for row in connection.execute(in_order.limit(LISTED))]
    return Use(count, {row[0]: row[1] for row in counts}, first, is_known)


LAST: Final = 2**62
"""The position of resources that use an image through origins, after those made from it."""


def _starts(image_ref: int, *others: Select[Any]) -> Subquery:
    """Return the resources that were made from the image, and ``others``.

    :returns: their position in a message, the resource, and the project that sees the start
    """
    starts = select(
        relation.c.id.label("position"), relation.c.instance_ref, relation.c.project_ref
    ).where(relation.c.image_ref == image_ref, relation.c.kind == BOOT)
    return union_all(starts, *others).subquery() if others else starts.subquery()


def _select_use(users: Subquery, *columns: Any) -> Select[Any]:
    return select(*columns).select_from(
        users.join(instance, users.c.instance_ref == instance.c.id).join(
            installation, instance.c.installation_ref == installation.c.id
        )
    )


def _is_pending(connection: Connection, image_ref: int, at: datetime) -> bool:
    """Return whether a deletion of the image is pending at the time ``at``."""
    others = deletion.c.image_ref == image_ref, deletion.c.begun_at >= at - LEASE
    return bool(connection.execute(select(exists().where(*others))).scalar())


def _is_marked(connection: Connection, image_ref: int) -> bool:
    """Return whether the image is marked deleted."""
    marked = select(image.c.deleted_at).where(image.c.id == image_ref)
    return connection.execute(marked).scalar() is not None


def _visible(users: Subquery, visible_to: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions for a use that the project ``visible_to`` may see."""
    if visible_to is None:
        return []
    own = project_ref(visible_to)
    return [or_(users.c.project_ref == own, instance.c.project_ref == own)]
