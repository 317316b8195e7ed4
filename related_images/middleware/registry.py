"""Asking the registry behind the filter, as the caller."""

import json
from collections.abc import Collection, Iterable
from io import BytesIO
from typing import Any
from urllib.parse import urlencode, urlsplit

from related_images import validation
from related_images.db import Seen
from related_images.errors import ImageNotFound, ParameterMalformed
from related_images.middleware.answers import Headers, WSGIApp
from related_images.middleware.environ import Environ, set_path_below_api
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


class Answer:
    """The whole answer of a WSGI app. Made by :func:`ask`."""

    status: str
    headers: Headers
    body: bytes

    @property
    def is_ok(self) -> bool:
        return self.status.startswith("200")

    def json(self) -> Any:
        """The body read as JSON, or ``None`` if it is something else."""
        return json_of(self.body)


def json_of(body: bytes) -> Any:
    """The body read as JSON, or ``None`` if it is something else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def ask(app: WSGIApp, environ: Environ) -> Answer:
    """Call ``app`` and collect what it answers."""
    answer = Answer()
    written: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
        answer.status, answer.headers = status, headers
        return written.append

    answer.body = collect(app(environ, start_response), written)
    return answer


def collect(pieces: Iterable[bytes], written: list[bytes]) -> bytes:
    """The whole body that an app yields, behind what it has ``written``; then it is closed."""
    try:
        # what the app writes and what it yields come in the order of its doing so
        for piece in pieces:
            written.append(piece)
        return b"".join(written)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def get(app: WSGIApp, environ: Environ, path: str, query: str = "") -> Any:
    """Ask for ``path`` below ``/v2`` with the identity of the request ``environ``.

    :returns: the JSON of a 200, otherwise ``None``
    """
    answer = _get(app, environ, path, query)
    return answer.json() if answer.is_ok else None


def _get(app: WSGIApp, environ: Environ, path: str, query: str = "") -> Answer:
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
    answer = _get(app, environ, f"{paths.IMAGES}/{image_id}")
    if answer.status.startswith("404"):
        return {}
    found = answer.json() if answer.is_ok else None
    return found if isinstance(found, dict) else None


def seen(image: Any) -> Seen | None:
    """What tells the image from another with its ID; ``None`` if the answer does not say."""
    if not isinstance(image, dict):
        return None
    owner = image.get("owner")
    try:
        made_at = validation.parse_time("created_at", str(image.get("created_at")))
    except ParameterMalformed:
        return None
    return Seen(made_at, None if owner is None else str(owner))


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
            page = get(app, environ, paths.IMAGES, following)
            if not isinstance(page, dict):
                return None
            found |= {image["id"]: image["owner"] for image in page["images"]}
            following = urlsplit(page.get("next", "")).query
    return found
