"""Which backups an instance really has, for who rotates them without naming the installation."""

from collections.abc import Set
from typing import Final

from sqlalchemy import Connection, select

from related_images.db import (
    relation_queries,
)
from related_images.db.database import Database
from related_images.db.tables import installation, instance
from related_images.model import BACKUP, ListedImage

BACKUPS_LIMIT: Final = 10_000
"""Backups of one instance that are told at the most."""


class InstallationAmbiguous(Exception):
    """Several installations have a server with this ID, and the caller is bound to none of them."""


def recorded_backups(
    database: Database, user_ids: Set[str], instance_id: str, label: str, visible_to: str | None
) -> list[ListedImage]:
    """The images that are recorded as the server's backups, under ``label`` or without a label.

    A notification and some claims of before do not say the label, so a backup without one counts.

    :param user_ids: the ids of the service users who ask; a user who is bound to one installation
        means that one
    :param visible_to: the project of the caller, or ``None`` if the caller sees all projects
    :raises InstallationAmbiguous: if several installations may be meant
    :raises StoreUnavailable: if the database cannot answer in time
    """
    return database.read(_recorded_backups, user_ids, instance_id, label, visible_to)


def _recorded_backups(
    connection: Connection,
    user_ids: Set[str],
    instance_id: str,
    label: str,
    visible_to: str | None,
) -> list[ListedImage]:
    meant = _meant(connection, user_ids, instance_id)
    if len(meant) > 1:
        raise InstallationAmbiguous(
            f"the installations {', '.join(sorted(meant))} each have a server with this ID"
        )
    return [
        image
        for uuid in meant
        for image in relation_queries.image_ids(
            connection,
            uuid,
            instance_id,
            [BACKUP],
            label,
            BACKUPS_LIMIT,
            or_unlabelled=True,
            visible_to=visible_to,
            seen_by=relation_queries.OWNER_OF_EITHER,
        )
    ]


def _meant(connection: Connection, user_ids: Set[str], instance_id: str) -> set[str]:
    """The installation that is meant, or each that may be."""
    bound = _bound_to(connection, user_ids) if user_ids else set()
    if len(bound) == 1:
        return bound
    having = _having(connection, instance_id)
    return bound & having if bound else having


def _bound_to(connection: Connection, user_ids: Set[str]) -> set[str]:
    """The UUIDs of the installations for which one of these service users alone may speak."""
    bound = select(installation.c.uuid).where(installation.c.service_user_id.in_(user_ids))
    return set(connection.execute(bound).scalars())


def _having(connection: Connection, instance_id: str) -> set[str]:
    """The UUIDs of the installations that have an instance of this id."""
    known = (
        select(installation.c.uuid)
        .select_from(instance.join(installation, instance.c.installation_ref == installation.c.id))
        .where(instance.c.instance_id == instance_id)
    )
    return set(connection.execute(known).scalars())
