"""The arguments of an image import, and their checks before anything is created."""

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
"""The URL schemes that Glance supports for ``web-download``."""
INTERFACES: Final = ("public", "internal", "admin")
NOTHING_DONE: Final = "nothing was created or sent"
_INVALID_IN_URLS: Final = re.compile(r"[\s<>]")


@dataclass(frozen=True)
class RemoteImage:
    """An image in the Glance of another region.

    :ivar image_id: ID of the image in that region
    :ivar region: name of the region in the catalog
    :ivar service_interface: ``public``, ``internal`` or ``admin``
    """

    image_id: str
    region: str
    service_interface: str = "public"


@dataclass(frozen=True)
class Stores:
    """The stores that an import writes to; Glance's default store without arguments.

    :param ids: IDs of stores
    :param every: ``True`` for all stores
    :param all_must_succeed: ``False`` if it is enough that one store has the image; the property
        ``os_glance_failed_import`` of the image lists the stores that failed
    :raises TypeError: if ``ids`` is a str, or is not empty with ``every``
    """

    ids: tuple[str, ...] = ()
    every: bool = False
    all_must_succeed: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.ids, str):
            raise TypeError(f"ids must be a tuple of store IDs, such as ({self.ids!r},)")
        if self.ids and self.every:
            raise TypeError("pass either ids or every=True, not both")

    def as_json(self) -> dict[str, Any]:
        """Return the fields for the body of Glance's import request."""
        shown: dict[str, Any] = {"all_stores": True} if self.every else {}
        if self.ids:
            shown["stores"] = list(dict.fromkeys(self.ids))
        if not self.all_must_succeed:
            shown["all_stores_must_succeed"] = False
        return shown


Source = Data | str | RemoteImage


def method_for(source: Source | None) -> str:
    """Return the import method for a source; ``copy-image`` for ``None``."""
    if source is None:
        return COPY_IMAGE
    if isinstance(source, RemoteImage):
        return GLANCE_DOWNLOAD
    return WEB_DOWNLOAD if isinstance(source, str) else GLANCE_DIRECT


def check_source(source: Source | None) -> None:
    """Check that the client can send the source, or Glance can download it.

    :param source: the source; ``None`` for a copy
    :raises ImportInvalid: if not
    """
    if isinstance(source, RemoteImage):
        reason = _fault_of_remote(source)
    elif isinstance(source, str):
        reason = _fault_of_url(source)
    else:
        reason = None if source is None else fault(source, f"{FORMS}, a URL or a RemoteImage")
    if reason:
        raise ImportInvalid(f"{reason}; {NOTHING_DONE}")


def check_stores_type(stores: Stores) -> None:
    """Check that the argument is an instance of :class:`Stores`.

    :param stores: the argument
    :raises ImportInvalid: if not
    """
    if not isinstance(stores, Stores):
        raise ImportInvalid(
            f"stores is {validation.shown(stores)} and must be Stores(ids=(…,)) or "
            f"Stores(every=True); {NOTHING_DONE}"
        )


def check_waiting(deadline: float, progress: Callable[..., object]) -> None:
    """Check that the deadline is a number of seconds from 0, and that ``progress`` is callable.

    :raises ImportInvalid: if not
    """
    if not isinstance(deadline, int | float) or not deadline >= 0:
        raise ImportInvalid(
            f"deadline is {deadline!r} and must be a number of seconds, 0 or more; {NOTHING_DONE}"
        )
    if not callable(progress):
        raise ImportInvalid(
            f"progress is {validation.shown(progress)} and must be a function that takes the "
            f"image; {NOTHING_DONE}"
        )


def check_formats(attributes: Mapping[str, Any]) -> None:
    """Check that a new image has both formats, which Glance needs for an import.

    :param attributes: the attributes of the image
    :raises ImportInvalid: if one is missing
    """
    missing = missing_formats(attributes)
    if missing:
        raise ImportInvalid(
            f"{missing} is missing: Glance imports only into an image with both formats, such as "
            "disk_format='qcow2', container_format='bare'; GET /v2/schemas/image lists the allowed "
            f"formats; {NOTHING_DONE}"
        )


def check_formats_offered(glance: Glance, attributes: Mapping[str, Any]) -> None:
    """Check that the deployment allows the formats of a new image.

    :param glance: sends the request for the schema of images
    :param attributes: the attributes of the image
    :raises ImportInvalid: if not
    """
    offered = glance.request("GET", SCHEMA_PATH).read(
        lambda body: {name: body["properties"][name]["enum"] for name in FORMATS}
    )
    for name, allowed in offered.items():
        if attributes[name] not in allowed:
            raise ImportInvalid(
                f"{name} is {validation.shown(attributes[name])}, but this Glance allows "
                f"{', '.join(filter(None, allowed))}; {NOTHING_DONE}"
            )


def missing_formats(attributes: Mapping[str, Any]) -> str:
    """Return the missing formats of an image, joined by "and"; empty if it has both.

    :param attributes: the attributes of the image
    """
    return " and ".join(name for name in FORMATS if not attributes.get(name))


def check_method(glance: Glance, method: str, wanted: str | None) -> None:
    """Check that the deployment offers the import method.

    :param glance: sends the request for the import methods
    :param method: the import method for the source
    :param wanted: the import method in the arguments; ``None`` for any
    :raises ImportNotOffered: if it does not, or if another method is ``wanted``
    """
    answer = glance.request("GET", METHODS_PATH)
    offered = tuple(answer.read(lambda body: body["import-methods"]["value"]))
    if wanted not in (None, method) or method not in offered:
        subject = (
            "a copy (no source was passed)" if method == COPY_IMAGE else "an import of this source"
        )
        raise ImportNotOffered(
            f"{subject} needs the method {method}, the requested method is {wanted or 'any'}, and "
            f"the deployment offers {', '.join(offered) or 'none'}; {NOTHING_DONE}",
            offered=offered,
        )


def check_stores(glance: Glance, stores: Stores, method: str) -> None:
    """Check that the deployment has the stores, and that they are writable.

    :param glance: sends the request for the stores
    :param stores: the stores to import to
    :param method: the import method
    :raises StoreNotOffered: if not
    """
    needs_several = method == COPY_IMAGE or not stores.all_must_succeed
    if not (stores.ids or needs_several):
        return
    offered = _writable_stores(glance)
    if offered is None:
        raise StoreNotOffered(
            "this Glance has one store, without an ID: images cannot be copied, and ids and "
            f"all_must_succeed=False are not supported; {NOTHING_DONE}",
            offered=(),
        )
    unknown = [str(store) for store in stores.ids if store not in offered]
    if unknown:
        raise StoreNotOffered(
            f"there is no writable store {', '.join(unknown)}; the deployment offers "
            f"{', '.join(offered) or 'none'}; {NOTHING_DONE}",
            offered=offered,
        )


def _writable_stores(glance: Glance) -> tuple[str, ...] | None:
    """Return the IDs of the writable stores; ``None`` if Glance has one store without an ID."""
    try:
        answer = glance.request("GET", STORES_PATH)
    except NotFound:
        return None
    return answer.read(
        lambda body: tuple(
            store["id"] for store in body["stores"] if store.get("read-only") != "true"
        )
    )


def _fault_of_remote(source: RemoteImage) -> str | None:
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


def _fault_of_url(url: str) -> str | None:
    """Return why Glance cannot download from a URL; only its scheme is shown, for secrecy."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port  # reading a malformed port raises
    except ValueError:
        return "the URL of the source has a malformed host or port"
    if parts.scheme in SCHEMES and host and not _INVALID_IN_URLS.search(url):
        return None
    return (
        "a source of type str must be a URL that begins with http:// or https://, has a host, and "
        f"has no spaces (its scheme is {parts.scheme!r}); pass a local file as a Path or an open "
        "binary file"
    )
