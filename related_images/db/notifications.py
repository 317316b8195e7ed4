"""What Nova's notifications say, stored so that it matters neither how often nor in which order.

But for the time of a relation of which several tell: the first to come gives it that.
An image made from an instance is in one relation with it. Who was asked to make the image knows its
kind, and so does the first notification of it; a later one guesses, and is believed only where
nothing is known yet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, select

from related_images.db import dialects, image_owners, relation_queries, relation_removal, relations
from related_images.db.database import Database
from related_images.db.row_ids import get_or_create, installation_ref, is_instance, project_ref
from related_images.db.tables import installation, instance, project
from related_images.model import BOOT, NOTIFICATION, SERVICE, SNAPSHOT, NewRelation, Relation


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
        if isinstance(event, ImageMade):
            _image_made(connection, event)
        elif isinstance(event, Started):
            _record(connection, event, event.image_id, BOOT, event.project_id)
        else:
            _end_unseen_instance(
                connection, event.installation_uuid, event.instance_id, event.project_id, event.at
            )


def _image_made(connection: Connection, event: ImageMade) -> None:
    known = _made(connection, event)
    knows_better = event.kind not in (None, SNAPSHOT)
    if known and not (knows_better and all(_is_guess(row) for row in known)):
        for row in known:
            if row.source == SERVICE:  # it must outlast the service that may take its report back
                _record(connection, event, event.image_id, row.kind, event.owner)
        return
    _record(connection, event, event.image_id, event.kind or SNAPSHOT, event.owner)
    _drop_guess(connection, event)


def _drop_guess(connection: Connection, event: ImageMade) -> None:
    """Remove what was guessed beside what is known, be it that another recorded that just now.

    Who has recorded holds the image, so that of two at once the later one sees both.
    """
    known = _made(connection, event)
    if all(_is_guess(row) for row in known):
        return
    for row in filter(_is_guess, known):
        relation_removal.detach(
            connection, row.installation_uuid, row.instance_id, row.image_id, row.kind
        )


def _is_guess(row: Relation) -> bool:
    return row.source == NOTIFICATION and row.kind == SNAPSHOT


def _record(
    connection: Connection, event: Event, image_id: str, kind: str, project_id: str
) -> None:
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


def _made(connection: Connection, event: ImageMade) -> list[Relation]:
    """What is recorded of the image as made from the instance; of each kind one at most."""
    return [
        row
        for row in relation_queries.made(connection, [event.image_id])
        if (row.installation_uuid, row.instance_id) == (event.installation_uuid, event.instance_id)
    ]


# an insert that finds its row there uses up one of the few numbers of these tables
_home_and_owner: Final = select(
    installation_ref(bindparam("installation_uuid")),
    project_ref(bindparam("project_id")),
)


def _end_unseen_instance(
    connection: Connection, installation_uuid: str, instance_id: str, project_id: str, at: datetime
) -> None:
    """Note that the instance of a project is gone since ``at``, whether it is known or not.

    The first time that was noted stands.
    """
    was_known = relations.end_instance(connection, installation_uuid, instance_id, at)
    named = {"installation_uuid": installation_uuid, "project_id": project_id}
    home, owner = connection.execute(_home_and_owner, named).one()
    owner = owner or get_or_create(connection, project, {"project_id": project_id})[0]
    if was_known:
        _report(connection, installation_uuid, instance_id, owner)
        return
    home = home or get_or_create(connection, installation, {"uuid": installation_uuid})[0]
    key = {"instance_id": instance_id, "installation_ref": home}
    _, made = get_or_create(connection, instance, key, project_ref=owner, ended_at=at)
    if not made:
        raise dialects.ConcurrentChange("the instance was recorded by another at the same moment")


def _report(connection: Connection, installation_uuid: str, instance_id: str, owner: int) -> None:
    """Note whose the instance is, which :func:`relations.end_instance` holds."""
    asked = select(instance.c.id, instance.c.project_ref)
    found = connection.execute(asked.where(*is_instance(installation_uuid, instance_id))).one()
    if found.project_ref != owner:
        image_owners.report(connection, found.id, owner)
