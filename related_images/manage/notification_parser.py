"""Reading Nova's versioned notifications: what they say of images, and nothing else."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from related_images import model, validation
from related_images.db.notifications import Ended, Event, ImageMade, Started
from related_images.errors import BadInput, NotificationMalformed

Data = Mapping[str, Any]

KINDS: Final = {"image_snapshot": model.SNAPSHOT, "image_backup": model.BACKUP}
"""What Nova is about to do when it begins to make an image, and the kind of that."""


def read(installation_uuid: str, message: object) -> Event | None:
    """What a notification of this installation's Nova says.

    :returns: ``None`` if it is of no concern
    :raises NotificationMalformed: if it should be, but cannot be understood
    """
    try:
        sent = _mapping(message)
        reader = _READERS.get(str(sent["event_type"]))
        if reader is None:
            return None
        data = _mapping(_mapping(sent["payload"])["nova_object.data"])
        ref = model.InstanceRef(installation_uuid, _text(data["uuid"]))
        head = (installation_uuid, ref.instance_id, _text(data["tenant_id"]), _time(sent))
        return reader(head, data)
    except (KeyError, TypeError, ValueError, OverflowError, BadInput) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise NotificationMalformed(f"the notification cannot be understood: {reason}") from error


Head = tuple[str, str, str, datetime]


def _made(head: Head, data: Data) -> Event:
    owner = data.get("action_initiator_project") or head[2]
    image_id = validation.image_id(data["snapshot_image_id"])
    return ImageMade(*head, image_id, _text(owner), KINDS.get(str(data.get("task_state"))))


def _started(head: Head, data: Data) -> Event | None:
    # an instance that was started from a volume has none
    image = data["image_uuid"]
    return Started(*head, validation.image_id(image)) if image else None


def _ended(head: Head, _: Data) -> Event:
    return Ended(*head)


_READERS: Final[Mapping[str, Callable[[Head, Data], Event | None]]] = {
    "instance.snapshot.start": _made,
    "instance.snapshot.end": _made,
    "instance.create.end": _started,
    "instance.rebuild.end": _started,
    "instance.delete.end": _ended,
}


def _mapping(value: object) -> Data:
    if not isinstance(value, Mapping):
        raise TypeError(f"{validation.shown(value)} stands where an object is needed")
    return value


def _text(value: object) -> str:
    if not validation.is_text(value):
        raise TypeError(f"{validation.shown(value)} stands where an id is needed")
    return value


def _time(sent: Data) -> datetime:
    """When the notification was sent; Nova's times are in UTC and do not say so."""
    return validation.parse_time("timestamp", sent["timestamp"])
