"""The registered types of resources: those that may have leases.

A transaction that records a lease shares a lock on the row of the type. A transaction that removes
the type locks that row exclusively and then looks for live leases.
"""

from dataclasses import asdict
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from related_images import validation
from related_images.db import clock, leases
from related_images.db.database import Database
from related_images.db.tables import installation, lease, resource_type
from related_images.errors import (
    FieldInvalid,
    ResourceTypeConflict,
    ResourceTypeInUse,
    ResourceTypeNotFound,
)
from related_images.model import (
    LONGEST_LEASE_DAYS,
    LONGEST_LEASE_DAYS_MAX,
    RESOURCE_TYPES,
    RegisteredType,
)

_columns: Final = (
    resource_type.c.name,
    resource_type.c.longest_lease_days,
    resource_type.c.registered_at,
)


def registered(database: Database) -> list[RegisteredType]:
    """Return every registered type, sorted by name.

    :raises StoreUnavailable: if the database is unavailable
    """
    return database.read(_registered)


def _registered(connection: Connection) -> list[RegisteredType]:
    rows = connection.execute(select(*_columns).order_by(resource_type.c.name))
    return [RegisteredType(*row) for row in rows]


def register(
    database: Database, name: str, longest_lease_days: int = LONGEST_LEASE_DAYS
) -> tuple[RegisteredType, bool]:
    """Register a type.

    :param longest_lease_days: how far in the future a lease may end
    :returns: the type, and whether it is newly registered
    :raises ResourceTypeUnknown: if the name is malformed
    :raises FieldInvalid: if it is a built-in type, or the number of days is not allowed
    :raises ResourceTypeConflict: if it is registered with another number of days
    :raises StoreUnavailable: if it could not be committed
    """
    if validation.resource_type(name) in RESOURCE_TYPES:
        raise FieldInvalid(
            f"the resource type {name} is built-in and has no leases; give another name than "
            f"{', '.join(RESOURCE_TYPES)}"
        )
    days = validation.number("longest_lease_days", longest_lease_days, FieldInvalid)
    if days > LONGEST_LEASE_DAYS_MAX:
        raise FieldInvalid(
            f"longest_lease_days={days} is too large; give at most {LONGEST_LEASE_DAYS_MAX}"
        )
    found, created = database.write(_register, name, days)
    if found.longest_lease_days != days:
        raise ResourceTypeConflict(
            f"the resource type {name} is registered with a longest lease of "
            f"{found.longest_lease_days} days; to change that, remove it with "
            f"`related-images resource-type remove {name}` and register it again"
        )
    return found, created


def _register(connection: Connection, name: str, days: int) -> tuple[RegisteredType, bool]:
    known = connection.execute(select(*_columns).where(resource_type.c.name == name)).first()
    if known is not None:
        return RegisteredType(*known), False
    new = RegisteredType(name, days, clock.now(connection))
    # if a concurrent transaction inserts it, this one runs again
    connection.execute(insert(resource_type), asdict(new))
    return new, True


def remove(database: Database, name: str) -> None:
    """Remove a type. Its expired leases stay.

    :raises ResourceTypeNotFound: if it is not registered
    :raises ResourceTypeInUse: if it has live leases
    :raises StoreUnavailable: if it could not be committed
    """
    database.write(_remove, name)


def _remove(connection: Connection, name: str) -> None:
    # first without the lock, for which frequent renewals of leases could let this wait too long
    _check_unused(connection, name)
    same = resource_type.c.name == name
    locked = select(resource_type.c.name).where(same).with_for_update()
    if connection.execute(locked).first() is None:
        raise ResourceTypeNotFound(
            f"the resource type {validation.shown(name)} is not registered; "
            "`related-images resource-type list` lists the registered ones"
        )
    _check_unused(connection, name)
    connection.execute(delete(resource_type).where(same))


def _check_unused(connection: Connection, name: str) -> None:
    live = leases.live(lease.c.relation_ref).where(installation.c.resource_type == name)
    if connection.execute(live.limit(1)).first() is not None:
        raise ResourceTypeInUse(
            f"the resource type {name} has live leases; wait until they end, or end them: "
            f"`openstack image relation list --kind use --resource-type {name}` lists them"
        )
