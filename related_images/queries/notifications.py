"""What Nova's notifications say, stored so that it matters neither how often nor in which order.

An image made from an instance is in one relation with it. Who was asked to make the image knows its
kind, and so does the first notification of it; a later one guesses, and is believed only where
nothing is known yet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from related_images.store import lookups, relations
from related_images.store.database import Database
from related_images.store.endings import end_unseen_instance
from related_images.store.rows import Filters, NewRelation, Relation

NOTIFICATION: Final = "notification"
SNAPSHOT: Final = "snapshot"


@dataclass(frozen=True)
class Event:
    """Something that befell an instance of ``project_id`` at a time."""

    installation_uuid: str
    instance_id: str
    project_id: str
    at: datetime


@dataclass(frozen=True)
class ImageMade(Event):
    """An image was made from the instance; ``kind`` is ``None`` where that is not said."""

    image_id: str
    owner: str
    kind: str | None


@dataclass(frozen=True)
class Started(Event):
    """The instance was started, or built anew, from an image."""

    image_id: str


@dataclass(frozen=True)
class Ended(Event):
    """The instance is gone."""


def store(database: Database, events: Iterable[Event]) -> None:
    """Store all the events or none; committed when this returns.

    :raises StoreUnavailable: if they could not be committed
    """
    # in one order everywhere, so that two that write at once do not lock each other out
    database.write(_store_all, sorted(events, key=lambda event: event.instance_id))


def _store_all(connection: Connection, events: Iterable[Event]) -> None:
    for event in events:
        _store(connection, event)


def _store(connection: Connection, event: Event) -> None:
    if isinstance(event, ImageMade):
        _image_made(connection, event)
    elif isinstance(event, Started):
        _record(connection, event, event.image_id, lookups.BOOT, event.project_id)
    else:
        end_unseen_instance(
            connection, event.installation_uuid, event.instance_id, event.project_id, event.at
        )


def _image_made(connection: Connection, event: ImageMade) -> None:
    known = [row for row in _between(connection, event, event.image_id) if row.kind != lookups.BOOT]
    if not known:
        kind = event.kind or SNAPSHOT
        _record(connection, event, event.image_id, kind, event.owner)
    elif event.kind and all(_is_guess(row, event.kind) for row in known):
        for row in known:
            relations.detach(
                connection, row.installation_uuid, row.instance_id, row.image_id, row.kind
            )
        _record(connection, event, event.image_id, event.kind, event.owner)


def _is_guess(row: Relation, kind: str) -> bool:
    return row.source == NOTIFICATION and row.kind == SNAPSHOT != kind


def _record(
    connection: Connection, event: Event, image_id: str, kind: str, project_id: str
) -> None:
    if any(row.kind == kind for row in _between(connection, event, image_id)):
        return
    recorded = relations.record(
        connection,
        NewRelation(
            event.installation_uuid,
            event.instance_id,
            image_id,
            kind,
            None,
            NOTIFICATION,
            project_id,
            event.at,
            instance_project_id=event.project_id,
        ),
        relied_on=True,
    )
    if recorded.revived_from is not None:
        # that it was made does not mean that it is still there
        relations.mark_deleted(connection, image_id, recorded.revived_from)


def _between(connection: Connection, event: Event, image_id: str) -> list[Relation]:
    """The relations of the instance with the image; there is one of each kind at most."""
    asked = Filters(event.installation_uuid, event.instance_id, image_id)
    return lookups.relations(connection, asked, limit=8)
