"""What a request is. It is read once: its path, our headers, its query and its method.

A request that is not ours is looked at no further than that takes, and passes as it came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from related_images import model, validation
from related_images.errors import BadInput, MethodOverridden
from related_images.middleware import routing
from related_images.middleware.environ import (
    TUPLE_KEYS,
    Environ,
    Parameter,
    parameters,
    path_below_api,
    take_tuple,
)
from related_images.protocol import headers, paths

METHOD_OVERRIDE: Final = "_method"
"""Where this query parameter or form field is, Glance's router takes the method from it."""

FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
"""In what is posted as one of these Glance's router looks for such a field."""

DELETING: Final = ("DELETE", "POST")
"""A request with another method and without a query cannot delete."""

IMAGES: Final = (paths.IMAGES, paths.IMAGES + "\n")
"""Glance's router lets a path end in a line break."""

CLAIMS: Final = ("image_type", "backup_type", "instance_uuid")
PAGING: Final = ("limit", "marker", "sort_key", "sort_dir")


@dataclass(frozen=True)
class Creation:
    """An image is to be made of the instance."""

    assertion: headers.Assertion


@dataclass(frozen=True)
class Listing:
    """The image list is to be restricted to the instance."""

    assertion: headers.Assertion
    query: Sequence[Parameter]


@dataclass(frozen=True)
class Rotation:
    """Nova asks for the backups of a server, to delete the oldest."""

    instance_id: str
    backup_type: str
    query: Sequence[Parameter]


@dataclass(frozen=True)
class Deletion:
    """Glance may take the request for the deletion of the image that is ``spelled`` so."""

    spelled: str
    forced: bool


@dataclass(frozen=True)
class Malformed:
    """Our headers or parameters are wrong, which nothing but ``error`` comes of."""

    error: BadInput


Asked = Creation | Listing | Rotation | Deletion | Malformed | routing.Route
"""What a request that is ours is."""


def classify(environ: Environ) -> Asked | None:
    """Read a request, and take our headers from it; ``None`` if it goes to Glance as it then is."""
    path = path_below_api(environ)
    given: dict[str, str] = {}
    forced = False
    if not environ.keys().isdisjoint(TUPLE_KEYS):
        given, forced = take_tuple(environ)
    try:
        if path in IMAGES:
            return _of_images(environ, given)
        if given:
            headers.read(given)
    except BadInput as error:
        return Malformed(error)
    if path is None:
        return None
    method = environ["REQUEST_METHOD"]
    if not routing.WORDS.isdisjoint(path.split("/")):
        route = routing.match(path, method)
        if route is not None:
            return route
    if method in DELETING or environ.get("QUERY_STRING"):
        spelled = _image_of(path)
        return Deletion(spelled, forced) if spelled and _may_be_deletion(environ) else None
    return None


def _of_images(environ: Environ, given: dict[str, str]) -> Asked | None:
    """What a request to Glance's collection of images is."""
    written = environ.get("QUERY_STRING", "")
    if not given:
        # without any of our headers, nothing is ours but a query that has one of these names
        names = unquote(written)
        if headers.QUERY[0] not in names and CLAIMS[-1] not in names:
            return None
    method, query = environ["REQUEST_METHOD"], parameters(written)
    if method == "GET" and query:
        asserted = asserted_in(query)
        if given or headers.QUERY[0] in asserted:
            given = headers.combined(given, asserted)
    assertion = headers.read(given)
    if assertion is None:
        return _rotation(query) if method == "GET" else None
    if METHOD_OVERRIDE in [name for name, _, _ in query]:
        raise MethodOverridden(
            f"leave out the query parameter {METHOD_OVERRIDE}, and use the method itself"
        )
    if method == "POST":
        return Creation(assertion)
    return Listing(assertion, query) if method == "GET" else None


def asserted_in(query: Sequence[Parameter]) -> dict[str, str]:
    """Our own parameters of a query, by name; of a repeated one all, which is malformed."""
    found: dict[str, str] = {}
    for name, value, _ in query:
        if name in headers.QUERY:
            found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _rotation(query: Sequence[Parameter]) -> Rotation | None:
    """The rotation of backups that a query of the image list is, if it is one."""
    given = {name: value for name, value, _ in query}
    claims = {name: value for name, value in given.items() if name not in PAGING}
    if claims.keys() != set(CLAIMS) or len(given) != len(query):
        return None
    image_type, backup_type, instance_id = (claims[name] for name in CLAIMS)
    if image_type != model.BACKUP or not validation.is_word(
        instance_id, validation.INSTANCE_ID_LENGTH
    ):
        return None
    return Rotation(instance_id, backup_type, query)


def _image_of(path: str) -> str | None:
    """How the image is spelled whose own path this is."""
    if not path.startswith(paths.IMAGES + "/"):
        return None
    spelled = path.removeprefix(paths.IMAGES + "/").removesuffix("\n")
    return spelled if spelled and "/" not in spelled else None


def _may_be_deletion(environ: Environ) -> bool:
    """Whether Glance may take the request for a DELETE.

    Its router may find another method than the request's in the query, or in a form that is posted.
    It leaves out of the query what cannot be decoded.
    """
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    if method == "DELETE" or (method == "POST" and _is_form(environ)):
        return True
    return METHOD_OVERRIDE in query and "DELETE" in unquote(query, errors="ignore").upper()


def _is_form(environ: Environ) -> bool:
    kind = environ.get("CONTENT_TYPE", "").lower()
    return kind.split(";", 1)[0] in FORMS
