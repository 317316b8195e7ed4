"""Report from nova-api what a server is started from: an image, or its root volume.

The report of a creation is sent when Nova has checked the request and knows the servers, and before
a conductor builds them. The report of a rebuild is sent after its last check. If Glance is deleting
the image, the request fails as with a missing image.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from related_images import model
from related_images.integrations.reporting import Items, Reports, boot, origin
from related_images.model import InstanceRef
from related_images.protocol import schemas

Function = Callable[..., Any]

_report_of_rebuild: Final[ContextVar[Callable[[], None] | None]] = ContextVar(
    "related_images_report_of_rebuild", default=None
)
"""Sends the report of the rebuild that this thread checks."""


def report_creation(
    reports: Reports, volume_installation_uuid: str | None, function: Function
) -> Function:
    """Wrap the function of nova-api that prepares new servers, so that they are reported.

    :param reports: sends the reports
    :param volume_installation_uuid: the Cinder of root volumes; ``None`` to report none
    :param function: ``API._provision_instances``
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        prepared = function(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        context, api = arguments["context"], arguments["self"]
        requests = [build_request for _, build_request, _ in prepared]
        describe = functools.partial(
            _starts, requests, reports.installation_uuid, volume_installation_uuid
        )
        outcome = reports.send(context, describe)
        if outcome.is_missing:
            reports.roll_back(context, outcome.recorded)
            api._cleanup_build_artifacts(None, prepared)
            raise _missing(arguments["boot_meta"])
        return prepared

    return wrapper


def report_rebuild(reports: Reports, function: Function) -> Function:
    """Wrap the function of nova-api that rebuilds a server, so that the start is reported.

    :param reports: sends the reports
    :param function: ``API.rebuild``, which calls the function of :func:`report_before_change`
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        instance, image_id = arguments["instance"], arguments["image_href"]
        # a server on volumes has no image; its root volume stays as it is, unless this is set
        if not instance.image_ref and not arguments.get("reimage_boot_volume"):
            return function(*args, **kwargs)
        with _reporting(reports, arguments["context"], instance, image_id):
            return function(*args, **kwargs)

    return wrapper


def report_before_change(function: Function) -> Function:
    """Wrap the last check of a rebuild, so that the report follows it.

    :param function: ``API._inherit_properties_from_image``
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        checked = function(*args, **kwargs)
        if report := _report_of_rebuild.get():
            report()
        return checked

    return wrapper


def report_early_deletion(reports: Reports, function: Function) -> Function:
    """Wrap the function of nova-api that deletes a server before a conductor takes it.

    Nova sends no notification of such a deletion.

    :param reports: sends the reports
    :param function: ``API._attempt_delete_of_buildrequest``
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        server = InstanceRef(reports.installation_uuid, arguments["instance"].uuid)
        is_deleted = function(*args, **kwargs)
        if is_deleted:
            reports.end(arguments["context"], server)
        return is_deleted

    return wrapper


@contextmanager
def _reporting(reports: Reports, context: Any, instance: Any, image_id: str) -> Iterator[None]:
    """Let :func:`report_before_change` send the report, and roll it back if the block raises."""
    recorded: list[model.Relation] = []

    def report() -> None:
        server = InstanceRef(reports.installation_uuid, instance.uuid)
        outcome = reports.send(
            context, lambda: {"relations": [boot(server, image_id, instance.project_id)]}
        )
        if outcome.is_missing:
            raise _missing({"id": image_id})
        recorded.extend(outcome.recorded)

    token = _report_of_rebuild.set(report)
    try:
        yield
    except Exception:  # Nova may raise anything; without a rebuild, the report is wrong
        reports.roll_back(context, recorded)
        raise
    finally:
        _report_of_rebuild.reset(token)


def _starts(
    build_requests: Sequence[Any], installation_uuid: str, volume_installation_uuid: str | None
) -> Items:
    """Return what to report of new servers."""
    relations, origins = list[schemas.Json](), list[schemas.Json]()
    for build_request in build_requests:
        instance = build_request.instance
        server = InstanceRef(installation_uuid, instance.uuid)
        root = build_request.block_device_mappings.root_bdm()
        image_id = instance.image_ref or (root and root.image_id)
        if image_id:
            relations.append(boot(server, image_id, instance.project_id))
        elif root and root.volume_id and volume_installation_uuid:
            volume = InstanceRef(volume_installation_uuid, root.volume_id, model.VOLUME)
            origins.append(origin(server, volume, instance.project_id))
    return {"relations": relations, "origins": origins}


def _missing(image: Any) -> Exception:
    from nova.exception import ImageNotFound

    missing: Exception = ImageNotFound(image_id=image.get("id"))
    return missing
