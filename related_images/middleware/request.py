"""Classify a request by its path, instance headers, query and method.

A request that the filter does not handle passes unchanged. The module reads only these parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from related_images import model, validation
from related_images.errors import BadInput, MethodOverridden
from related_images.middleware import routing
from related_images.middleware.environ import (
    HEADER_KEYS,
    Environ,
    Parameter,
    parameters,
    path_below_api,
    pop_headers,
)
from related_images.protocol import headers, image_list, paths
from related_images.protocol.image_list import PREFIX

METHOD_OVERRIDE: Final = "_method"
"""The query parameter or form field from which Glance's router (Routes) takes the method."""

FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
"""The content types of a POST in which Routes looks for the field."""

METHODS_OF_ACTIONS: Final = ("DELETE", "POST")
"""A request with another method can delete or deactivate an image only if it has a query."""

IMAGES: Final = (paths.IMAGES, paths.IMAGES + "\n")
"""Routes matches a path that ends in a line break too."""

BACKUP_PROPERTIES: Final = ("image_type", "backup_type", "instance_uuid")
"""The image properties by which Nova lists the backups of a server."""
PAGING: Final = ("limit", "marker", "sort_key", "sort_dir")

INSTALLATION, INSTANCE_ID = headers.QUERY[:2]


@dataclass(frozen=True)
class Creation:
    """A request to create an image of a server."""

    assertion: headers.Assertion


@dataclass(frozen=True)
class Listing:
    """A request for the image list, restricted by relation."""

    restriction: image_list.Restriction
    query: Sequence[Parameter]


@dataclass(frozen=True)
class Rotation:
    """Nova's request for the backups of a server, of which it deletes the oldest."""

    instance_id: str
    backup_type: str
    query: Sequence[Parameter]


@dataclass(frozen=True)
class Deletion:
    """A request that Glance may treat as the deletion of an image.

    ``image`` is the last segment of the path: the ID of the image, in any spelling.
    """

    image: str
    forced: bool


@dataclass(frozen=True)
class Deactivation:
    """A request that Glance may treat as the deactivation of an image.

    ``image`` is the ID of the image in the path, in any spelling.
    """

    image: str


@dataclass(frozen=True)
class Malformed:
    """A request whose instance headers or parameters are malformed; the response is ``error``."""

    error: BadInput


Request = Creation | Listing | Rotation | Deletion | Deactivation | Malformed | routing.Route
"""A request that the filter handles."""


def classify(environ: Environ) -> Request | None:
    """Classify a request, and remove the instance headers from it.

    :returns: ``None`` if the request passes to Glance
    """
    path = path_below_api(environ)
    values: dict[str, str] = {}
    forced = False
    if not environ.keys().isdisjoint(HEADER_KEYS):
        values, forced = pop_headers(environ)
    try:
        if path in IMAGES:
            return _classify_images(environ, values)
        if values:
            headers.read(values)
    except BadInput as error:
        return Malformed(error)
    if path is None:
        return None
    method = environ["REQUEST_METHOD"]
    if not routing.LAST_SEGMENTS.isdisjoint(path.split("/")):
        route = routing.match(path, method)
        if route is not None:
            return route
    if method in METHODS_OF_ACTIONS or environ.get("QUERY_STRING"):
        return _action(path, environ, forced=forced)
    return None


def _action(path: str, environ: Environ, *, forced: bool) -> Deletion | Deactivation | None:
    """Return the deletion or deactivation of an image, if the request may be one."""
    image = _image_in(path)
    if image:
        is_form = environ["REQUEST_METHOD"] == "POST" and _is_form(environ)
        return Deletion(image, forced) if is_form or _may_be(environ, "DELETE") else None
    image = _image_in(path.removesuffix("\n").removesuffix(paths.DEACTIVATE))
    return Deactivation(image) if image and _may_be(environ, "POST") else None


def _classify_images(environ: Environ, values: dict[str, str]) -> Request | None:
    """Classify a request to ``/v2/images``; ``values`` are those of the instance headers."""
    query_string = environ.get("QUERY_STRING", "")
    if not values:
        # without instance headers, only a query with one of these two names can be for the filter
        names = unquote(query_string)
        if INSTALLATION not in names and PREFIX not in names and BACKUP_PROPERTIES[-1] not in names:
            return None
    method, query = environ["REQUEST_METHOD"], parameters(query_string)
    given = relation_parameters(query) if method == "GET" else {}
    if not values and given.keys() <= {INSTANCE_ID}:
        given = {}  # alone, it may be a property of the images
    both = headers.combined(values, given)
    is_of_instance = bool(values) or not given.keys().isdisjoint(headers.QUERY[:2])
    assertion = headers.read(both) if is_of_instance else None
    if assertion is None and not given:
        return _rotation(query) if method == "GET" else None
    if METHOD_OVERRIDE in [name for name, _, _ in query]:
        raise MethodOverridden(
            f"the query parameter {METHOD_OVERRIDE} is not allowed with instance headers or with a "
            "restriction of the image list; leave it out and send the request with the method "
            "itself"
        )
    if method == "GET":
        return Listing(image_list.read(given, assertion), query)
    return Creation(assertion) if method == "POST" and assertion else None


def relation_parameters(query: Sequence[Parameter]) -> dict[str, str]:
    """Return the values of the parameters that restrict an image list by relation, by name.

    The values of a repeated parameter are joined with commas, which makes the value malformed.

    :raises ParameterUnknown: if another parameter has the prefix of these
    """
    found: dict[str, str] = {}
    for name, value, _ in query:
        if image_list.is_own(name):
            found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _rotation(query: Sequence[Parameter]) -> Rotation | None:
    """Return the rotation if Nova's rotation sends this query.

    The sender is ``_rotate_backups()`` of ``nova.compute.manager``.
    """
    values = {name: value for name, value, _ in query}
    filters = {name: value for name, value in values.items() if name not in PAGING}
    if filters.keys() != set(BACKUP_PROPERTIES) or len(values) != len(query):
        return None
    image_type, backup_type, instance_id = (filters[name] for name in BACKUP_PROPERTIES)
    if image_type != model.BACKUP or not validation.is_word(
        instance_id, validation.INSTANCE_ID_LENGTH
    ):
        return None
    return Rotation(instance_id, backup_type, query)


def _image_in(path: str) -> str | None:
    """Return ``{id}`` of a path ``/images/{id}``, or ``None`` for other paths."""
    if not path.startswith(paths.IMAGES + "/"):
        return None
    image = path.removeprefix(paths.IMAGES + "/").removesuffix("\n")
    return image if image and "/" not in image else None


def _may_be(environ: Environ, method: str) -> bool:
    """Return whether Glance may treat the request as one with this method.

    Routes takes the method from ``_method`` in the query or in a posted form, if it is there. It
    drops bytes of the query that it cannot decode.
    """
    query = environ.get("QUERY_STRING", "")
    if environ["REQUEST_METHOD"] == method:
        return True
    return METHOD_OVERRIDE in query and method in unquote(query, errors="ignore").upper()


def _is_form(environ: Environ) -> bool:
    kind = environ.get("CONTENT_TYPE", "").lower()
    return kind.split(";", 1)[0] in FORMS
