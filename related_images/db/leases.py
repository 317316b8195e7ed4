"""Leases: until when a resource of a registered type uses an image.

A lease is a relation of the kind ``use`` with a row in the table
:data:`related_images.db.tables.lease`. It is live until its end by the database's clock, as long as
its resource is not recorded as deleted.

A transaction that records a lease locks the row of the project, counts the live leases of the
project, and records the relation, which locks the rows of the image and of the instance. So the
later of two concurrent transactions sees the lease of the other one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    insert,
    select,
    update,
)

from related_images import validation
from related_images.db import clock
from related_images.db.clock import Now
from related_images.db.row_ids import get_or_create_project
from related_images.db.tables import (
    installation,
    instance,
    lease,
    project,
    relation,
    resource_type,
)
from related_images.errors import (
    FieldInvalid,
    InstanceEnded,
    LeaseLimitReached,
    ResourceTypeUnknown,
)
from related_images.model import RESOURCE_TYPES, USE, NewRelation, Recorded
from related_images.validation import format_time

LIMIT: Final = 1000
"""The largest number of live leases of a project."""

TYPES_SHOWN: Final = 20
"""The number of registered types that an error message lists."""

IS_LIVE: Final = and_(lease.c.expires_at > Now(), instance.c.ended_at.is_(None))
"""The condition for live leases; the row of the instance is joined."""

WITH_INSTANCES: Final = lease.join(relation, relation.c.id == lease.c.relation_ref).join(
    instance, instance.c.id == relation.c.instance_ref
)
"""The leases with their relations and resources."""


def live(*columns: Any) -> Select[Any]:
    """Return the query for columns of the live leases.

    The columns may be of the relations, the instances and the installations too.
    """
    home = installation.c.id == instance.c.installation_ref
    return select(*columns).select_from(WITH_INSTANCES.join(installation, home)).where(IS_LIVE)


@dataclass(frozen=True, slots=True)
class AllowedLease:
    """A lease that may be recorded.

    :ivar project_ref: the locked row of the project that owns the resource
    :ivar number: the number of the live leases of the project before
    """

    expires_at: datetime
    project_ref: int
    number: int


def begin(connection: Connection, new: NewRelation) -> AllowedLease:
    """Check the type and the end of a new or repeated lease, and lock the row of the project.

    :raises ResourceTypeUnknown: if the type is not registered
    :raises FieldInvalid: if the project is unknown, or the end is missing or not allowed
    """
    longest = timedelta(days=_longest_days(connection, new.instance.resource_type))
    project_ref = get_or_create_project(connection, new.instance_project_id)
    if project_ref is None:
        raise FieldInvalid(
            "the field instance_project_id is missing; a relation of the kind use needs the "
            "project that owns the resource"
        )
    now = clock.now(connection)
    expires_at = _allowed(new.expires_at, now, longest)
    locked = select(project.c.id).where(project.c.id == project_ref)
    connection.execute(locked.with_for_update(key_share=True))
    return AllowedLease(expires_at, project_ref, _count(connection, project_ref))


def _longest_days(connection: Connection, name: str) -> int:
    """Return the longest lease of a registered type, whose row is locked against a removal."""
    days = select(resource_type.c.longest_lease_days).where(resource_type.c.name == name)
    found = connection.execute(days.with_for_update(read=True)).scalar()
    if found is None:
        raise _not_registered(connection, name)
    return int(found)


def check_types(connection: Connection, names: Collection[str]) -> None:
    """Raise unless each type is built-in or registered.

    :raises ResourceTypeUnknown: if one is neither
    """
    wanted = set(names).difference(RESOURCE_TYPES)
    if wanted:
        query = select(resource_type.c.name).where(resource_type.c.name.in_(wanted))
        for name in wanted.difference(connection.execute(query).scalars()):
            raise _not_registered(connection, name)


def _not_registered(connection: Connection, name: str) -> ResourceTypeUnknown:
    names = select(resource_type.c.name).order_by(resource_type.c.name).limit(TYPES_SHOWN + 1)
    known: list[str] = [*connection.execute(names).scalars()]
    known[TYPES_SHOWN:] = ["..."] * (len(known) > TYPES_SHOWN)
    return ResourceTypeUnknown(
        f"the resource type {name} is not registered for leases; registered are: "
        f"{', '.join(known) or 'none'}; an administrator can register a type, other than "
        f"{', '.join(RESOURCE_TYPES)}, with `related-images resource-type add`"
    )


def _allowed(expires_at: datetime | None, now: datetime, longest: timedelta) -> datetime:
    """Return the end of the lease; one that is too late by the difference of clocks is reduced."""
    if expires_at is None or not now < expires_at <= now + longest + validation.CLOCK_SKEW:
        raise FieldInvalid(
            f"the field expires_at is {format_time(expires_at) or 'missing'}; it is now "
            f"{format_time(now)}, and a lease of this resource type ends at most {longest.days} "
            "days later; renew it in time to keep it longer"
        )
    return min(expires_at, now + longest)


def _count(connection: Connection, project_ref: int) -> int:
    own = select(func.count()).select_from(WITH_INSTANCES)
    return connection.execute(own.where(lease.c.project_ref == project_ref, IS_LIVE)).scalar_one()


def record(connection: Connection, recorded: Recorded, grant: AllowedLease) -> None:
    """Record the end of a lease, or extend the recorded lease; it is never shortened.

    :param recorded: the relation as recorded in this transaction, which locked the instance
    :raises InstanceEnded: if the resource is recorded as deleted
    :raises LeaseLimitReached: if the project would have too many live leases
    """
    ended = select(instance.c.ended_at).where(instance.c.id == recorded.instance_ref)
    if connection.execute(ended).scalar() is not None:
        raise InstanceEnded(
            "the resource is recorded as deleted, so it cannot use an image; check its ID"
        )
    same = lease.c.relation_ref == recorded.relation_ref
    if connection.execute(select(lease.c.relation_ref).where(same)).first() is None:
        values = {
            "relation_ref": recorded.relation_ref,
            "image_ref": recorded.image_ref,
            "project_ref": grant.project_ref,
            "expires_at": grant.expires_at,
        }
        connection.execute(insert(lease), values)
    else:
        _extend(connection, same, grant.expires_at)
    if grant.number >= LIMIT and _count(connection, grant.project_ref) > grant.number:
        raise LeaseLimitReached(
            f"the project has {grant.number} live leases, and {LIMIT} is the limit; end leases "
            "that are not needed, or wait until some end"
        )


def _extend(connection: Connection, which: ColumnElement[bool], expires_at: datetime) -> None:
    ends_before = lease.c.expires_at < expires_at
    connection.execute(update(lease).where(which, ends_before).values(expires_at=expires_at))


def unite(connection: Connection, pairs: Iterable[tuple[int, int]]) -> None:
    """Give each lease the later end of two.

    :param pairs: the primary keys of two relations; the first one remains
    """
    for kept, dropped in pairs:
        end = select(lease.c.expires_at).where(lease.c.relation_ref == dropped)
        expires_at = connection.execute(end).scalar()
        if expires_at is not None:
            _extend(connection, lease.c.relation_ref == kept, expires_at)


def move(connection: Connection, instance_ref: int, project_ref: int) -> None:
    """Record the new owner of the resource in its leases."""
    of_instance = relation.c.instance_ref == instance_ref, relation.c.kind == USE
    own = select(lease.c.relation_ref).join(relation, relation.c.id == lease.c.relation_ref)
    refs = connection.execute(own.where(*of_instance)).scalars().all()
    if refs:
        moved = update(lease).where(lease.c.relation_ref.in_(refs))
        connection.execute(moved.values(project_ref=project_ref))
