"""Image import: Glance fetches, converts and stores the data, and the client waits for the end.

Glance answers 202 long before an import has ended. The image's tasks and properties say how it
ended, and what it was asked for, so that another process can go on waiting.
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
from related_images.client.glance import OCTETS, Glance, image_path
from related_images.client.image import Image
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
    check_stores_given,
    method_for,
    missing_formats,
)
from related_images.client.urls import hide_credentials

GONE: Final = ("killed", "deleted", "pending_delete")
FAILED_STORES: Final = "os_glance_failed_import"
LOCK: Final = "os_glance_import_task"
"""The property with the id of the task that has locked the image."""
LOCKED_FOR: Final = timedelta(minutes=60)
"""How long Glance keeps the lock of a task that does nothing any more and did not remove it."""
NOT_STARTED: Final = "pending"
"""The status of a task whose lock Glance keeps twice as long."""
FILTERED: Final = "does not pass filtering"
"""What Glance says of a URL that its configuration does not allow."""
DEADLINE: Final = 3600.0
"""Seconds that an import may take unless the caller says otherwise."""
LONGEST_PAUSE: Final = 2.0
"""Seconds between two looks at the image, once the import has gone on for a while."""

Progress = Callable[[Image], object]


def ignore_progress(_image: Image) -> None:
    """Do nothing."""


class Importer:
    """One import from ``source``.

    :raises ImportInvalid: if the source cannot be sent or fetched, or ``stores`` is malformed
    """

    def __init__(self, glance: Glance, source: Source | None, stores: Stores) -> None:
        check_source(source)
        check_stores_given(stores)
        self._glance = glance
        self._source = source
        self._stores = stores
        self.method = method_for(source)

    def check_offered(self, wanted: str | None) -> None:
        """Make sure that the deployment has the method and the stores.

        :raises ImportNotOffered: if the method is not offered, or if another one is ``wanted``
        :raises StoreNotOffered: if there is no such store
        """
        check_method(self._glance, self.method, wanted)
        check_stores(self._glance, self._stores, self.method)

    def check_formats(self, attributes: Mapping[str, Any]) -> None:
        """Make sure that the deployment takes the formats of a new image.

        :raises ImportInvalid: if it does not
        """
        check_formats_offered(self._glance, attributes)

    def check_image(self, image_id: str) -> None:
        """Make sure that an image that is there can be imported into.

        :raises ImportFailed: if it cannot; nothing was sent
        :raises NotFound: if there is no such image for the caller
        """
        image = _image(self._glance, image_path(image_id))
        wrong: str | None
        needed = "active" if self.method == COPY_IMAGE else "queued"
        missing = missing_formats(image)
        if image.status != needed:
            without = "no source is given, and " if self._source is None else ""
            wrong = f"{without}{self.method} needs one that is {needed}; {_advice(image)}"
        elif missing:
            wrong = f"it has no {missing}; set what is missing on the image first"
        else:
            wrong = self._locked(image) if LOCK in image else None
        if wrong:
            raise _error(image, f"image {image.id} is {image.status}, and {wrong}; {NOTHING_DONE}")

    def _locked(self, image: Image) -> str | None:
        """What is wrong with an image that a task has locked, as long as Glance minds that."""
        tasks = _tasks(self._glance, image_path(image.id))
        task = next((task for task in tasks if task["id"] == image[LOCK]), None)
        if task is None:
            return None
        kept = LOCKED_FOR * (2 if task["status"] == NOT_STARTED else 1)
        until = validation.parse_time("updated_at", task["updated_at"]) + kept
        if until <= datetime.now(UTC):
            return None
        if task["status"] not in ("success", "failure"):
            return f"another import into it goes on; wait for it with wait_for_import({image.id!r})"
        return (
            f"Glance keeps it locked until {validation.format_time(until)}, since an "
            "import that failed "
            "left its lock; try again after that"
            + ("" if image.status == "active" else ", or delete it and import into a new image")
        )

    def run(self, image_id: str, deadline: float, progress: Progress) -> Image:
        """Import into the image, and wait until that has succeeded.

        :param deadline: in seconds
        :raises ImportFailed: if it did not
        :raises GlanceError: if Glance cannot be asked, at the deadline at the latest
        """
        return wait(self.start(image_id), deadline, progress)

    def start(self, image_id: str) -> "StartedImport":
        """Have Glance begin to import into the image.

        :raises ImportFailed: if it refuses
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
                self._glance.ask("PUT", f"{path}/stage", data=data, headers=OCTETS)
        stores = self._stores
        if self.method == COPY_IMAGE and stores.ids:
            # Glance refuses to copy to any of them if one has the image already
            stores = replace(stores, ids=_without(stores.ids, _image(self._glance, path)))
            if not stores.ids:
                return
        body = {"method": self._described(), **stores.as_json()}
        # keystoneauth's log of requests would show the URL with its credentials
        self._glance.ask("POST", f"{path}/import", json=body, log=False)

    def _described(self) -> dict[str, str]:
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
        asked_as = f" (request id {error.request_id})" if error.request_id else ""
        return _error(
            image,
            f"Glance refused the import into image {image_id}: {error.said}{asked_as}"
            f"{_about_filters(error)}; {_advice(image, _without(self._stores.ids, image))}",
        )


@dataclass(frozen=True)
class Asked:
    """What a task of Glance was asked for.

    :ivar stores: those that it writes to; none if Glance has one store without an id
    """

    stores: tuple[str, ...]
    all_must_succeed: bool

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> "Asked":
        asked = task.get("input") or {}
        request = asked.get("import_req") or {}
        return cls(
            tuple(store for store in asked.get("backend") or () if store),
            request.get("all_stores_must_succeed", True),
        )

    def lacking(self, image: Image) -> tuple[str, ...]:
        """The stores that were asked for and do not have the image, as far as Glance shows it."""
        if "stores" in image:
            return _without(self.stores, image)
        # it has no data, or a policy hides where that is
        failed = _named(image, FAILED_STORES)
        return tuple(store for store in self.stores if store in failed)

    def is_met(self, image: Image) -> bool:
        """Whether all stores have the image that must have it."""
        lacking = self.lacking(image)
        return not lacking or (not self.all_must_succeed and len(lacking) < len(self.stores))


Task = Mapping[str, Any]


class StartedImport:
    """An import that Glance has begun, or is about to begin, into an image.

    :param before: the ids of the tasks that are not meant, since they are older
    """

    def __init__(self, glance: Glance, image_id: str, before: set[str] | None = None) -> None:
        self._glance = glance
        self._path = image_path(image_id)
        self._before = before or set()

    def look(self, progress: Progress = ignore_progress) -> tuple[Image, bool]:
        """The image as it is now, which ``progress`` is told, and whether the import has succeeded.

        :raises ImportFailed: if it has failed
        """
        # in this order: what the task has finished shows in the image
        tasks = [it for it in _tasks(self._glance, self._path) if it["id"] not in self._before]
        image = _image(self._glance, self._path)
        progress(image)
        return image, _is_done(image, _latest(tasks, image))


def wait(started: StartedImport, deadline: float, progress: Progress) -> Image:
    """Look at the import until it has ended, for the last time at the deadline.

    :param deadline: in seconds from now
    :raises ImportFailed: if it failed
    :raises ImportUnfinished: if it has not ended at the deadline
    :raises GlanceError: if Glance cannot be asked, at the deadline at the latest
    """
    ends = time.monotonic() + deadline
    for pause in _pauses():
        left = ends - time.monotonic()
        try:
            image, done = started.look(progress)
        except GlanceError as error:
            # the import goes on, though nobody can be asked about it for a while
            if not error.may_pass or left <= 0:
                raise
        else:
            if done:
                return image
            if left <= 0:
                raise _unfinished(image, deadline)
        time.sleep(max(0.0, min(pause, ends - time.monotonic())))
    raise AssertionError("pauses never end")


def _is_done(image: Image, task: Task | None) -> bool:
    """Whether it has succeeded. There is no ``task`` if every store had the image already."""
    if image.status in GONE:
        raise _failed(image, task, "it was deleted meanwhile")
    if task is None:
        return _is_done_by_itself(image)
    if task["status"] == "failure":
        raise _failed(image, task, task.get("message") or "Glance gave no reason")
    if task["status"] != "success" or image.get(LOCK) == task["id"]:
        return False  # Glance removes the lock last; before that it refuses another import
    if image.status != "active":
        raise _failed(image, task, "its task ended, and the image is not active")
    asked = Asked.of(task)
    if not asked.is_met(image):
        raise _failed(image, task, "not every store that must have the image took it")
    return True


def _is_done_by_itself(image: Image) -> bool:
    """Whether an image is active and no import goes on, where Glance shows the caller no task."""
    if LOCK in image:
        return False
    if image.status != "active":
        raise _failed(image, None, "no import into it is under way")
    return True


def _latest(tasks: list[Task], image: Image) -> Task | None:
    """The task that has locked the image, else the newest."""
    locking = [task for task in tasks if task["id"] == image.get(LOCK)]
    return max(locking or tasks, key=lambda task: task.get("created_at") or "", default=None)


def _image(glance: Glance, path: str) -> Image:
    return glance.ask("GET", path).read(Image)


def _tasks(glance: Glance, path: str) -> list[Task]:
    answer = glance.ask("GET", f"{path}/tasks", log=False)  # it shows the URL
    return answer.read(lambda body: list(body["tasks"]))


def _named(image: Image, name: str) -> tuple[str, ...]:
    """The stores that a property of the image names."""
    return tuple(store for store in str(image.get(name) or "").split(",") if store)


def _without(stores: tuple[str, ...], image: Image) -> tuple[str, ...]:
    """Those of the stores that do not have the image."""
    has = _named(image, "stores")
    return tuple(store for store in stores if store not in has)


def _pauses() -> Iterator[float]:
    growing = itertools.accumulate(itertools.repeat(1.5), lambda pause, by: pause * by, initial=0.1)
    return (min(pause, LONGEST_PAUSE) for pause in growing)


def _is_refusal(error: GlanceError) -> bool:
    """Whether Glance says that it will not import, rather than that it cannot be asked now."""
    answered = error.status is not None and error.status < 500
    return answered and not error.doubtful and not isinstance(error, Unauthorized)


def _about_filters(error: GlanceError) -> str:
    if FILTERED not in error.said:
        return ""
    return (
        "; the host has no address that Glance can use, or [import_filtering_opts] of Glance does "
        "not allow it: ask the operators of Glance which schemes, hosts and ports are allowed, or "
        "give the data as an open binary file"
    )


def _advice(image: Image, lacking: tuple[str, ...] = ()) -> str:
    """What can be done with the image, now that the import did not succeed.

    :param lacking: the stores that should have it and do not
    """
    status = image.get("status")
    if status is None or status in GONE:
        return "look whether the image is still there; if it is not, import into a new one"
    if status == "active":
        return _advice_on_active(image, lacking)
    if status != "queued":
        return (
            f"Glance imports nothing into an image that is {status}: unless another import into it "
            "goes on, delete it and import into a new one"
        )
    if LOCK in image:
        return (
            "the image is queued, and Glance keeps it locked for 60 minutes after a failure: "
            "import into it after that, or delete it and import into a new one"
        )
    return (
        "the image is queued and has no data: import a source into it with "
        f"image_id={image.id!r}, or delete it"
    )


def _advice_on_active(image: Image, lacking: tuple[str, ...]) -> str:
    """Never to delete it: it is a good image."""
    if not lacking:
        return "the image is active and keeps its data; other data needs a new image"
    lock = (
        " 60 minutes later, when Glance no longer keeps the image locked," if LOCK in image else ""
    )
    has = ", ".join(_named(image, "stores")) or "the stores that have it"
    return (
        f"the image is active and keeps its data in {has}; only {', '.join(lacking)} lacks it: "
        f"ask the operators of Glance whether the store has room, then copy again,{lock} "
        f"with import_image(image_id={image.id!r}, stores=Stores(ids={lacking!r}))"
    )


def _failed(image: Image, task: Task | None, why: str) -> ImportFailed:
    asked = Asked.of(task or {})
    lacking = asked.lacking(image)
    where = f" (not stored in {', '.join(lacking)})" if lacking else ""
    return _error(
        image,
        f"the import into image {image.id} failed: {hide_credentials(why)}{where}; "
        f"{_advice(image, lacking)}",
    )


def _error(image: Image, message: str) -> ImportFailed:
    return ImportFailed(message, image_id=image.id, image_status=image.get("status"))


def _unfinished(image: Image, deadline: float) -> ImportUnfinished:
    return ImportUnfinished(
        f"the import into image {image.id} did not end within {deadline:g} seconds; the image is "
        f"{image.status} and the import goes on; wait_for_import({image.id!r}) goes on waiting",
        image_id=image.id,
        image_status=image.status,
    )
