"""Take no volume snapshots for an image that Glance cannot record.

To snapshot a server on volumes, Nova creates the volume snapshots first, and the image last. If
Glance refuses the image, Nova keeps the volume snapshots.
"""

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, Final

from related_images.client import NotFound
from related_images.integrations.nova_errors import Refusal, Refused, refusal_of
from related_images.integrations.reporting import Reports

LOG = logging.getLogger(__name__)

Function = Callable[..., Any]

REMOVAL_SECONDS: Final = 300.0
"""Seconds to wait until Cinder has created a volume snapshot, so that it can be deleted."""

PAUSE: Final = 1.0
RETRY_AFTER: Final = "1"
"""Seconds, as text, after which a user may try again: those that the filter in Glance states."""

_made: Final[ContextVar[list[str] | None]] = ContextVar(
    "related_images_made_volume_snapshots", default=None
)
"""The IDs of the volume snapshots that this thread has created for an image."""


def note_volume_snapshot(function: Function) -> Function:
    """Wrap the function of nova-api that creates a volume snapshot.

    :param function: ``API.create_snapshot_force``
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        snapshot = function(*args, **kwargs)
        if (made := _made.get()) is not None:
            made.append(snapshot["id"])
        return snapshot

    return wrapper


def refuse_early(reports: Reports, function: Function) -> Function:
    """Wrap the function of nova-api that snapshots a server on volumes.

    It fails before it creates volume snapshots if Glance cannot record the image, or if the request
    may not record it. If Glance refuses the image later, the volume snapshots are deleted.

    :param reports: sends requests to the filter in Glance
    :param function: ``API.snapshot_volume_backed``
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        api, context = arguments["self"], arguments["context"]
        _check_recording(reports, context)
        made: list[str] = []
        token = _made.set(made)
        try:
            return function(*args, **kwargs)
        except Exception as error:  # Nova wraps a refusal in exceptions of many types
            if made and (isinstance(error, Refused) or refusal_of(error)):
                _remove_later(api.volume_api, context, made)
            raise
        finally:
            _made.reset(token)

    return wrapper


def _check_recording(reports: Reports, context: Any) -> None:
    """Ask the filter whether it can record an image for this request.

    :raises Refused: if it cannot, or does not respond in time
    """
    try:
        recording = reports.recording(context)
    except NotFound:  # Glance is without the filter
        return
    except Exception as error:  # noqa: BLE001 - whatever fails, the image would be refused
        LOG.warning("the image service does not say whether it records images: %s", error)
        recording = {"available": False}
    if not recording.get("available", True):
        raise Refused(
            Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The image service cannot record the image now, so no snapshot was taken; try "
                "again later.",
                RETRY_AFTER,
            )
        )
    if not recording.get("allowed", True):
        raise Refused(
            Refusal(
                HTTPStatus.FORBIDDEN,
                "The image service does not let the compute service record images, so no snapshot "
                "was taken; the operator can give its service user a role of recording_roles.",
                None,
            )
        )


def _remove_later(volume_api: Any, context: Any, snapshot_ids: Sequence[str]) -> None:
    """Delete volume snapshots in the background: Cinder refuses it until they are created."""
    LOG.warning("deleting the volume snapshots of a refused image: %s", ", ".join(snapshot_ids))
    arguments = volume_api, context, tuple(snapshot_ids)
    threading.Thread(target=_remove, args=arguments, daemon=True).start()


def _remove(volume_api: Any, context: Any, snapshot_ids: Sequence[str]) -> None:
    until = time.monotonic() + REMOVAL_SECONDS
    for snapshot_id in snapshot_ids:
        try:
            while (
                volume_api.get_snapshot(context, snapshot_id)["status"] == "creating"
                and time.monotonic() < until
            ):
                time.sleep(PAUSE)
            volume_api.delete_snapshot(context, snapshot_id)
        except Exception as error:  # noqa: BLE001 - the others must still be deleted
            LOG.error("the volume snapshot %s of a refused image remains: %s", snapshot_id, error)
