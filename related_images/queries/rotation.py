"""Which backups an instance really has, for who rotates them without naming the installation."""

from collections.abc import Set
from typing import Final

from sqlalchemy import Connection

from related_images.store import installations, lookups
from related_images.store.database import Database
from related_images.store.rows import ListedImage

BACKUP: Final = "backup"
BACKUPS_LIMIT: Final = 10_000
"""Backups of one instance that are told at the most."""


def recorded_backups(
    database: Database, speakers: Set[str], instance_id: str, label: str
) -> list[ListedImage] | None:
    """The images that are recorded as the instance's backups, under ``label`` or under none.

    A backup without a label is one of which it is not known how it was labelled.

    :param speakers: the ids of the users who ask; who is bound to an installation means that one
    :returns: ``None`` if it cannot be told which installation is meant
    :raises StoreUnavailable: if the database cannot answer in time
    """
    return database.read(_recorded_backups, speakers, instance_id, label)


def _recorded_backups(
    connection: Connection, speakers: Set[str], instance_id: str, label: str
) -> list[ListedImage] | None:
    uuid = _meant(connection, speakers, instance_id)
    if uuid is None:
        return None
    return lookups.image_ids(
        connection, uuid, instance_id, [BACKUP], label, BACKUPS_LIMIT, or_unlabelled=True
    )


def _meant(connection: Connection, speakers: Set[str], instance_id: str) -> str | None:
    bound = installations.bound_to(connection, speakers)
    if len(bound) == 1:
        return bound.pop()
    having = installations.having(connection, instance_id)
    candidates = bound & having if bound else having
    return candidates.pop() if len(candidates) == 1 else None
