"""The recorded backups of a server, for Nova's backup rotation.

Nova's query does not name the installation. Therefore the installation is derived from the service
user or from the server ID.
"""

from collections.abc import Set
from typing import Final

from sqlalchemy import Connection, select

from related_images.db import installations, relation_queries
from related_images.db.database import Database
from related_images.db.tables import installation, instance
from related_images.model import BACKUP, SERVER, Filters, ListedImage

BACKUPS_LIMIT: Final = 10_000
"""The largest number of backups of one server in a result."""


class InstallationAmbiguous(Exception):
    """Several installations have a server with this ID, and the caller is bound to none of them."""


def recorded_backups(
    database: Database, user_ids: Set[str], instance_id: str, label: str, visible_to: str | None
) -> list[ListedImage]:
    """Return the images that are recorded as backups of the server.

    A backup without a label matches every ``label``, because notifications and some backfilled
    images do not state it.

    :param user_ids: the user IDs of the caller; a service user to which one installation is bound
        for servers determines the installation
    :param visible_to: the project of the caller, or ``None`` if the caller sees all projects
    :raises InstallationAmbiguous: if several installations match
    :raises StoreUnavailable: if the database does not respond in time
    """
    return database.explore(_recorded_backups, user_ids, instance_id, label, visible_to)


def _recorded_backups(
    connection: Connection,
    user_ids: Set[str],
    instance_id: str,
    label: str,
    visible_to: str | None,
) -> list[ListedImage]:
    candidates = _candidates(connection, user_ids, instance_id)
    if len(candidates) > 1:
        raise InstallationAmbiguous(
            f"the installations {', '.join(sorted(candidates))} each have a server with this ID"
        )
    found: list[ListedImage] = []
    for uuid in candidates:
        wanted = Filters(
            installation_uuid=uuid,
            resource_type=SERVER,
            instance_id=instance_id,
            label=label,
            visible_to=visible_to,
        )
        found, _ = relation_queries.images(
            *(connection, wanted, [BACKUP], BACKUPS_LIMIT),
            seen_by=relation_queries.OWNER_OF_EITHER,
            or_unlabelled=True,
        )
    return found


def _candidates(connection: Connection, user_ids: Set[str], instance_id: str) -> set[str]:
    """Return the UUIDs of the installations to which the server may belong."""
    bound = installations.bound_to(connection, user_ids, SERVER) if user_ids else set()
    if len(bound) == 1:
        return bound
    with_server = _with_server(connection, instance_id)
    return bound & with_server if bound else with_server


def _with_server(connection: Connection, instance_id: str) -> set[str]:
    """Return the UUIDs of the installations that have a server with this ID."""
    known = (
        select(installation.c.uuid)
        .select_from(instance.join(installation, instance.c.installation_ref == installation.c.id))
        .where(instance.c.instance_id == instance_id, installation.c.resource_type == SERVER)
    )
    return set(connection.execute(known).scalars())
