"""Parse the versioned notifications of Nova that concern images and lives of servers.

The first part also serves :mod:`.cinder_notifications`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from related_images import model, validation
from related_images.db.notifications import Ended, Event, ImageMade, Running, Started
from related_images.errors import BadInput, NotificationMalformed

Data = Mapping[str, Any]
Parser = Callable[[str, datetime, Data], Event | None]
"""Returns the event for an installation, the time and the fields of a notification."""
Reader = Callable[[str, object], Event | None]
"""Returns the event for an installation and a notification; raises NotificationMalformed."""

KINDS: Final = {"image_snapshot": model.SNAPSHOT, "image_backup": model.BACKUP}
"""The kind of relation for each ``task_state`` of a server that Nova makes an image of."""

FINAL_FAILURES: Final = frozenset(
    {
        "BuildAbortException",
        "CertificateValidationFailed",
        "ExternalNetworkAttachForbidden",
        "FixedIpInvalidOnHost",
        "FlavorDiskTooSmall",
        "FlavorMemoryTooSmall",
        "ImageNotActive",
        "ImageUnacceptable",
        "InvalidDiskFormat",
        "InvalidDiskInfo",
        "InvalidInput",
        "NetworksWithQoSPolicyNotSupported",
        "NoMoreFixedIps",
        "RequestedVRamTooHigh",
        "SignatureVerificationError",
        "UnableToAutoAllocateNetwork",
        "VTPMSecretForbidden",
        "VirtualInterfaceCreateException",
        "VirtualInterfaceMacAddressException",
        "VolumeEncryptionNotSupported",
    }
)
"""The failures after which Nova does not try another host.

After any other failure Nova may build the server on another host, and the notification does not say
whether it does. If it does not, a conductor or the deletion of the server reports the end.
"""


def nova_reader(volume_installation_uuid: str | None = None) -> Reader:
    """Return the function that reads the notifications of a Nova.

    :param volume_installation_uuid: the installation of the Cinder with the root volumes of its
        servers; ``None`` to record no root volumes
    """
    start = partial(_started, volume_installation_uuid)
    starts = dict.fromkeys(("instance.create.end", "instance.rebuild.end"), start)
    parsers: Mapping[str, Parser] = {**_PARSERS, **starts}
    return partial(read_event, parsers, _data)


def read_event(
    parsers: Mapping[str, Parser],
    payload: Callable[[object], Data],
    installation_uuid: str,
    message: object,
) -> Event | None:
    """Return the event in a notification.

    :param parsers: the parser of each type of event
    :param payload: returns the fields of a payload
    :param installation_uuid: the installation of the service that sent it
    :param message: the notification as oslo.messaging delivers it
    :returns: ``None`` for an event that the listener ignores
    :raises NotificationMalformed: if a field of any other event is missing or malformed
    """
    try:
        notification = mapping(message)
        parser = parsers.get(str(notification["event_type"]))
        if parser is None:
            return None
        return parser(installation_uuid, _time(notification), payload(notification["payload"]))
    except (KeyError, TypeError, ValueError, OverflowError, BadInput) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise NotificationMalformed(f"the notification cannot be parsed: {reason}") from error


def sent_at(message: object) -> datetime | None:
    """Return the time at which Nova sent a notification; ``None`` if it is missing or malformed."""
    try:
        return _time(mapping(message))
    except (KeyError, TypeError, BadInput):
        return None


Head = tuple[model.InstanceRef, str, datetime]
"""The fields that all events have, in the order of :class:`Event`."""


def _head(installation_uuid: str, at: datetime, data: Data) -> Head:
    """Return the fields in a notification about an instance."""
    return model.InstanceRef(installation_uuid, text(data["uuid"])), text(data["tenant_id"]), at


def _image_made(installation_uuid: str, at: datetime, data: Data) -> Event:
    ref, project_id, at = _head(installation_uuid, at, data)
    owner = text(data.get("action_initiator_project") or project_id)
    image_id = validation.image_id(data["snapshot_image_id"])
    kind = KINDS.get(str(data.get("task_state")))
    return ImageMade(ref, project_id, at, image_id, owner, kind)


def _started(
    volume_installation_uuid: str | None, installation_uuid: str, at: datetime, data: Data
) -> Event | None:
    # the image is empty if the server is booted from a volume
    image, volume = data["image_uuid"] or None, None
    if volume_installation_uuid is not None and (root := _root_volume(data)):
        volume = model.InstanceRef(volume_installation_uuid, root, model.VOLUME)
    if image is None and volume is None:
        return None
    image_id = None if image is None else validation.image_id(image)
    return Started(*_head(installation_uuid, at, data), image_id, volume)


def _root_volume(data: Data) -> str | None:
    """Return the ID of the root volume, which is stated if Nova has ``bdms_in_notifications``."""
    devices = [_data(device) for device in data.get("block_devices") or ()]
    roots = [text(one["volume_id"]) for one in devices if one["boot_index"] == 0]
    return roots[0] if roots else None


def _running(installation_uuid: str, at: datetime, data: Data) -> Event:
    return Running(*_head(installation_uuid, at, data))


def _ended(installation_uuid: str, at: datetime, data: Data) -> Event:
    return Ended(*_head(installation_uuid, at, data))


def _attempt_failed(installation_uuid: str, at: datetime, data: Data) -> Event | None:
    """Return the end of a server that nova-compute could not build and that no other one builds."""
    reason = str(_data(data["fault"])["exception"])
    return _ended(installation_uuid, at, data) if reason in FINAL_FAILURES else None


def _not_scheduled(installation_uuid: str, at: datetime, data: Data) -> Event:
    """Return the end of a server for which the conductor found no host, or no other host."""
    ref = model.InstanceRef(installation_uuid, text(data["instance_uuid"]))
    spec = data["request_spec"]
    owner = None if spec is None else _data(spec)["project_id"]
    owner = None if owner is None else text(owner)
    return Ended(ref, owner, at)


_PARSERS: Final[Mapping[str, Parser]] = {
    "instance.snapshot.start": _image_made,
    "instance.snapshot.end": _image_made,
    "instance.create.error": _attempt_failed,
    "compute_task.build_instances.error": _not_scheduled,
    "instance.unshelve.end": _running,
    "instance.power_on.end": _running,
    "instance.delete.end": _ended,
}


def _data(value: object) -> Data:
    """Return the fields of an object in a notification."""
    return mapping(mapping(value)["nova_object.data"])


def mapping(value: object) -> Data:
    """Return the value.

    :raises TypeError: if it is not an object
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{validation.shown(value)} is not an object")
    return value


def text(value: object) -> str:
    """Return the value.

    :raises TypeError: if it is not a text that can be an ID
    """
    if not validation.is_text(value):
        raise TypeError(f"{validation.shown(value)} is not an ID")
    return value


def _time(notification: Data) -> datetime:
    """Return the time at which Nova sent the notification. Nova omits the time zone, UTC."""
    return validation.parse_time("timestamp", notification["timestamp"])


read: Final[Reader] = nova_reader()
"""Reads the notifications of a Nova, without root volumes."""
