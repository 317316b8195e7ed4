"""Parse the versioned notifications of Nova that concern images of servers."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from related_images import model, validation
from related_images.db.notifications import Ended, Event, ImageMade, Running, Started
from related_images.errors import BadInput, NotificationMalformed

Data = Mapping[str, Any]

KINDS: Final = {"image_snapshot": model.SNAPSHOT, "image_backup": model.BACKUP}
"""The kind of relation for each ``task_state`` of a server that Nova makes an image of."""


def read(installation_uuid: str, message: object) -> Event | None:
    """Return the event in a notification.

    :param installation_uuid: the installation of the Nova that sent it
    :param message: the notification as oslo.messaging delivers it
    :returns: ``None`` for an event that the listener ignores
    :raises NotificationMalformed: if a field of any other event is missing or malformed
    """
    try:
        notification = _mapping(message)
        parser = _PARSERS.get(str(notification["event_type"]))
        if parser is None:
            return None
        data = _mapping(_mapping(notification["payload"])["nova_object.data"])
        ref = model.InstanceRef(installation_uuid, _text(data["uuid"]))
        head = (installation_uuid, ref.instance_id, _text(data["tenant_id"]), _time(notification))
        return parser(head, data)
    except (KeyError, TypeError, ValueError, OverflowError, BadInput) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise NotificationMalformed(f"the notification cannot be parsed: {reason}") from error


def sent_at(message: object) -> datetime | None:
    """Return the time at which Nova sent a notification; ``None`` if it is missing or malformed."""
    try:
        return _time(_mapping(message))
    except (KeyError, TypeError, BadInput):
        return None


Head = tuple[str, str, str, datetime]
"""The fields that all events have, in the order of :class:`Event`."""


def _image_made(head: Head, data: Data) -> Event:
    owner = data.get("action_initiator_project") or head[2]
    image_id = validation.image_id(data["snapshot_image_id"])
    return ImageMade(*head, image_id, _text(owner), KINDS.get(str(data.get("task_state"))))


def _started(head: Head, data: Data) -> Event | None:
    # empty if the server is booted from a volume
    image = data["image_uuid"]
    return Started(*head, validation.image_id(image)) if image else None


def _running(head: Head, _: Data) -> Event:
    return Running(*head)


def _ended(head: Head, _: Data) -> Event:
    return Ended(*head)


_PARSERS: Final[Mapping[str, Callable[[Head, Data], Event | None]]] = {
    "instance.snapshot.start": _image_made,
    "instance.snapshot.end": _image_made,
    "instance.create.end": _started,
    "instance.rebuild.end": _started,
    "instance.unshelve.end": _running,
    "instance.power_on.end": _running,
    "instance.delete.end": _ended,
}


def _mapping(value: object) -> Data:
    if not isinstance(value, Mapping):
        raise TypeError(f"{validation.shown(value)} is not an object")
    return value


def _text(value: object) -> str:
    if not validation.is_text(value):
        raise TypeError(f"{validation.shown(value)} is not an ID")
    return value


def _time(notification: Data) -> datetime:
    """Return the time at which Nova sent the notification. Nova omits the time zone, UTC."""
    return validation.parse_time("timestamp", notification["timestamp"])
