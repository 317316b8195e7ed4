"""Delete protection: pending deletions, and images that live resources use.

A resource is a server that was started from the image, a volume that was made from it, a
resource that comes, through origins, from one of these, or one with a lease of the image. A server
that is shelved needs the image that was made of it, too: see :mod:`related_images.db.shelving`. A
transaction that begins a deletion locks the row of the image exclusively and then looks for live
resources. A transaction that records a start shares a lock on that row, through its foreign
key, or locks it to record a lease, and then looks for pending deletions. So the later of two
concurrent transactions sees the other one.

A deletion is pending from before the request is sent to Glance until its outcome is recorded. If
the process is killed in between, the deletion expires after :data:`LONGEST_DELETION`.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Subquery,
    and_,
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

from related_images.config import GUARD_COUNTS, LEASE, SHELVED
from related_images.db import (
    coverage,
    image_identity,
    index_hints,
    leases,
    origin_walk,
    orphans,
    relations,
    shelving,
)
from related_images.db.column_types import EPOCH
from related_images.db.database import Database
from related_images.db.row_ids import image_ref, project_ref, shown_installation
from related_images.db.shelving import ShelvedServers
from related_images.db.tables import deletion, image, installation, instance, lease, relation
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import (
    BOOT,
    SERVER,
    USES,
    VOLUME,
    VOLUME_BACKUP,
    VOLUME_SNAPSHOT,
    ImageState,
    InstanceRef,
    NewRelation,
    Recorded,
    Reporter,
)
from related_images.validation import format_time

LISTED: Final = 5
"""The number of resources that an error message lists."""

LONGEST_DELETION: Final = timedelta(minutes=10)
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
    :ivar first: the first of those, at most :data:`LISTED` of each way to use it
    :ivar shelved: the servers that are shelved now, which are not counted in ``count``
    :ivar leased_until: the latest end of a lease that the caller sees
    """

    count: int = 0
    visible: Mapping[str, int] = field(default_factory=dict)
    first: Sequence[InstanceRef] = ()
    is_known: bool = True
    shelved: ShelvedServers = field(default_factory=ShelvedServers)
    leased_until: datetime | None = None

    @property
    def total(self) -> int:
        """The number of all live resources, with the shelved servers."""
        return self.count + self.shelved.count

    @property
    def is_certainly_none(self) -> bool:
        """Whether it is known that no live resource uses the image."""
        return self.is_known and not self.total

    def with_leases(self, leased: "Use") -> "Use":
        """Return this use together with the use by leases."""
        return replace(
            leased,
            count=self.count + leased.count,
            visible=Counter(self.visible) + Counter(leased.visible),
            first=[*self.first, *leased.first],
            is_known=self.is_known,
        )


def begin(
    database: Database,
    image_id: str,
    visible_to: str | None,
    *,
    forced: bool,
    image_state: ImageState | None = None,
    counts: Collection[str] = GUARD_COUNTS,
    service: Reporter | None = None,
) -> StartedDeletion:
    """Begin a deletion: until it ends, no start from the image or lease of it can be recorded.

    :param visible_to: the project whose resources the error may list; ``None`` for all projects
    :param forced: begin the deletion even if the image is in use
    :param image_state: the image as Glance reports it, if Glance was asked
    :param counts: which uses count, some of :data:`related_images.config.GUARD_COUNTS`
    :param service: the service user that sends the request; see
        :func:`related_images.db.shelving.servers`
    :returns: the deletion; pass it to :func:`deleted` or :func:`withdraw`
    :raises ImageInUse: if live resources use the image, unless ``forced``
    :raises StoreUnavailable: if the database is unavailable
    """

    def task(connection: Connection) -> StartedDeletion:
        deletion = _begin(connection, image_id, datetime.now(UTC), image_state)
        use = _use(connection, deletion.image_ref, visible_to, counts, service)
        if not use.is_certainly_none and not forced:
            more = _gaps(connection, deletion.image_ref)
            raise _refusal(image_id, use, "deleted", _WAYS_TO_DELETE.format(image_id) + more)
        return StartedDeletion(image_id, deletion, use.total)

    return database.write(task)


def check_deactivation(
    database: Database,
    image_id: str,
    visible_to: str | None,
    *,
    forced: bool,
    image_state: ImageState | None = None,
    counts: Collection[str] = GUARD_COUNTS,
) -> int:
    """Check whether live resources use an image that is to be deactivated.

    A later start from the image is not prevented: Glance gives no data of a deactivated image.

    :param forced: return even if the image is in use; the other parameters are those of
        :func:`begin`
    :returns: the number of live resources that use the image
    :raises ImageInUse: if live resources use the image, unless ``forced``
    :raises StoreUnavailable: if the database is unavailable
    """
    use = database.explore(_use_of, image_id, visible_to, image_state, counts)
    if not use.is_certainly_none and not forced:
        raise _refusal(image_id, use, "deactivated", _WAYS_TO_DEACTIVATE)
    return use.total


def _use_of(
    connection: Connection,
    image_id: str,
    visible_to: str | None,
    image_state: ImageState | None,
    counts: Collection[str],
) -> Use:
    ref: int | None = connection.execute(select(image_ref(image_id))).scalar()
    known = None if ref is None else relations.times(connection, ref)
    if ref is None or known is None:
        return Use()
    is_another = image_state is not None and not image_identity.stands_for(
        connection, ref, known, image_state
    )
    return Use() if is_another else _use(connection, ref, visible_to, counts)


_WAYS_TO_DELETE: Final = (
    ", or delete the image although it is in use with `openstack image force delete {}` "
    "(X-Relation-Force: true)"
)
_WAYS_TO_DEACTIVATE: Final = ", or deactivate the image although it is in use"
"""What an administrator can do besides, in an error message; ``{}`` is the image."""


def _refusal(image_id: str, use: Use, action: str, ways: str) -> ImageInUse:
    users = [_shown_of_type(type, number, use.first) for type, number in use.visible.items()]
    if use.shelved.visible:
        users.append(_shown("shelved server", use.shelved.visible, use.shelved.first))
    visible = sum(use.visible.values()) + use.shelved.visible
    users += ["live resources of other projects"] * (use.total > visible)
    if not use.is_known:
        users.append(f"resources that come from it through more than {origin_walk.STEPS} origins")
    return ImageInUse(
        f"the image {image_id} cannot be {action}: it is used by {' and '.join(users)}",
        f"list those that use it with `openstack image dependent list {image_id} --direct`; "
        f"{_unshelve(use)}delete them first; an administrator can record that a server was "
        f"deleted with `openstack server deletion record`{_of_volumes(use)}{_of_leases(use)}"
        + ways,
    )


def _gaps(connection: Connection, image_ref: int) -> str:
    """Return the gap because of which other resources may use the image too, if there is one."""
    created_at = connection.execute(select(image.c.created_at).where(image.c.id == image_ref))
    known = created_at.scalar_one()
    gaps = coverage.of_image(coverage.gaps(connection), None if known == EPOCH else known)
    if not gaps:
        return ""
    more = f" (and {len(gaps) - 1} more gaps)" if len(gaps) > 1 else ""
    return f"; others may use it too: nothing is known from {gaps[0]}{more}"


def _of_volumes(use: Use) -> str:
    return " (a volume with --resource-type volume --force)" if VOLUME in use.visible else ""


def _of_leases(use: Use) -> str:
    if use.leased_until is None:
        return ""
    return (
        ", end a lease with `openstack image relation delete --kind use --resource-type TYPE` "
        f"(the last of these leases ends at {format_time(use.leased_until)})"
    )


def _unshelve(use: Use) -> str:
    return "unshelve shelved servers or " if use.shelved.visible else ""


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
    """Raise if ``new`` is a use of an image that is deleted or is being deleted.

    :param recorded: what recording ``new`` changed in this transaction
    :param confirmed_by_glance: whether Glance showed the image after it had been found marked
        deleted
    :raises ImageBeingDeleted: if a deletion of the image is pending
    :raises ImageGone: if the image is marked deleted
    """
    if new.kind not in USES:
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
    connection.execute(delete(deletion).where(deletion.c.begun_at < at - LONGEST_DELETION))
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


def _use(
    connection: Connection,
    image_ref: int,
    visible_to: str | None,
    counts: Collection[str],
    service: Reporter | None = None,
) -> Use:
    """Return the live resources that use the image in one of the ways that count."""
    types = [type for name in counts for type in _TYPES.get(name, ())]
    made = _use_by_made(connection, image_ref, visible_to, types) if types else Use()
    leased = _use_by_lease(connection, image_ref, visible_to) if LEASE in counts else Use()
    shelved = ShelvedServers()
    if SHELVED in counts:
        shelved = shelving.servers(connection, image_ref, visible_to, LISTED, service)
    return replace(made.with_leases(leased), shelved=shelved)


_TYPES: Final = {SERVER: (SERVER,), VOLUME: (VOLUME, VOLUME_SNAPSHOT, VOLUME_BACKUP)}
"""The types of the resources that ``guard_counts`` counts as servers and as volumes."""


def _use_by_lease(connection: Connection, image_ref: int, visible_to: str | None) -> Use:
    """Return the resources with a live lease of the image."""
    is_lease = lease.c.image_ref == image_ref
    count = connection.execute(leases.live(func.count()).where(is_lease)).scalar_one()
    if not count:
        return Use()
    own = [] if visible_to is None else [lease.c.project_ref == project_ref(visible_to)]
    resource_type = installation.c.resource_type
    numbers = (resource_type, func.count(), func.max(lease.c.expires_at))
    by_type = leases.live(*numbers).where(is_lease, *own).group_by(resource_type)
    rows = connection.execute(by_type.order_by(resource_type)).all()
    names = leases.live(shown_installation(), instance.c.instance_id, resource_type)
    in_order = names.where(is_lease, *own).order_by(lease.c.relation_ref)
    first = [InstanceRef.unchecked(*row) for row in connection.execute(in_order.limit(LISTED))]
    return Use(
        count,
        {row[0]: row[1] for row in rows},
        first,
        leased_until=max((row[2] for row in rows), default=None),
    )


def _use_by_made(
    connection: Connection, image_ref: int, visible_to: str | None, types: Collection[str]
) -> Use:
    """Return the live resources of these types that were made from the image.

    Origins are followed only if other resources than servers were made from the image, because
    nothing comes from a server.
    """
    users = _starters(image_ref, types)
    count, others, steps = connection.execute(users.numbers()).one()
    if others:
        users = _all_users(connection.dialect.name, image_ref, types)
        count, _, steps = connection.execute(users.numbers()).one()
    is_known = steps != origin_walk.BEYOND
    if not count:
        return Use(is_known=is_known)
    visible = (users.counts, *users.seen_by(visible_to))
    resource_type = installation.c.resource_type
    by_type = users.select(resource_type, func.count()).where(*visible)
    counts = connection.execute(by_type.group_by(resource_type).order_by(resource_type))
    names = users.select(shown_installation(), users.instance.instance_id, resource_type)
    in_order = names.where(*visible).order_by(*users.order)
    first = [InstanceRef.unchecked(*row) for row in connection.execute(in_order.limit(LISTED))]
    return Use(count, {row[0]: row[1] for row in counts}, first, is_known)


@dataclass(frozen=True, slots=True)
class _Users:
    """The resources that use an image.

    :ivar rows: ``instance_ref``; ``step``, the number of origins between the resource and one that
        was made from the image; ``relation_ref`` of the start and ``project_ref`` that sees it
    :ivar joined: these rows with those of the instances
    :ivar instance: the columns of the instances
    :ivar types: the types of those that count
    """

    rows: Subquery
    joined: FromClause
    instance: Any
    types: Collection[str]

    def select(self, *columns: Any) -> Select[Any]:
        """Return the query for the columns, which may be of the installations too."""
        home = installation.c.id == self.instance.installation_ref
        return select(*columns).select_from(self.joined.join(installation, home))

    def numbers(self) -> Select[Any]:
        """Return the query for the numbers of those that count and of others than servers, and
        the greatest step."""
        is_other = installation.c.resource_type != SERVER
        counted = (func.count(case((condition, 1))) for condition in (self.counts, is_other))
        return self.select(*counted, func.max(self.rows.c.step))

    @property
    def counts(self) -> ColumnElement[bool]:
        """The condition for resources of the types that were not deleted."""
        ended_at: ColumnElement[datetime] = self.instance.ended_at
        return and_(ended_at.is_(None), installation.c.resource_type.in_(self.types))

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


def _starters(image_ref: int, types: Collection[str]) -> _Users:
    rows = _started(image_ref).subquery()
    joined = rows.join(instance, instance.c.id == rows.c.instance_ref)
    return _Users(rows, joined, instance.c, types)


def _all_users(dialect: str, image_ref: int, types: Collection[str]) -> _Users:
    walk = origin_walk.dependents(dialect, relation.c.image_ref == image_ref)
    come = select(walk.c.ref, walk.c.step, null(), null())
    rows = union_all(_started(image_ref), come).subquery()
    on = instance.c.id == rows.c.instance_ref
    return _Users(rows, *index_hints.look_up(dialect, rows, instance, on), types)


def _is_pending(connection: Connection, image_ref: int, at: datetime) -> bool:
    """Return whether a deletion of the image is pending at the time ``at``."""
    others = deletion.c.image_ref == image_ref, deletion.c.begun_at >= at - LONGEST_DELETION
    return bool(connection.execute(select(exists().where(*others))).scalar())


def _is_marked(connection: Connection, image_ref: int) -> bool:
    """Return whether the image is marked deleted."""
    marked = select(image.c.deleted_at).where(image.c.id == image_ref)
    return connection.execute(marked).scalar() is not None
