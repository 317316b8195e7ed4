"""Installations: registering them, and who may speak for them."""

from collections.abc import Set
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from related_images.db.relations import reach
from related_images.db.tables import installation, instance
from related_images.model import Installation

_columns: Final = (
    installation.c.uuid,
    installation.c.name,
    installation.c.service_user_id,
    installation.c.registered_at,
)
_find: Final = (
    select(*_columns)
    .where(installation.c.uuid == bindparam("uuid"))
    .where(installation.c.registered_at.is_not(None))
)
_list: Final = (
    select(*_columns)
    .where(installation.c.registered_at.is_not(None))
    .order_by(installation.c.name, installation.c.uuid)
)


def find(connection: Connection, uuid: str) -> Installation | None:
    """The installation with this UUID, if it is registered."""
    row = connection.execute(_find, {"uuid": uuid}).first()
    return None if row is None else _installation(row)


def registered(connection: Connection) -> list[Installation]:
    """Every registered installation, by name."""
    return [_installation(row) for row in connection.execute(_list)]


def bound_to(connection: Connection, user_ids: Set[str]) -> set[str]:
    """The UUIDs of the installations for which one of these service users alone may speak."""
    bound = select(installation.c.uuid).where(installation.c.service_user_id.in_(user_ids))
    return set(connection.execute(bound).scalars())


def having(connection: Connection, instance_id: str) -> set[str]:
    """The UUIDs of the installations that have an instance of this id."""
    known = (
        select(installation.c.uuid)
        .select_from(instance.join(installation, instance.c.installation_ref == installation.c.id))
        .where(instance.c.instance_id == instance_id)
    )
    return set(connection.execute(known).scalars())


def register(connection: Connection, new: Installation) -> tuple[Installation, bool]:
    """Register the installation unless it is, and say whether it was not.

    :returns: the installation as it stands now, which may differ from ``new`` where it was
    """
    ref, _ = reach(connection, installation, {"uuid": new.uuid})
    vacant = update(installation).where(
        installation.c.id == ref, installation.c.registered_at.is_(None)
    )
    values = {
        "name": new.name,
        "service_user_id": new.service_user_id,
        "registered_at": new.registered_at,
    }
    created = bool(connection.execute(vacant.values(**values)).rowcount)
    return find(connection, new.uuid) or new, created


def unregister(connection: Connection, uuid: str) -> bool:
    """Forget the registration, not the relations, and say whether there was one."""
    ours = update(installation).where(
        installation.c.uuid == uuid, installation.c.registered_at.is_not(None)
    )
    nothing: dict[str, Any] = {"name": None, "service_user_id": None, "registered_at": None}
    return bool(connection.execute(ours.values(**nothing)).rowcount)


def _installation(row: Any) -> Installation:
    return Installation(row.uuid, row.name, row.service_user_id, row.registered_at)
