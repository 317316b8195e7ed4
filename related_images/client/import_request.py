"""What an import is asked for, and what is found wrong with it before anything is created."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from related_images import validation
from related_images.client.errors import (
    ImportInvalid,
    ImportNotOffered,
    NotFound,
    StoreNotOffered,
)
from related_images.client.glance import Glance
from related_images.client.image_data import FORMS, Data, fault

GLANCE_DIRECT: Final = "glance-direct"
WEB_DOWNLOAD: Final = "web-download"
COPY_IMAGE: Final = "copy-image"
GLANCE_DOWNLOAD: Final = "glance-download"

METHODS_PATH: Final = "/info/import"
STORES_PATH: Final = "/info/stores"
SCHEMA_PATH: Final = "/schemas/image"
FORMATS: Final = ("disk_format", "container_format")
SCHEMES: Final = ("http", "https")
"""What Glance can download from, whatever more a deployment allows."""
INTERFACES: Final = ("public", "internal", "admin")
NOTHING_DONE: Final = "nothing was created or sent"
_NEVER_IN_URLS: Final = re.compile(r"[\s<>]")


@dataclass(frozen=True)
class RemoteImage:
    """An image in the Glance of another region."""

    image_id: str
    region: str
    service_interface: str = "public"


@dataclass(frozen=True)
class Stores:
    """The stores that an import writes to: those with these ``ids``, or every store.

    :param all_must_succeed: otherwise it is enough if one of them takes the image; the image's
        ``os_glance_failed_import`` names those that did not
    :raises TypeError: if ``ids`` is a text, or is given together with ``every``
    """

    ids: tuple[str, ...] = ()
    every: bool = False
    all_must_succeed: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.ids, str):
            raise TypeError(f"ids is a tuple of store ids, such as ({self.ids!r},)")
        if self.ids and self.every:
            raise TypeError("give either ids or every=True, not both")

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"all_stores": True} if self.every else {}
        if self.ids:
            shown["stores"] = list(dict.fromkeys(self.ids))
        if not self.all_must_succeed:
            shown["all_stores_must_succeed"] = False
        return shown


Source = Data | str | RemoteImage


def method_for(source: Source | None) -> str:
    """The import method that takes such a source."""
    if source is None:
        return COPY_IMAGE
    if isinstance(source, RemoteImage):
        return GLANCE_DOWNLOAD
    return WEB_DOWNLOAD if isinstance(source, str) else GLANCE_DIRECT


def check_source(source: Source | None) -> None:
    """Make sure that the source is one that can be sent or fetched.

    :raises ImportInvalid: if it is not
    """
    if isinstance(source, RemoteImage):
        wrong = _wrong_remote(source)
    elif isinstance(source, str):
        wrong = _wrong_url(source)
    else:
        wrong = None if source is None else fault(source, f"{FORMS}, a URL or a RemoteImage")
    if wrong:
        raise ImportInvalid(f"{wrong}; {NOTHING_DONE}")


def check_stores_given(stores: Stores) -> None:
    """Make sure that the stores are given as :class:`Stores`.

    :raises ImportInvalid: if they are not
    """
    if not isinstance(stores, Stores):
        raise ImportInvalid(
            f"stores is {validation.shown(stores)}, and has to be Stores(ids=(…,)) or "
            f"Stores(every=True); {NOTHING_DONE}"
        )


def check_waiting(deadline: float, progress: Callable[..., object]) -> None:
    """Make sure that the deadline is a number of seconds, and that progress can be called.

    :raises ImportInvalid: if not
    """
    if not isinstance(deadline, int | float) or not deadline >= 0:
        raise ImportInvalid(
            f"deadline is {deadline!r}, and has to be a number of seconds, 0 or more; "
            f"{NOTHING_DONE}"
        )
    if not callable(progress):
        raise ImportInvalid(
            f"progress is {validation.shown(progress)}, and has to be a function that takes the "
            f"image; {NOTHING_DONE}"
        )


def check_formats(attributes: Mapping[str, Any]) -> None:
    """Make sure that a new image has what Glance needs to import into it.

    :raises ImportInvalid: if it has not
    """
    missing = missing_formats(attributes)
    if missing:
        raise ImportInvalid(
            f"{missing} must be given: Glance imports only into an image that has both formats, "
            "such as disk_format='qcow2', container_format='bare'; GET /v2/schemas/image lists the "
            f"formats that are allowed; {NOTHING_DONE}"
        )


def check_formats_offered(glance: Glance, attributes: Mapping[str, Any]) -> None:
    """Make sure that the formats of a new image are among those of the deployment.

    :raises ImportInvalid: if they are not
    """
    offered = glance.ask("GET", SCHEMA_PATH).read(
        lambda body: {name: body["properties"][name]["enum"] for name in FORMATS}
    )
    for name, allowed in offered.items():
        if attributes[name] not in allowed:
            raise ImportInvalid(
                f"{name} is {validation.shown(attributes[name])}, and this Glance takes "
                f"{', '.join(filter(None, allowed))}; {NOTHING_DONE}"
            )


def missing_formats(attributes: Mapping[str, Any]) -> str:
    return " and ".join(name for name in FORMATS if not attributes.get(name))


def check_method(glance: Glance, method: str, wanted: str | None) -> None:
    """Make sure that the deployment offers the method.

    :raises ImportNotOffered: if it does not, or if another one is ``wanted``
    """
    answer = glance.ask("GET", METHODS_PATH)
    offered = tuple(answer.read(lambda body: body["import-methods"]["value"]))
    if wanted not in (None, method) or method not in offered:
        subject = (
            "no source is given, so that the image would be copied"
            if method == COPY_IMAGE
            else "this source is imported"
        )
        raise ImportNotOffered(
            f"{subject} by {method}, asked for is {wanted or 'any method'}, and the deployment "
            f"offers {', '.join(offered) or 'none'}; {NOTHING_DONE}",
            offered=offered,
        )


def check_stores(glance: Glance, stores: Stores, method: str) -> None:
    """Make sure that the deployment has the stores, and that they can be written to.

    :raises StoreNotOffered: if it has not
    """
    needs_several = method == COPY_IMAGE or not stores.all_must_succeed
    if not (stores.ids or needs_several):
        return
    offered = _writable_stores(glance)
    if offered is None:
        raise StoreNotOffered(
            "this Glance has one store, without an id: an image cannot be copied, and neither ids "
            f"nor all_must_succeed=False can be given; {NOTHING_DONE}",
            offered=(),
        )
    unknown = [str(store) for store in stores.ids if store not in offered]
    if unknown:
        raise StoreNotOffered(
            f"there is no store {', '.join(unknown)} that can be written to; the deployment offers "
            f"{', '.join(offered) or 'none'}; {NOTHING_DONE}",
            offered=offered,
        )


def _writable_stores(glance: Glance) -> tuple[str, ...] | None:
    """The ids of the stores; ``None`` if Glance is not configured with several."""
    try:
        answer = glance.ask("GET", STORES_PATH)
    except NotFound:
        return None
    return answer.read(
        lambda body: tuple(
            store["id"] for store in body["stores"] if store.get("read-only") != "true"
        )
    )


def _wrong_remote(source: RemoteImage) -> str | None:
    if not validation.is_uuid(source.image_id):
        return f"the image_id {source.image_id!r} of the remote image is not a UUID"
    if not validation.is_text(source.region):
        return "the remote image has no region"
    if source.service_interface not in INTERFACES:
        return (
            f"the service_interface {source.service_interface!r} is not one of "
            f"{', '.join(INTERFACES)}"
        )
    return None


def _wrong_url(url: str) -> str | None:
    """Nothing of the text is shown but its scheme: the rest may hold a password."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port  # reading a malformed port raises
    except ValueError:
        return "the URL of the source cannot be read: its host or port is malformed"
    if parts.scheme in SCHEMES and host and not _NEVER_IN_URLS.search(url):
        return None
    return (
        "a source that is a text must be a URL that begins with http:// or https://, names a host, "
        f"and has no spaces (its scheme is {parts.scheme!r}); give a local file as a Path "
        "or an open binary file"
    )
