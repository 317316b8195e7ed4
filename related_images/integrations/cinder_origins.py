"""Report from cinder-api what volumes, volume snapshots and volume backups are made from.

The report of a creation is sent when the row of the resource is in Cinder's database, and before
other processes create its data. If Glance is deleting the image of a new volume, the request fails
as with a missing image, and leaves no volume.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from related_images import model
from related_images.integrations.reporting import Items, Reports, boot, origin
from related_images.model import InstanceRef

Function = Callable[..., Any]

NewOrigin = tuple[InstanceRef, InstanceRef, str | None]
"""A resource, its source, and its owner; ``None`` if the owner does not change."""

SOURCES: Final = {
    "snapshot": model.VOLUME_SNAPSHOT,
    "source_volume": model.VOLUME,
    "backup": model.VOLUME_BACKUP,
}
"""The arguments of a creation that are the source of a volume, with the type of each."""


@dataclass(slots=True)
class _Creation:
    """The creation of a volume in this thread.

    :ivar arguments: those of ``API.create``
    :ivar volume: the volume, when it is reported
    """

    reports: Reports
    arguments: Mapping[str, Any]
    volume: InstanceRef | None = None

    def report(self, context: Any, volume: Any) -> None:
        """Report a new volume.

        :raises Exception: Cinder's error for a missing image
        """
        ref = _ref(self.reports, volume.id)
        outcome = self.reports.send(context, lambda: self._source_of(ref, volume.project_id))
        if outcome.is_missing:
            raise _missing(self.arguments["image_id"])
        self.volume = ref

    def _source_of(self, volume: InstanceRef, project_id: str) -> Items:
        for name, resource_type in SOURCES.items():
            if source := self.arguments.get(name):
                ref = InstanceRef(volume.installation_uuid, source.id, resource_type)
                return {"origins": [origin(volume, ref, project_id)]}
        if image_id := self.arguments.get("image_id"):
            return {"relations": [boot(volume, image_id, project_id)]}
        return {"origins": [origin(volume, None, project_id)]}


_creation: Final[ContextVar[_Creation | None]] = ContextVar(
    "related_images_creation_of_volume", default=None
)


def report_creation(reports: Reports, function: Function) -> Function:
    """Wrap the function of cinder-api that creates a volume, so that its source is reported.

    :param reports: sends the reports
    :param function: ``API.create``, which calls the function of :func:`report_new_row`
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        creation = _Creation(reports, signature.bind(*args, **kwargs).arguments)
        token = _creation.set(creation)
        try:
            return function(*args, **kwargs)
        except Exception:  # Cinder may raise anything; a volume that was not made must not count
            if creation.volume is not None:
                reports.end(creation.arguments["context"], creation.volume)
            raise
        finally:
            _creation.reset(token)

    return wrapper


def report_new_row(function: Function) -> Function:
    """Wrap the task that creates the row of a volume, so that the report follows it.

    :param function: ``EntryCreateTask.execute``; Cinder does not revert it if it fails itself
    """

    @functools.wraps(function)
    def wrapper(self: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        made = function(self, context, *args, **kwargs)
        if creation := _creation.get():
            volume = made["volume"]
            try:
                creation.report(context, volume)
            except Exception:  # whatever the reason, a volume without a report must not be made
                volume.destroy()
                raise
        return made

    return wrapper


def report_reimage(reports: Reports, function: Function) -> Function:
    """Wrap the function of cinder-api that writes an image to a volume, so that it is reported.

    :param reports: sends the reports
    :param function: ``API.reimage``
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        context, volume, image_id = (arguments[name] for name in ("context", "volume", "image_id"))
        ref = _ref(reports, volume.id)
        outcome = reports.send(
            context, lambda: {"relations": [boot(ref, image_id, volume.project_id)]}
        )
        if outcome.is_missing:
            raise _missing(image_id)
        try:
            return function(*args, **kwargs)
        except Exception:  # Cinder may raise anything; without the operation, the report is wrong
            reports.roll_back(context, outcome.recorded)
            raise

    return wrapper


def report_snapshot(reports: Reports, function: Function) -> Function:
    """Wrap the function of cinder-api that creates a volume snapshot, so that it is reported.

    :param reports: sends the reports
    :param function: ``API.create_snapshot_in_db``
    """

    def describe(made: Any, arguments: Mapping[str, Any]) -> NewOrigin:
        ref = _ref(reports, made.id, model.VOLUME_SNAPSHOT)
        return ref, _ref(reports, arguments["volume"].id), made.project_id

    return _report_after(reports, function, describe)


def report_backup(reports: Reports, function: Function) -> Function:
    """Wrap the function of cinder-api that creates a backup of a volume, so that it is reported.

    :param reports: sends the reports
    :param function: ``API.create``
    """

    def describe(made: Any, _: Mapping[str, Any]) -> NewOrigin:
        ref = _ref(reports, made.id, model.VOLUME_BACKUP)
        return ref, _ref(reports, made.volume_id), made.project_id

    return _report_after(reports, function, describe)


def report_restoration(reports: Reports, function: Function) -> Function:
    """Wrap the function of cinder-api that restores a backup to a volume, so that it is reported.

    :param reports: sends the reports
    :param function: ``API.restore``
    """

    def describe(restored: Any, _: Mapping[str, Any]) -> NewOrigin:
        source = _ref(reports, restored["backup_id"], model.VOLUME_BACKUP)
        # an administrator may restore to a volume of another project, whose owner stays
        return _ref(reports, restored["volume_id"]), source, None

    return _report_after(reports, function, describe)


def _report_after(
    reports: Reports, function: Function, describe: Callable[[Any, Mapping[str, Any]], NewOrigin]
) -> Function:
    """Wrap a function, so that an origin is reported when it returns.

    :param describe: takes the result and the arguments of the function
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        ref, source, project_id = describe(result, arguments)
        reports.send(arguments["context"], lambda: {"origins": [origin(ref, source, project_id)]})
        return result

    return wrapper


def _ref(reports: Reports, resource_id: str, resource_type: str = model.VOLUME) -> InstanceRef:
    return InstanceRef(reports.installation_uuid, resource_id, resource_type)


def _missing(image_id: str) -> Exception:
    from cinder.exception import ImageNotFound

    missing: Exception = ImageNotFound(image_id=image_id)
    return missing
