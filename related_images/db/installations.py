"""Registering installations."""

from datetime import UTC, datetime
from typing import Final

from related_images.db import installation_rows
from related_images.db.database import Database
from related_images.errors import InstallationConflict, InstallationNotFound
from related_images.model import Installation

REGISTER_AGAIN: Final = (
    "`related-images installation remove {uuid}` (or DELETE /v2/installations/{uuid}), then "
    "`related-images installation add {uuid}` (or POST /v2/installations)"
)
"""How to register an installation with another name or service user."""


def registered(database: Database) -> list[Installation]:
    """Every registered installation, by name."""
    return database.read(installation_rows.registered)


def register(
    database: Database, uuid: str, name: str, service_user_id: str | None
) -> tuple[Installation, bool]:
    """Register an installation; say whether it was not registered before.

    :raises InstallationConflict: if it is registered with another name or service user
    """
    new = Installation(uuid, name, service_user_id, datetime.now(UTC))
    found, created = database.write(installation_rows.register, new)
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
    if not database.write(installation_rows.unregister, uuid):
        raise InstallationNotFound(f"no installation {uuid} is registered here")
