"""Image import: Glance downloads, converts and stores the data, and the client waits for the end.

Glance responds with 202 before the import ends. The tasks and properties of the image contain the
result and the request of the import, so another process can continue to wait for it.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from related_images import validation
from related_images.client.errors import (
    GlanceError,
    ImportFailed,
    ImportUnfinished,
    Unauthorized,
)
from related_images.client.glance import DATA_HEADERS, Glance, image_path
from related_images.client.image_data import Data, opened
from related_images.client.import_request import (
    COPY_IMAGE,
    GLANCE_DIRECT,
    NOTHING_DONE,
    RemoteImage,
    Source,
    Stores,
    check_formats_offered,
    check_method,
    check_source,
    check_stores,
    check_stores_type,
    method_for,
    missing_formats,
)
from related_images.client.results import Image
from related_images.client.url_credentials import hide_credentials

GONE: Final = ("killed", "deleted", "pending_delete")
FAILED_STORES: Final = "os_glance_failed_import"
LOCK: Final = "os_glance_import_task"
"""The property with the ID of the task that has locked the image."""
LOCKED_FOR: Final = timedelta(minutes=60)
"""The time for which Glance respects the lock of a task that did not remove it.

Source: ``_enforce_import_lock`` in ``glance/api/v2/images.py``.
"""
NOT_STARTED: Final = "pending"
"""The status of a task with a lock that Glance respects for twice this time."""
FILTERED: Final = "does not pass filtering"
"""Part of Glance's message for a URL that its configuration does not allow."""
DEADLINE: Final = 3600.0
"""The default deadline of an import, in seconds."""
LONGEST_PAUSE: Final = 2.0
"""The maximum number of seconds between two requests for the state of an import."""

Progress = Callable[[Image], object]
"""Called with the image after each request for its state."""


def ignore_progress(_image: Image) -> None:
    """Do nothing; the default for ``progress``."""


class Importer:
    """One import.

    :param glance: sends the requests
    :param source: the source; ``None`` to copy an image to more stores
    :param stores: the stores to import to
    :raises ImportInvalid: if the source or the stores are invalid
    :ivar method: the import method
    """

    def __init__(self, glance: Glance, source: Source | None, stores: Stores) -> None:
        check_source(source)
        check_stores_type(stores)
        self._glance = glance
        self._source = source
        self._stores = stores
        self.method = method_for(source)

    def check_offered(self, wanted: str | None) -> None:
        """Check that the deployment has the import method and the stores.

        :param wanted: the expected import method; ``None`` for any
        :raises ImportNotOffered: if it does not have the method, or another one is ``wanted``
        :raises StoreNotOffered: if it does not have a store
        """
        check_method(self._glance, self.method, wanted)
        check_stores(self._glance, self._stores, self.method)

    def check_formats(self, attributes: Mapping[str, Any]) -> None:
        """Check that the deployment allows the formats of a new image.

        :param attributes: the attributes of the image
        :raises ImportInvalid: if not
        """
        check_formats_offered(self._glance, attributes)

    def check_image(self, image_id: str) -> None:
        """Check that an existing image is in a state for the import.

        :param image_id: ID of the image
        :raises ImportFailed: if not; nothing was sent
        :raises NotFound: if the image does not exist or the caller cannot see it
        """
        image = _image(self._glance, image_path(image_id))
        reason: str | None
        needed = "active" if self.method == COPY_IMAGE else "queued"
        missing = missing_formats(image)
        if image.status != needed:
            subject = (
                f"{self.method} (no source was passed)" if self._source is None else self.method
            )
            reason = f"{subject} needs an image that is {needed}; {_advice(image)}"
        elif missing:
            reason = f"it has no {missing}; set {missing} of the image first"
        else:
            reason = self._reason_of_lock(image) if LOCK in image else None
        if reason:
            raise _error(image, f"image {image.id} is {image.status}, and {reason}; {NOTHING_DONE}")

    def _reason_of_lock(self, image: Image) -> str | None:
        """Return why an image is locked; ``None`` if Glance does not respect the lock any more."""
        tasks = _tasks(self._glance, image_path(image.id))
        task = next((task for task in tasks if task["id"] == image[LOCK]), None)
        if task is None:
            return None
        duration = LOCKED_FOR * (2 if task["status"] == NOT_STARTED else 1)
        until = validation.parse_time("updated_at", task["updated_at"]) + duration
        if until <= datetime.now(UTC):
            return None
        if task["status"] not in ("success", "failure"):
            return (
                "another import into it is in progress; wait for it with "
                f"wait_for_import({image.id!r})"
            )
        return (
            f"it is locked until {validation.format_time(until)}, because a failed import did not "
            "remove its lock; try again after that"
            + ("" if image.status == "active" else ", or delete it and import into a new image")
        )

    def run(self, image_id: str, deadline: float, progress: Progress) -> Image:
        """Import into an image, and wait until the import has succeeded.

        :param image_id: ID of the image
        :param deadline: seconds to wait
        :param progress: called with the image after each request for its state
        :returns: the image
        :raises ImportFailed: if Glance refused the import, or the import failed
        :raises ImportUnfinished: if the import did not end within ``deadline``
        :raises GlanceError: if a request fails; temporary errors only at the deadline
        """
        return wait(self.start(image_id), deadline, progress)

    def start(self, image_id: str) -> "StartedImport":
        """Start the import into an image.

        :param image_id: ID of the image
        :returns: the import
        :raises ImportFailed: if Glance refuses it
        :raises GlanceError: if it is not known whether Glance started it
        """
        path = image_path(image_id)
        started = StartedImport(
            self._glance, image_id, {task["id"] for task in _tasks(self._glance, path)}
        )
        try:
            self._send(path)
        except GlanceError as error:
            if not _is_refusal(error):
                raise
            raise self._refused(image_id, error) from error
        return started

    def _send(self, path: str) -> None:
        if self.method == GLANCE_DIRECT:
            with opened(cast(Data, self._source)) as data:
                self._glance.request("PUT", f"{path}/stage", data=data, headers=DATA_HEADERS)
        stores = self._stores
        if self.method == COPY_IMAGE and stores.ids:
            # Glance refuses the whole copy if one of the stores already has the image
            stores = replace(stores, ids=_missing_stores(stores.ids, _image(self._glance, path)))
            if not stores.ids:
                return
        body = {"method": self._method_as_json(), **stores.as_json()}
        # without log=False keystoneauth1 would log the URL with its credentials
        self._glance.request("POST", f"{path}/import", json=body, log=False)

    def _method_as_json(self) -> dict[str, str]:
        source = self._source
        if isinstance(source, RemoteImage):
            return {
                "name": self.method,
                "glance_region": source.region,
                "glance_image_id": source.image_id,
                "glance_service_interface": source.service_interface,
            }
        return {"name": self.method} | ({"uri": source} if isinstance(source, str) else {})

    def _refused(self, image_id: str, error: GlanceError) -> ImportFailed:
        try:
            image = _image(self._glance, image_path(image_id))
        except GlanceError:
            image = Image({"id": image_id})
        request_id = f" (request id {error.request_id})" if error.request_id else ""
        advice = _advice(image, _missing_stores(self._stores.ids, image))
        return _error(
            image,
            f"Glance refused the import into image {image_id}: {error.reason}{request_id}"
            f"{_hint_on_filters(error)}; {advice}",
        )


@dataclass(frozen=True)
class ImportTask:
    """The request of a task of Glance.

    :ivar stores: the stores that it writes to; empty if Glance has one store without an ID
    :ivar all_must_succeed: ``False`` if it is enough that one store has the image
    """

    stores: tuple[str, ...]
    all_must_succeed: bool

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> "ImportTask":
        """Return the request of a task.

        :param task: the task as Glance shows it
        """
        values = task.get("input") or {}
        request = values.get("import_req") or {}
        return cls(
            tuple(store for store in values.get("backend") or () if store),
            request.get("all_stores_must_succeed", True),
        )

    def missing(self, image: Image) -> tuple[str, ...]:
        """Return the stores of the request that do not have the image, as far as Glance shows.

        :param image: the image as Glance shows it
        """
        if "stores" in image:
            return _missing_stores(self.stores, image)
        # the image has no data, or a policy hides its stores
        failed = _stores_in(image, FAILED_STORES)
        return tuple(store for store in self.stores if store in failed)

    def is_complete(self, image: Image) -> bool:
        """Return True if the image is in all stores, or in one store if that is enough.

        :param image: the image as Glance shows it
        """
        missing = self.missing(image)
        return not missing or (not self.all_must_succeed and len(missing) < len(self.stores))


Task = Mapping[str, Any]


class StartedImport:
    """An import into an image that was started.

    :param glance: sends the requests
    :param image_id: ID of the image
    :param before: IDs of older tasks, which are ignored
    """

    def __init__(self, glance: Glance, image_id: str, before: set[str] | None = None) -> None:
        self._glance = glance
        self._path = image_path(image_id)
        self._before = before or set()

    def poll(self, progress: Progress = ignore_progress) -> tuple[Image, bool]:
        """Request the state of the import.

        :param progress: called with the image
        :returns: the image, and ``True`` if the import has succeeded
        :raises ImportFailed: if it has failed
        :raises GlanceError: if a request fails
        """
        # in this order, so that the image has the changes of a task that has ended
        tasks = [t for t in _tasks(self._glance, self._path) if t["id"] not in self._before]
        image = _image(self._glance, self._path)
        progress(image)
        return image, _is_done(image, _latest(tasks, image))


def wait(started: StartedImport, deadline: float, progress: Progress) -> Image:
    """Poll an import until it has ended, the last time at the deadline.

    :param started: the import
    :param deadline: seconds to wait
    :param progress: called with the image after each request for its state
    :returns: the image
    :raises ImportFailed: if the import failed
    :raises ImportUnfinished: if the import did not end within ``deadline``
    :raises GlanceError: if a request fails; temporary errors only at the deadline
    """
    ends = time.monotonic() + deadline
    for pause in _pauses():
        left = ends - time.monotonic()
        try:
            image, done = started.poll(progress)
        except GlanceError as error:
            # the import continues while Glance does not respond
            if not error.is_temporary or left <= 0:
                raise
        else:
            if done:
                return image
            if left <= 0:
                raise _unfinished(image, deadline)
        time.sleep(max(0.0, min(pause, ends - time.monotonic())))
    raise AssertionError("the sequence of pauses is infinite")


def _is_done(image: Image, task: Task | None) -> bool:
    """Return True if the import has succeeded.

    :param task: ``None`` if all stores already had the image, or Glance does not show the task
    :raises ImportFailed: if it has failed
    """
    if image.status in GONE:
        raise _failed(image, task, "the image was deleted in the meantime")
    if task is None:
        return _is_done_without_task(image)
    if task["status"] == "failure":
        raise _failed(image, task, task.get("message") or "Glance gave no reason")
    if task["status"] != "success" or image.get(LOCK) == task["id"]:
        return False  # Glance removes the lock last, and refuses other imports before
    if image.status != "active":
        raise _failed(image, task, "the task ended, but the image is not active")
    if not ImportTask.of(task).is_complete(image):
        raise _failed(image, task, "a store that must have the image does not have it")
    return True


def _is_done_without_task(image: Image) -> bool:
    """Return True if the image is active and not locked.

    :raises ImportFailed: if it is neither
    """
    if LOCK in image:
        return False
    if image.status != "active":
        raise _failed(image, None, "no import into it is in progress")
    return True


def _latest(tasks: list[Task], image: Image) -> Task | None:
    """Return the task that has locked the image, else the newest one."""
    locking = [task for task in tasks if task["id"] == image.get(LOCK)]
    return max(locking or tasks, key=lambda task: task.get("created_at") or "", default=None)


def _image(glance: Glance, path: str) -> Image:
    return glance.request("GET", path).read(Image)


def _tasks(glance: Glance, path: str) -> list[Task]:
    answer = glance.request("GET", f"{path}/tasks", log=False)  # the tasks have the URL
    return answer.read(lambda body: list(body["tasks"]))


def _stores_in(image: Image, name: str) -> tuple[str, ...]:
    """Return the stores in a property of the image."""
    return tuple(store for store in str(image.get(name) or "").split(",") if store)


def _missing_stores(stores: tuple[str, ...], image: Image) -> tuple[str, ...]:
    """Return those of ``stores`` that do not have the image."""
    present = _stores_in(image, "stores")
    return tuple(store for store in stores if store not in present)


def _pauses() -> Iterator[float]:
    growing = itertools.accumulate(itertools.repeat(1.5), lambda pause, by: pause * by, initial=0.1)
    return (min(pause, LONGEST_PAUSE) for pause in growing)


def _is_refusal(error: GlanceError) -> bool:
    """Return True if Glance refused the import, and did not process the request."""
    is_client_error = error.status is not None and error.status < 500
    return is_client_error and not error.doubtful and not isinstance(error, Unauthorized)


def _hint_on_filters(error: GlanceError) -> str:
    if FILTERED not in error.reason:
        return ""
    return (
        "; the host has no address that Glance can use, or [import_filtering_opts] of Glance does "
        "not allow the URL: ask an operator of Glance for the allowed schemes, hosts and ports, or "
        "pass the data as an open binary file"
    )


def _advice(image: Image, missing: tuple[str, ...] = ()) -> str:
    """Return what the user can do after the import failed.

    :param missing: the stores of the request that do not have the image
    """
    status = image.get("status")
    if status is None or status in GONE:
        return "check that the image still exists; if it does not, import into a new image"
    if status == "active":
        return _advice_on_active(image, missing)
    if status != "queued":
        return (
            f"Glance does not import into an image that is {status}: unless another import into it "
            "is in progress, delete it and import into a new image"
        )
    if LOCK in image:
        return (
            "the image is queued, and locked for 60 minutes after a failure: import into it after "
            "that, or delete it and import into a new image"
        )
    return (
        f"the image is queued and has no data: import into it with image_id={image.id!r}, or "
        "delete it"
    )


def _advice_on_active(image: Image, missing: tuple[str, ...]) -> str:
    """Return the advice for an active image, which has all its data and should not be deleted."""
    if not missing:
        return "the image is active and keeps its data; for other data, create a new image"
    lock = " after 60 minutes, when the image is not locked any more," if LOCK in image else ""
    present = ", ".join(_stores_in(image, "stores")) or "the other stores"
    return (
        f"the image is active and keeps its data in {present}; only {', '.join(missing)} does not "
        f"have it: ask an operator of Glance if the store has space, then copy again,{lock} with "
        f"import_image(image_id={image.id!r}, stores=Stores(ids={missing!r}))"
    )


def _failed(image: Image, task: Task | None, why: str) -> ImportFailed:
    missing = ImportTask.of(task or {}).missing(image)
    where = f" (not stored in {', '.join(missing)})" if missing else ""
    return _error(
        image,
        f"the import into image {image.id} failed: {hide_credentials(why)}{where}; "
        f"{_advice(image, missing)}",
    )


def _error(image: Image, message: str) -> ImportFailed:
    return ImportFailed(message, image_id=image.id, image_status=image.get("status"))


def _unfinished(image: Image, deadline: float) -> ImportUnfinished:
    return ImportUnfinished(
        f"the import into image {image.id} did not end within {deadline:g} seconds; the image is "
        f"{image.status} and the import continues; wait for it with wait_for_import({image.id!r})",
        image_id=image.id,
        image_status=image.status,
    )
