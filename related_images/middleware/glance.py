"""Asking the registry behind the filter, as the caller."""

import json
from collections.abc import Collection
from datetime import datetime
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import urlencode, urlsplit

from webob import Request, Response
from webob.response import iter_close

from related_images import validation
from related_images.db import ImageState
from related_images.errors import ImageNotFound, ParameterMalformed
from related_images.middleware.environ import Environ, set_path_below_api
from related_images.middleware.responses import WSGIApp
from related_images.protocol import paths

_CONDITIONS = (
    "CONTENT_TYPE",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_IF_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_RANGE",
    "HTTP_TRANSFER_ENCODING",
)
"""What belongs to the caller's own request and would change the answer to another one."""


def ask(app: WSGIApp, environ: Environ) -> Response:
    """What Glance answers to a request of ours, as a whole.

    An answer that takes another back, with an exception, counts as the answer; WebOb would raise.
    """
    called = Request(environ).call_application(app, catch_exc_info=True)
    status, given, pieces, _ = called
    try:
        body = b"".join(pieces)
    finally:
        iter_close(pieces)
    return Response(status=status, headerlist=list(given), body=body)


def json_of(body: bytes) -> Any:
    """The body read as JSON, or ``None`` if it is something else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def get(app: WSGIApp, environ: Environ, path: str, query: str = "") -> Response:
    """Ask for ``path`` below ``/v2`` with the identity of the request ``environ``."""
    own = {key: value for key, value in environ.items() if key not in _CONDITIONS}
    own |= {"REQUEST_METHOD": "GET", "QUERY_STRING": query, "CONTENT_LENGTH": "0"}
    own["wsgi.input"] = BytesIO()
    set_path_below_api(own, path)
    return ask(app, own)


def image(app: WSGIApp, environ: Environ, image_id: str) -> dict[str, Any]:
    """The image as the registry shows it to the caller.

    :raises ImageNotFound: if it does not
    """
    found = shown(app, environ, image_id)
    if not found or found.get("id") != image_id:
        raise ImageNotFound(f"no image {image_id} is there for this caller")
    return found


def shown(app: WSGIApp, environ: Environ, image_id: str) -> dict[str, Any] | None:
    """The image as the registry shows it to the caller, whatever spelling of its id this is.

    :returns: nothing of one that is not there, and ``None`` if the registry fails to say
    """
    answer = get(app, environ, f"{paths.IMAGES}/{image_id}")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return {}
    found = json_of(answer.body) if answer.status_code == HTTPStatus.OK else None
    return found if isinstance(found, dict) else None


def seen(image: Any) -> ImageState | None:
    """What tells the image from another with its ID; ``None`` if the answer does not say."""
    made_at = created_at(image)
    if made_at is None:
        return None
    owner = image.get("owner")
    return ImageState(made_at, None if owner is None else str(owner))


def created_at(image: Any) -> datetime | None:
    """When Glance made the image; ``None`` if the answer does not say."""
    written = image.get("created_at") if isinstance(image, dict) else None
    if written is None:
        return None
    try:
        return validation.parse_time("created_at", written)
    except ParameterMalformed:
        return None


def owners(
    app: WSGIApp, environ: Environ, image_ids: Collection[str]
) -> dict[str, str | None] | None:
    """Whose each of the images is that Glance lists for the caller, the hidden ones too.

    :returns: ``None`` if Glance fails to say
    """
    found: dict[str, str | None] = {}
    for hidden in ("false", "true"):
        query = {"id": f"in:{','.join(image_ids)}", "visibility": "all", "os_hidden": hidden}
        following = urlencode(query | {"limit": str(len(image_ids))})
        while following:
            answer = get(app, environ, paths.IMAGES, following)
            page = json_of(answer.body) if answer.status_code == HTTPStatus.OK else None
            if not isinstance(page, dict):
                return None
            found |= {image["id"]: image["owner"] for image in page["images"]}
            following = urlsplit(page.get("next", "")).query
    return found
