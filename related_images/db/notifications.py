"""Record the events of the notifications of Nova and Cinder.

The result does not depend on the order of the events or on duplicates, with one exception: if
several events report one relation, the first one that arrives determines its time.

An image made from an instance has one relation with it. The service that records it knows the kind,
and so does Nova's first notification. Later notifications do not state the kind: the filter guesses
``snapshot``, and keeps the guess only if no other relation is recorded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from related_images.db import (
    dialects,
    image_owners,
    origin_records,
    relation_queries,
    relation_removal,
    relations,
    shelving,
)
from related_images.db.database import Database
from related_images.db.row_ids import (
    IS_NAMED,
    get_or_create,
    get_or_create_installation,
    get_or_create_project,
    named,
)
from related_images.db.tables import instance
from related_images.model import (
    BOOT,
    NOTIFICATION,
    SERVICE,
    SNAPSHOT,
    InstanceRef,
    NewOrigin,
    NewRelation,
    Relation,
)


@dataclass(frozen=True)
class Event:
    """An event of an instance.

    :ivar instance: the server, volume, volume snapshot or volume backup
    :ivar project_id: the project that owns the instance; ``None`` if an end does not state it
    :ivar at: when the event happened
    """

    instance: InstanceRef
    project_id: str | None
    at: datetime


@dataclass(frozen=True)
class ImageMade(Event):
    """An image was made from the instance.

    :ivar owner: the project that owns the image
    :ivar kind: the kind of the relation; ``None`` if the notification does not state it
    """

    image_id: str
    owner: str
    kind: str | None


@dataclass(frozen=True)
class Started(Event):
    """The server was started or rebuilt.

    :ivar image_id: the image from which it was started; ``None`` if the notification states none
    :ivar root_volume: its root volume; ``None`` if the notification states none
    """

    image_id: str | None
    root_volume: InstanceRef | None = None


@dataclass(frozen=True)
class Created(Event):
    """A volume, volume snapshot or volume backup was created.

    :ivar origin: from which other resource it comes; ``None`` if the notification does not state it
    """

    origin: InstanceRef | None = None


@dataclass(frozen=True)
class Transferred(Event):
    """A volume was transferred to the project."""


@dataclass(frozen=True)
class Running(Event):
    """The instance was unshelved or powered on, so that it is not shelved."""


@dataclass(frozen=True)
class Ended(Event):
    """The instance was deleted, or could not be built."""


def store(database: Database, events: Iterable[Event]) -> None:
    """Record all events in one transaction.

    :raises StoreUnavailable: if it could not be committed; then no event is recorded
    """
    # concurrent transactions lock instances in the same order, which prevents deadlocks
    database.write(_store_all, sorted(events, key=lambda event: event.instance.instance_id))


def _store_all(connection: Connection, events: Iterable[Event]) -> None:
    for event in events:
        if isinstance(event, ImageMade):
            _image_made(connection, event)
        elif isinstance(event, Started):
            if event.image_id is not None:
                _record(connection, event, event.image_id, BOOT, event.project_id)
            if event.root_volume is not None:
                _record_origin(connection, event, event.root_volume)
        elif isinstance(event, Running):
            shelving.end(connection, event.instance, event.at)
        elif isinstance(event, Created):
            _created(connection, event)
        elif isinstance(event, Transferred):
            _report_owner(connection, event)
        else:
            _end_instance(connection, event)


def _image_made(connection: Connection, event: ImageMade) -> None:
    known = _made(connection, event)
    knows_better = event.kind not in (None, SNAPSHOT)
    if known and not (knows_better and all(_is_guess(row) for row in known)):
        for row in known:
            if row.source == SERVICE:  # the relation must remain if the service revokes its report
                _record(connection, event, event.image_id, row.kind, event.owner)
        return
    _record(connection, event, event.image_id, event.kind or SNAPSHOT, event.owner)
    _drop_guess(connection, event)


def _drop_guess(connection: Connection, event: ImageMade) -> None:
    """Remove a guessed relation of the image, if another relation is recorded.

    Each of two concurrent transactions has locked the image when it recorded its relation, so that
    the later one sees both relations.
    """
    known = _made(connection, event)
    if all(_is_guess(row) for row in known):
        return
    for row in filter(_is_guess, known):
        relation_removal.detach(connection, row.instance, row.image_id, row.kind)


def _is_guess(row: Relation) -> bool:
    return row.source == NOTIFICATION and row.kind == SNAPSHOT


def _record(
    connection: Connection, event: Event, image_id: str, kind: str, project_id: str | None
) -> None:
    relations.record_past(
        connection,
        NewRelation(
            event.instance,
            image_id,
            kind,
            None,
            NOTIFICATION,
            project_id,
            event.at,
            instance_project_id=event.project_id,
        ),
    )


def _made(connection: Connection, event: ImageMade) -> list[Relation]:
    """Return the relations in which the image was made from the instance, at most one per kind."""
    return [
        row
        for row in relation_queries.made(connection, [event.image_id])
        if row.instance == event.instance
    ]


def _created(connection: Connection, event: Created) -> None:
    """Record the resource. Its origin stays unknown if the notification does not state it."""
    if event.origin is not None:
        _record_origin(connection, event, event.origin)
    else:
        _report_owner(connection, event, is_first=True)


def _record_origin(connection: Connection, event: Event, source: InstanceRef) -> None:
    new = NewOrigin(event.instance, source, event.at, event.project_id, NOTIFICATION)
    origin_records.record(connection, new)


def _end_instance(connection: Connection, event: Event) -> None:
    """Record the end of the instance; create its row if it is not recorded.

    Of several ends, for example a failed creation and the deletion, the first one counts.
    """
    was_known = relations.end_instance(connection, event.instance, event.at)
    owner = get_or_create_project(connection, event.project_id)
    if was_known:
        if owner is not None:
            _set_owner(connection, event.instance, owner)
        return
    ref = event.instance
    home = get_or_create_installation(connection, ref.installation_uuid, ref.resource_type)
    key = {"instance_id": ref.instance_id, "installation_ref": home}
    _, made = get_or_create(connection, instance, key, project_ref=owner, ended_at=event.at)
    if not made:
        raise dialects.ConcurrentChange("a concurrent transaction recorded the instance")


def _report_owner(connection: Connection, event: Event, *, is_first: bool = False) -> None:
    """Record the owner of the instance; create its row if it is not recorded.

    :param is_first: see :func:`.image_owners.update_owner`
    """
    owner = get_or_create_project(connection, event.project_id)
    ref = origin_records.get_or_create_instance(connection, event.instance, owner)
    image_owners.update_owner(connection, ref, owner, is_first=is_first)


def _set_owner(connection: Connection, ref: InstanceRef, owner: int) -> None:
    """Record the owner of the instance, which :func:`relations.end_instance` has locked."""
    query = select(instance.c.id, instance.c.project_ref).where(*IS_NAMED)
    found = connection.execute(query, named(ref)).one()
    if found.project_ref != owner:
        image_owners.report(connection, found.id, owner)
