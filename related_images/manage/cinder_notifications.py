"""Parse the notifications of Cinder that concern what volumes are made from, and their lives.

Cinder's notifications do not name the source volume of a clone, nor the image of a volume:
``glance_metadata`` holds the image of the source of a clone too, and users can change it. So the
source of such a volume stays unknown, unless the filter in cinder-api reports it.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from related_images import model
from related_images.db.notifications import Created, Ended, Event, Transferred
from related_images.manage.notification_parser import (
    Data,
    Parser,
    Reader,
    mapping,
    read_event,
    text,
)

IDS: Final = {
    model.VOLUME: "volume_id",
    model.VOLUME_SNAPSHOT: "snapshot_id",
    model.VOLUME_BACKUP: "backup_id",
}
"""The field with the ID of each type of resource."""


def _event(kind: Callable[..., Event], resource_type: str, *source: str) -> Parser:
    """Return the parser of an event.

    :param source: the field with the source of the resource, and the type of the source
    """
    return partial(_parse, kind, resource_type, source)


def _parse(
    kind: Callable[..., Event],
    resource_type: str,
    source: tuple[str, ...],
    installation_uuid: str,
    at: datetime,
    payload: Data,
) -> Event:
    ref = model.InstanceRef(installation_uuid, text(payload[IDS[resource_type]]), resource_type)
    given: dict[str, Any] = {}
    if source and payload[source[0]] is not None:
        given["origin"] = model.InstanceRef(installation_uuid, text(payload[source[0]]), source[1])
    return kind(ref, text(payload["tenant_id"]), at, **given)


_PARSERS: Final[Mapping[str, Parser]] = {
    "volume.create.end": _event(Created, model.VOLUME, "snapshot_id", model.VOLUME_SNAPSHOT),
    "volume.delete.end": _event(Ended, model.VOLUME),
    "volume.transfer.accept.end": _event(Transferred, model.VOLUME),
    "snapshot.create.end": _event(Created, model.VOLUME_SNAPSHOT, "volume_id", model.VOLUME),
    "snapshot.delete.end": _event(Ended, model.VOLUME_SNAPSHOT),
    "backup.create.end": _event(Created, model.VOLUME_BACKUP, "volume_id", model.VOLUME),
    "backup.delete.end": _event(Ended, model.VOLUME_BACKUP),
}

read: Final[Reader] = partial(read_event, _PARSERS, mapping)
"""Reads the notifications of a Cinder."""
