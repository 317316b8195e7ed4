"""Which backups an instance really has, for who rotates them without naming the installation."""

from collections.abc import Set
from typing import Final

from sqlalchemy import Connection

from related_images.db import installation_rows, lookups
from related_images.db.database import Database
from related_images.model import BACKUP, ListedImage

BACKUPS_LIMIT: Final = 10_000
"""Backups of one instance that are told at the most."""


class InstallationAmbiguous(Exception):
    """Several installations have a server with this ID, and the caller is bound to none of them."""


def recorded_backups(
    database: Database, speakers: Set[str], instance_id: str, label: str, visible_to: str | None
) -> list[ListedImage]:
    """The images that are recorded as the server's backups, under ``label`` or without a label.

    A notification and some claims of before do not say the label, so a backup without one counts.

    :param speakers: the ids of the service users who ask; a user who is bound to one installation
        means that one
    :param visible_to: the project of the caller, or ``None`` if the caller sees all projects
    :raises InstallationAmbiguous: if several installations may be meant
    :raises StoreUnavailable: if the database cannot answer in time
    """
    return database.read(_recorded_backups, speakers, instance_id, label, visible_to)


def _recorded_backups(
    connection: Connection,
    speakers: Set[str],
    instance_id: str,
    label: str,
    visible_to: str | None,
) -> list[ListedImage]:
    meant = _meant(connection, speakers, instance_id)
    if len(meant) > 1:
        raise InstallationAmbiguous(
            f"the installations {', '.join(sorted(meant))} each have a server with this ID"
        )
    return [
        image
        for uuid in meant
        for image in lookups.image_ids(
            connection,
            uuid,
            instance_id,
            [BACKUP],
            label,
            BACKUPS_LIMIT,
            or_unlabelled=True,
            visible_to=visible_to,
            seen_by=lookups.OWNER_OF_EITHER,
        )
    ]


def _meant(connection: Connection, speakers: Set[str], instance_id: str) -> set[str]:
    """The installation that is meant, or each that may be."""
    bound = installation_rows.bound_to(connection, speakers) if speakers else set()
    if len(bound) == 1:
        return bound
    having = installation_rows.having(connection, instance_id)
    return bound & having if bound else having
