"""Registering installations, and finding how one is registered."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from related_images.db.database import Database
from related_images.db.row_ids import get_or_create
from related_images.db.tables import installation
from related_images.errors import InstallationConflict, InstallationNotFound
from related_images.model import Installation

REGISTER_AGAIN: Final = (
    "`related-images installation remove {uuid}` (or DELETE /v2/installations/{uuid}), then "
    "`related-images installation add {uuid}` (or POST /v2/installations)"
)
"""How to register an installation with another name or service user."""


def registered(database: Database) -> list[Installation]:
    """Every registered installation, by name."""
    return database.read(_registered)


def register(
    database: Database, uuid: str, name: str, service_user_id: str | None
) -> tuple[Installation, bool]:
    """Register an installation; say whether it was not registered before.

    :raises InstallationConflict: if it is registered with another name or service user
    """
    new = Installation(uuid, name, service_user_id, datetime.now(UTC))
    found, created = database.write(_register, new)
    if (found.name, found.service_user_id) != (name, service_user_id):
        raise InstallationConflict(
            f"the installation {uuid} is registered as {found.name!r} with the service user "
            f"{found.service_user_id!r}; to change that: {REGISTER_AGAIN.format(uuid=uuid)}"
        )
    return found, created


def unregister(database: Database, uuid: str) -> None:
    """Forget the registration; its relations stay.

    :raises InstallationNotFound: if it is not registered
    """
    if not database.write(_unregister, uuid):
        raise InstallationNotFound(f"no installation {uuid} is registered here")


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


def find(connection: Connection, uuid: str) -> Installation | None:
    """The installation with this UUID, if it is registered."""
    row = connection.execute(_find, {"uuid": uuid}).first()
    return None if row is None else _installation(row)


_list: Final = (
    select(*_columns)
    .where(installation.c.registered_at.is_not(None))
    .order_by(installation.c.name, installation.c.uuid)
)


def _registered(connection: Connection) -> list[Installation]:
    """Every registered installation, by name."""
    return [_installation(row) for row in connection.execute(_list)]


def _register(connection: Connection, new: Installation) -> tuple[Installation, bool]:
    """Register the installation unless it is, and say whether it was not.

    :returns: the installation as it stands now, which may differ from ``new`` where it was
    """
    ref, _ = get_or_create(connection, installation, {"uuid": new.uuid})
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


def _unregister(connection: Connection, uuid: str) -> bool:
    """Forget the registration, not the relations, and say whether there was one."""
    ours = update(installation).where(
        installation.c.uuid == uuid, installation.c.registered_at.is_not(None)
    )
    nothing: dict[str, Any] = {"name": None, "service_user_id": None, "registered_at": None}
    return bool(connection.execute(ours.values(**nothing)).rowcount)


def _installation(row: Any) -> Installation:
    return Installation(row.uuid, row.name, row.service_user_id, row.registered_at)
