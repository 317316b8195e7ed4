"""The registry's own image list, restricted to an instance by rewriting its query and its links.

The registry stays the only judge of what the caller may see: it is given the ids of the instance's
images as one more condition, and everything else as the caller wrote it.
"""

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from webob import Response

from related_images import metrics, validation
from related_images.db import Database, ListedImage, listing
from related_images.errors import ParameterMalformed
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, Parameter
from related_images.middleware.glance import ask, created_at, json_of
from related_images.middleware.request import Listing
from related_images.middleware.responses import StartResponse, WSGIApp
from related_images.protocol import headers, paths

IDS: Final = "id"
EQUAL: Final = "eq"
ONE_OF: Final = "in"
MARKER: Final = "marker"


def answer(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    asked: Listing,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer with Glance's image list, of the instance's images."""
    said = asked.assertion
    images = listing.images_of_instance(
        database,
        said.instance.installation_uuid,
        said.instance.instance_id,
        said.kind,
        said.label,
        caller.visible_to,
    )
    return answer_restricted(
        app, environ, start_response, asked.query, said.acknowledgement(), images
    )


def answer_restricted(
    app: WSGIApp,
    environ: Environ,
    start_response: StartResponse,
    query: Sequence[Parameter],
    acknowledgement: str,
    images: Iterable[ListedImage],
    *conditions: str,
) -> Iterable[bytes]:
    """Answer with Glance's image list, of nothing but ``images``.

    An image that has the ID of one of them and is another is left out: then Glance is asked again
    without it, so that the page is as long as it should be.

    :param query: the caller's own
    :param acknowledgement: by what the list is restricted, as the answer says it
    :param conditions: more of the registry's own, as they stand in a query
    """
    environ.pop("HTTP_ACCEPT_ENCODING", None)  # the links in the answer are to be read
    known = {image.image_id: image for image in images}
    found, page = _asked(app, environ, query, known, conditions)
    if found.status_code == HTTPStatus.OK:
        _restore_links(found, page, query)
        found.headers.add(headers.FILTERS_APPLIED, acknowledgement)
        metrics.RESTRICTED.inc()
    start_response(found.status, found.headerlist)
    pieces: Iterable[bytes] = found.app_iter
    return pieces


def _asked(
    app: WSGIApp,
    environ: Environ,
    query: Sequence[Parameter],
    known: dict[str, ListedImage],
    conditions: Iterable[str],
) -> tuple[Response, Any]:
    """Glance's list of the ``known`` images, also read as JSON; others with their IDs go."""
    while True:
        environ["QUERY_STRING"] = "&".join([_restricted(query, known), *conditions])
        # what Glance keeps in the environ is of one request
        found = ask(app, dict(environ))
        page = json_of(found.body) if found.status_code == HTTPStatus.OK else None
        others = _others(page, known)
        if not others:
            return found, page
        for image_id in others:
            del known[image_id]


def _others(page: Any, known: dict[str, ListedImage]) -> list[str]:
    """The IDs of images in a list that are not the ``known`` ones with these IDs."""
    images = page.get("images") if isinstance(page, dict) else None
    if not isinstance(images, list):
        return []
    return [
        image["id"]
        for image in images
        if (made_at := created_at(image)) is not None
        and (listed := known.get(image.get("id"))) is not None
        and not listing.is_same(listed, made_at)
    ]


def _restricted(query: Sequence[Parameter], image_ids: Iterable[str]) -> str:
    wanted, condition, kept = set(image_ids), None, []
    for name, value, written in query:
        if name == IDS:
            condition = value  # of several the registry takes the last
        elif name not in headers.QUERY:
            kept.append(written)
    if condition is not None:
        wanted &= _ids(condition)
    return "&".join([*kept, f"{IDS}={ONE_OF}:{','.join(sorted(wanted))}"])


def _ids(condition: str) -> set[str]:
    """What a condition on the id that the caller set itself lets through.

    :raises ParameterMalformed: if it is one that the registry does not know either
    """
    operator, colon, value = condition.partition(":")
    if not colon:
        return {condition}
    if operator == EQUAL:
        return {value}
    if operator == ONE_OF:
        return {id.strip('"') for id in value.split(",")}
    raise ParameterMalformed(
        f"the parameter {IDS} is an image id, or {EQUAL}: and one, or {ONE_OF}: and several with "
        f"commas between them, not {validation.shown(condition)}"
    )


def _restore_links(found: Response, page: Any, query: Sequence[Parameter]) -> None:
    """Let ``first`` and ``next`` lead on with the caller's own query."""
    if not isinstance(page, dict):
        return
    own = [written for name, _, written in query if name != MARKER]
    page["first"] = _link(own)
    if "next" in page:
        marker = parse_qs(urlsplit(page["next"]).query)[MARKER][-1]
        page["next"] = _link([*own, f"{MARKER}={quote(marker)}"])
    found.body = json.dumps(page, ensure_ascii=False).encode()


def _link(written: list[str]) -> str:
    path = paths.href(paths.IMAGES)
    return f"{path}?{'&'.join(written)}" if written else path
