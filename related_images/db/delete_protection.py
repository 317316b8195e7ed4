"""Delete protection: pending deletions, and images from which live resources were made.

A resource is a server that was started from the image, a volume that was made from it, or a
resource that comes, through origins, from one of these. A server that is shelved needs the image
that was made of it, too: see :mod:`related_images.db.shelving`. A
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
    FromClause,
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
    shelving,
)
from related_images.db.database import Database
from related_images.db.row_ids import project_ref, shown_installation
from related_images.db.shelving import ShelvedServers
from related_images.db.tables import deletion, image, installation, instance, relation
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import (
    BOOT,
    SERVER,
    VOLUME,
    ImageState,
    InstanceRef,
    NewRelation,
    Recorded,
    Reporter,
)

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

    :ivar in_use: the number of live resources that use the image
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
    service: Reporter | None = None,
) -> StartedDeletion:
    """Begin a deletion: until it ends, no start from the image can be recorded.

    :param visible_to: the project whose resources the error may list; ``None`` for all projects
    :param forced: begin the deletion even if the image is in use
    :param image_state: the image as Glance reports it, if Glance was asked
    :param service: the service user that sends the request; see
        :func:`related_images.db.shelving.servers`
    :returns: the deletion; pass it to :func:`deleted` or :func:`withdraw`
    :raises ImageInUse: if live resources use the image, unless ``forced``
    :raises StoreUnavailable: if the database is unavailable
    """

    def task(connection: Connection) -> StartedDeletion:
        deletion = _begin(connection, image_id, datetime.now(UTC), image_state)
        use = _use(connection, deletion.image_ref, visible_to)
        shelved = shelving.servers(connection, deletion.image_ref, visible_to, LISTED, service)
        count = use.count + shelved.count
        if (count or not use.is_known) and not forced:
            raise ImageInUse(_refusal(image_id, use, shelved))
        return StartedDeletion(image_id, deletion, count)

    return database.write(task)


def _refusal(image_id: str, use: Use, shelved: ShelvedServers) -> str:
    users = [_shown_of_type(type, number, use.first) for type, number in use.visible.items()]
    if shelved.visible:
        users.append(_shown("shelved server", shelved.visible, shelved.first))
    visible = sum(use.visible.values()) + shelved.visible
    users += ["live resources of other projects"] * (use.count + shelved.count > visible)
    if not use.is_known:
        users.append(f"resources that come from it through more than {origin_walk.STEPS} origins")
    return (
        f"the image {image_id} cannot be deleted: it is used by {' and '.join(users)}; "
        f"{_unshelve(shelved)}delete them first; an administrator can record that a server was "
        f"deleted with `openstack server deletion record`{_of_volumes(use)}, or delete the image "
        "although it is in use with "
        f"`openstack image force delete {image_id}` (X-Relation-Force: true)"
    )


def _of_volumes(use: Use) -> str:
    return " (a volume with --resource-type volume --force)" if VOLUME in use.visible else ""


def _unshelve(shelved: ShelvedServers) -> str:
    return "unshelve shelved servers or " if shelved.visible else ""


def _shown_of_type(resource_type: str, number: int, first: Sequence[InstanceRef]) -> str:
    listed = [one for one in first if one.resource_type == resource_type]
    return _shown(f"live {resource_type}", number, listed)


def _shown(noun: str, number: int, first: Sequence[InstanceRef]) -> str:
    """Return the number of resources, with the IDs of the first ones."""
    names = [f"{one.instance_id} of {one.installation_uuid}" for one in first]
    names += ["..."] * (number > len(first))
    return f"{number} {noun}{'s' * (number != 1)} ({', '.join(names)})"


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
    users = _starters(image_ref)
    count, others, steps = connection.execute(users.numbers()).one()
    if others:
        users = _all_users(connection.dialect.name, image_ref)
        count, _, steps = connection.execute(users.numbers()).one()
    is_known = steps != origin_walk.BEYOND
    if not count:
        return Use(0, {}, (), is_known)
    visible = (users.is_live, *users.seen_by(visible_to))
    resource_type = installation.c.resource_type
    by_type = users.select(resource_type, func.count()).where(*visible)
    counts = connection.execute(by_type.group_by(resource_type).order_by(resource_type))
    names = users.select(shown_installation(), users.instance.instance_id, resource_type)
    in_order = names.where(*visible).order_by(*users.order)
    first = [InstanceRef(*row) for row in connection.execute(in_order.limit(LISTED))]
    return Use(count, {row[0]: row[1] for row in counts}, first, is_known)


@dataclass(frozen=True, slots=True)
class _Users:
    """The resources that use an image.

    :ivar rows: ``instance_ref``; ``step``, the number of origins between the resource and one that
        was made from the image; ``relation_ref`` of the start and ``project_ref`` that sees it
    :ivar joined: these rows with those of the instances
    :ivar instance: the columns of the instances
    """

    rows: Subquery
    joined: FromClause
    instance: Any

    def select(self, *columns: Any) -> Select[Any]:
        """Return the query for the columns, which may be of the installations too."""
        home = installation.c.id == self.instance.installation_ref
        return select(*columns).select_from(self.joined.join(installation, home))

    def numbers(self) -> Select[Any]:
        """Return the query for the numbers of live ones and of others than servers, and the
        greatest step."""
        is_other = installation.c.resource_type != SERVER
        counted = (func.count(case((condition, 1))) for condition in (self.is_live, is_other))
        return self.select(*counted, func.max(self.rows.c.step))

    @property
    def is_live(self) -> ColumnElement[bool]:
        """The condition for resources that were not deleted."""
        ended_at: ColumnElement[datetime] = self.instance.ended_at
        return ended_at.is_(None)

    @property
    def order(self) -> tuple[ColumnElement[int], ...]:
        """The order in a message: those made from the image first, in the order of the reports."""
        return self.rows.c.step, self.rows.c.relation_ref, self.rows.c.instance_ref

    def seen_by(self, project_id: str | None) -> list[ColumnElement[bool]]:
        """Return the conditions for a use that the project sees; ``None`` for all projects."""
        if project_id is None:
            return []
        own = project_ref(project_id)
        return [or_(self.rows.c.project_ref == own, self.instance.project_ref == own)]


def _started(image_ref: int) -> Select[Any]:
    return select(
        relation.c.instance_ref,
        literal(0).label("step"),
        relation.c.id.label("relation_ref"),
        relation.c.project_ref,
    ).where(relation.c.image_ref == image_ref, relation.c.kind == BOOT)


def _starters(image_ref: int) -> _Users:
    rows = _started(image_ref).subquery()
    return _Users(rows, rows.join(instance, instance.c.id == rows.c.instance_ref), instance.c)


def _all_users(dialect: str, image_ref: int) -> _Users:
    walk = origin_walk.dependents(dialect, relation.c.image_ref == image_ref)
    come = select(walk.c.ref, walk.c.step, null(), null())
    rows = union_all(_started(image_ref), come).subquery()
    on = instance.c.id == rows.c.instance_ref
    return _Users(rows, *origin_walk.look_up(dialect, rows, instance, on))


def _is_pending(connection: Connection, image_ref: int, at: datetime) -> bool:
    """Return whether a deletion of the image is pending at the time ``at``."""
    others = deletion.c.image_ref == image_ref, deletion.c.begun_at >= at - LEASE
    return bool(connection.execute(select(exists().where(*others))).scalar())


def _is_marked(connection: Connection, image_ref: int) -> bool:
    """Return whether the image is marked deleted."""
    marked = select(image.c.deleted_at).where(image.c.id == image_ref)
    return connection.execute(marked).scalar() is not None
