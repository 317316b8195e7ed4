"""Send requests to Glance behind the filter, with the caller's identity."""

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

_CONDITIONAL_HEADERS = (
    "CONTENT_TYPE",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_IF_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_RANGE",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_X_OPENSTACK_REQUEST_ID",
)
"""Headers of the caller's request that would change the response to another request.

Glance refuses a request with a long request ID. A caller must not be able to hide an image so.
"""


def call(app: WSGIApp, environ: Environ) -> Response:
    """Send a request to Glance.

    If Glance calls ``start_response`` a second time with ``exc_info``, that response counts;
    without ``catch_exc_info`` WebOb raises the exception.

    :returns: the response with its whole body
    """
    result = Request(environ).call_application(app, catch_exc_info=True)
    status, given, pieces, _ = result
    try:
        body = b"".join(pieces)
    finally:
        iter_close(pieces)
    return Response(status=status, headerlist=list(given), body=body)


def parse_json(body: bytes) -> Any:
    """Return the body parsed as JSON, or ``None`` if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def get(app: WSGIApp, environ: Environ, path: str, query: str = "") -> Response:
    """Send a GET request with the identity in ``environ``.

    :param path: the path below ``/v2``
    :returns: Glance's response, whatever its status
    """
    request = {key: value for key, value in environ.items() if key not in _CONDITIONAL_HEADERS}
    request |= {"REQUEST_METHOD": "GET", "QUERY_STRING": query, "CONTENT_LENGTH": "0"}
    request["wsgi.input"] = BytesIO()
    set_path_below_api(request, path)
    return call(app, request)


def get_image(app: WSGIApp, environ: Environ, image_id: str) -> dict[str, Any]:
    """Return the image as Glance shows it to the caller.

    :raises ImageNotFound: if the image does not exist or the caller cannot see it
    """
    found = find_image(app, environ, image_id)
    if not found or found.get("id") != image_id:
        raise ImageNotFound(
            f"no image {image_id} exists, or the caller cannot see it; check the ID"
        )
    return found


def find_image(app: WSGIApp, environ: Environ, image_id: str) -> dict[str, Any] | None:
    """Return the image as Glance shows it to the caller.

    :param image_id: the ID, in any spelling for which Glance's database finds the image
    :returns: an empty object if Glance answers 404, ``None`` if Glance fails
    """
    answer = get(app, environ, f"{paths.IMAGES}/{image_id}")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return {}
    found = parse_json(answer.body) if answer.status_code == HTTPStatus.OK else None
    return found if isinstance(found, dict) else None


def image_state(image: Any) -> ImageState | None:
    """Return ``created_at`` and the owner of an image in Glance's JSON.

    Two images with the same ID differ in ``created_at``.

    :returns: ``None`` if ``image`` is not an object with a valid ``created_at``
    """
    made_at = created_at(image)
    if made_at is None:
        return None
    owner = image.get("owner")
    return ImageState(made_at, None if owner is None else str(owner))


def created_at(image: Any) -> datetime | None:
    """Return ``created_at`` of an image in Glance's JSON; ``None`` if it is missing or invalid."""
    written = image.get("created_at") if isinstance(image, dict) else None
    if written is None:
        return None
    try:
        return validation.parse_time("created_at", written)
    except ParameterMalformed:
        return None


def find_images(
    app: WSGIApp, environ: Environ, image_ids: Collection[str]
) -> dict[str, dict[str, Any]] | None:
    """Return those of the images that Glance lists for the caller, hidden images included.

    :returns: images by ID, or ``None`` if Glance fails
    """
    found: dict[str, dict[str, Any]] = {}
    for hidden in ("false", "true"):
        missing = [image_id for image_id in image_ids if image_id not in found]
        if not missing:
            break
        query = {"id": f"in:{','.join(missing)}", "visibility": "all", "os_hidden": hidden}
        next_query = urlencode(query | {"limit": str(len(missing))})
        while next_query:
            answer = get(app, environ, paths.IMAGES, next_query)
            page = parse_json(answer.body) if answer.status_code == HTTPStatus.OK else None
            if not isinstance(page, dict) or "images" not in page:
                return None
            found |= {image["id"]: image for image in page["images"]}
            next_query = urlsplit(page.get("next", "")).query
    return found
