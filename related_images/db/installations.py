"""Register installations, and check who may report on one."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from related_images.db.database import Database
from related_images.db.row_ids import get_or_create_installation
from related_images.db.tables import installation
from related_images.errors import (
    InstallationBound,
    InstallationConflict,
    InstallationNotFound,
    InstallationUnregistered,
)
from related_images.model import SERVER, Installation, InstanceRef, Reporter

REGISTER_AGAIN: Final = (
    "`related-images installation remove {uuid}` (or DELETE /v2/installations/{uuid}), then "
    "`related-images installation add {uuid}` (or POST /v2/installations)"
)
"""How to register an installation with another name or service user."""


def registered(database: Database) -> list[Installation]:
    """Return every registered installation, sorted by name.

    :raises StoreUnavailable: if the database is unavailable
    """
    return database.read(_registered)


def register(
    database: Database, uuid: str, name: str, service_user_id: str | None
) -> tuple[Installation, bool]:
    """Register an installation.

    :param service_user_id: the Keystone ID of the only service user that may record relations of
        the installation; ``None`` for every caller with a recording role
    :returns: the installation, and whether it is newly registered
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
    """Remove the registration of an installation; its relations remain.

    :raises InstallationNotFound: if it is not registered
    """
    if not database.write(_unregister, uuid):
        raise InstallationNotFound(f"the installation {uuid} is not registered")


_columns: Final = (
    installation.c.uuid,
    installation.c.name,
    installation.c.service_user_id,
    installation.c.registered_at,
)
_by_uuid: Final = (
    select(*_columns)
    .where(installation.c.uuid == bindparam("uuid"), installation.c.resource_type == SERVER)
    .where(installation.c.registered_at.is_not(None))
)


def _find(connection: Connection, uuid: str) -> Installation | None:
    """Return the installation with this UUID, or ``None`` if it is not registered."""
    row = connection.execute(_by_uuid, {"uuid": uuid}).first()
    return None if row is None else _installation(row)


def check_reporter(connection: Connection, instance: InstanceRef, reporter: Reporter) -> None:
    """Find out how the installation is registered, and raise as :func:`check_registration` does."""
    if not reporter.for_any_installation:
        found = _find(connection, instance.installation_uuid)
        bound_to = None if found is None else found.service_user_id
        check_registration(instance.installation_uuid, reporter, found is not None, bound_to)


def check_registration(
    uuid: str, reporter: Reporter, is_registered: bool, bound_to: str | None
) -> None:
    """Raise unless the reporter may report on the installation.

    :param bound_to: the service user that alone may report on it, if there is one
    :raises InstallationUnregistered: if it must be registered and is not
    :raises InstallationBound: if it is registered with another service user
    """
    if not is_registered and reporter.require_registered:
        raise InstallationUnregistered(
            f"the installation {uuid} is not registered here; an administrator can register it "
            "with `related-images installation add` or POST /v2/installations"
        )
    if is_registered and bound_to is not None and bound_to not in reporter.user_ids:
        raise InstallationBound(
            f"the installation {uuid} is registered with another service user; send the request "
            "as that user, or have an administrator register it again with this one: "
            f"{REGISTER_AGAIN.format(uuid=uuid)}"
        )


_list: Final = (
    select(*_columns)
    .where(installation.c.registered_at.is_not(None))
    .order_by(installation.c.name, installation.c.uuid)
)


def _registered(connection: Connection) -> list[Installation]:
    return [_installation(row) for row in connection.execute(_list)]


def _register(connection: Connection, new: Installation) -> tuple[Installation, bool]:
    """Register the installation unless it is registered.

    :returns: the installation as it is registered now, and whether this call registered it
    """
    ref = get_or_create_installation(connection, new.uuid)
    unregistered = update(installation).where(
        installation.c.id == ref, installation.c.registered_at.is_(None)
    )
    values = {
        "name": new.name,
        "service_user_id": new.service_user_id,
        "registered_at": new.registered_at,
    }
    created = bool(connection.execute(unregistered.values(**values)).rowcount)
    return _find(connection, new.uuid) or new, created


def _unregister(connection: Connection, uuid: str) -> bool:
    """Remove the registration, and return whether there was one."""
    registration = update(installation).where(
        installation.c.uuid == uuid, installation.c.registered_at.is_not(None)
    )
    nothing: dict[str, Any] = {"name": None, "service_user_id": None, "registered_at": None}
    return bool(connection.execute(registration.values(**nothing)).rowcount)


def _installation(row: Any) -> Installation:
    return Installation(row.uuid, row.name, row.service_user_id, row.registered_at)
