"""Image import: having the registry fetch, convert and store the data, and waiting for the end.

The registry answers 202 long before an import has succeeded. What came of it is in the image's
tasks and properties.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from related_images.client.errors import (
    ImportFailed,
    ImportNotOffered,
    ImportUnfinished,
    RegistryError,
)
from related_images.client.registry import OCTETS, Registry
from related_images.client.results import Image
from related_images.client.urls import hide_credentials
from related_images.wire import routes

GLANCE_DIRECT: Final = "glance-direct"
WEB_DOWNLOAD: Final = "web-download"
COPY_IMAGE: Final = "copy-image"
GLANCE_DOWNLOAD: Final = "glance-download"

INFO: Final = "/info/import"
GONE: Final = ("killed", "deleted", "pending_delete")
FAILED_STORES: Final = "os_glance_failed_import"
DEADLINE: Final = 3600.0
"""Seconds that an import may take if nothing else is said."""
LONGEST_PAUSE: Final = 2.0
"""Seconds between two looks at the image, once the import has gone on for a while."""


@dataclass(frozen=True)
class RemoteImage:
    """An image in the registry of another region."""

    image_id: str
    region: str
    service_interface: str = "public"


@dataclass(frozen=True)
class Stores:
    """Where an import goes to: the stores of these ``ids``, or all of the deployment.

    :param all_must_succeed: otherwise one store that took it is enough, and the image's
        ``os_glance_failed_import`` names the others
    """

    ids: tuple[str, ...] = ()
    every: bool = False
    all_must_succeed: bool = True

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"all_stores": True} if self.every else {}
        if self.ids:
            shown["stores"] = list(self.ids)
        if not self.all_must_succeed:
            shown["all_stores_must_succeed"] = False
        return shown


Task = Mapping[str, Any]
Source = bytes | BinaryIO | Iterable[bytes] | str | RemoteImage
Progress = Callable[[Image], object]


def ignore_progress(_image: Image) -> None:
    """Do nothing."""


class Importer:
    """One import from ``source``."""

    def __init__(self, registry: Registry, source: Source | None, stores: Stores) -> None:
        self._registry = registry
        self._source = source
        self._stores = stores
        self.method = _method(source)

    def check_offered(self, wanted: str | None) -> None:
        """Make sure that the deployment has the method.

        :raises ImportNotOffered: if it has not, or if another one is ``wanted``
        """
        answer = self._registry.ask("GET", INFO)
        offered = tuple(answer.read(lambda body: body["import-methods"]["value"]))
        if wanted not in (None, self.method) or self.method not in offered:
            raise ImportNotOffered(
                f"this source is imported by {self.method}, asked for is {wanted or 'any method'}, "
                f"and the deployment offers {', '.join(offered) or 'none'}; nothing was created",
                offered=offered,
            )

    def run(self, image_id: str, deadline: float, progress: Progress) -> Image:
        """Import into the image, and wait until that has succeeded.

        :param deadline: in seconds
        :raises ImportFailed: if it did not
        :raises RegistryError: if the registry cannot be asked, at the deadline at the latest
        """
        return _wait(self.start(image_id), deadline, progress)

    def start(self, image_id: str) -> "StartedImport":
        """Have the registry begin to import into the image."""
        path = f"{routes.IMAGES}/{image_id}"
        started = StartedImport(self._registry, path, self._stores.all_must_succeed)
        if self.method == GLANCE_DIRECT:
            self._registry.ask("PUT", f"{path}/stage", data=self._source, headers=OCTETS)
        body = {"method": self._described(), **self._stores.as_json()}
        # keystoneauth's log of requests would show the URL with its credentials
        self._registry.ask("POST", f"{path}/import", json=body, log=False)
        return started

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


class StartedImport:
    """An import that the registry has begun, or is about to begin, into the image at ``path``."""

    def __init__(self, registry: Registry, path: str, all_must_succeed: bool) -> None:
        self._registry = registry
        self._path = path
        self._all_must_succeed = all_must_succeed
        self._before = {task["id"] for task in self._tasks()}

    def look(self, progress: Progress = ignore_progress) -> tuple[Image, bool]:
        """The image as it is now, which ``progress`` is told, and whether the import has succeeded.

        :raises ImportFailed: if it has failed
        """
        task = next((task for task in self._tasks() if task["id"] not in self._before), None)
        image = self._registry.ask("GET", self._path).read(Image)
        progress(image)
        return image, self._is_done(image, task)

    def _is_done(self, image: Image, task: Task | None) -> bool:
        """Whether it has succeeded. There is no ``task`` if every store had the image already."""
        if (task and task["status"] == "failure") or image.status in GONE:
            raise _failed(image, task)
        if task and task["status"] != "success":
            return False
        left_out = self._all_must_succeed and image.get(FAILED_STORES)
        if image.status != "active" or left_out:
            raise _failed(image, task)
        return True

    def _tasks(self) -> Any:
        answer = self._registry.ask("GET", f"{self._path}/tasks", log=False)  # it shows the URL
        return answer.read(lambda body: body["tasks"])


def _wait(started: StartedImport, deadline: float, progress: Progress) -> Image:
    ends = time.monotonic() + deadline
    for pause in _pauses():
        try:
            image, done = started.look(progress)
        except RegistryError as error:
            # the import goes on, though nobody tells of it for a while
            if not error.may_pass or time.monotonic() + pause > ends:
                raise
        else:
            if done:
                return image
            if time.monotonic() + pause > ends:
                raise _unfinished(image, deadline)
        time.sleep(pause)
    raise AssertionError("pauses never end")


def _method(source: Source | None) -> str:
    if source is None:
        return COPY_IMAGE
    if isinstance(source, RemoteImage):
        return GLANCE_DOWNLOAD
    return WEB_DOWNLOAD if isinstance(source, str) else GLANCE_DIRECT


def _pauses() -> Iterator[float]:
    growing = itertools.accumulate(itertools.repeat(1.5), lambda pause, by: pause * by, initial=0.1)
    return (min(pause, LONGEST_PAUSE) for pause in growing)


def _failed(image: Image, task: Task | None) -> ImportFailed:
    stores = image.get(FAILED_STORES)
    said = hide_credentials((task or {}).get("message") or "no reason given")
    return ImportFailed(
        f"the import into image {image.id} failed: {said}"
        + (f" (not stored in {stores})" if stores else "")
        + f"; the image is {image.status}; import into it again, or delete it",
        image_id=image.id,
        image_status=image.status,
    )


def _unfinished(image: Image, deadline: float) -> ImportUnfinished:
    return ImportUnfinished(
        f"the import into image {image.id} did not end within {deadline:g} seconds; the image is "
        f"{image.status} and the import goes on; look at the image later",
        image_id=image.id,
        image_status=image.status,
    )
