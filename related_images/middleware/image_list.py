"""Glance's own image list, restricted to a server by rewriting its query and its links.

Glance alone decides which images the caller may see. The filter adds the IDs of the server's images
to the query as one more condition, and leaves the rest of the query as the caller wrote it.
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
from related_images.middleware.glance import call, created_at, parse_json
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
    request: Listing,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer with Glance's image list, restricted to the images of the resource in the request.

    :returns: the response body
    :raises InstanceTooLarge: if the resource has more images than one list can carry
    :raises ParameterMalformed: if the caller's condition on ``id`` is malformed
    """
    assertion = request.assertion
    images = listing.images_of_instance(
        database,
        assertion.instance,
        assertion.kind,
        assertion.label,
        caller.visible_to,
    )
    return answer_restricted(
        app, environ, start_response, request.query, assertion.acknowledgement(), images
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
    """Answer with Glance's image list, restricted to ``images``.

    If Glance lists an image with the ID of one of ``images`` and another ``created_at``, the list
    is requested again without it, so that the page has its full length.

    :param query: the caller's query
    :param acknowledgement: the value of ``X-Relation-Filters-Applied``
    :param conditions: more query parameters for Glance, encoded
    :returns: the response body
    :raises ParameterMalformed: if the caller's condition on ``id`` is malformed
    """
    environ.pop("HTTP_ACCEPT_ENCODING", None)  # the links in the response must be readable
    known = {image.image_id: image for image in images}
    found, page = _request_list(app, environ, query, known, conditions)
    if found.status_code == HTTPStatus.OK:
        _restore_links(found, page, query)
        found.headers.add(headers.FILTERS_APPLIED, acknowledgement)
        metrics.RESTRICTED.inc()
    start_response(found.status, found.headerlist)
    pieces: Iterable[bytes] = found.app_iter
    return pieces


def _request_list(
    app: WSGIApp,
    environ: Environ,
    query: Sequence[Parameter],
    known: dict[str, ListedImage],
    conditions: Iterable[str],
) -> tuple[Response, Any]:
    """Return Glance's response and its JSON, without other images that have a known ID.

    Remove the IDs of such images from ``known``.
    """
    while True:
        environ["QUERY_STRING"] = "&".join([_restricted_query(query, known), *conditions])
        # Glance stores state of one request in its environ
        found = call(app, dict(environ))
        page = parse_json(found.body) if found.status_code == HTTPStatus.OK else None
        reused = _reused_ids(page, known)
        if not reused:
            return found, page
        for image_id in reused:
            del known[image_id]


def _reused_ids(page: Any, known: dict[str, ListedImage]) -> list[str]:
    """Return the known IDs that belong to other images in a page of Glance's list."""
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


def _restricted_query(query: Sequence[Parameter], image_ids: Iterable[str]) -> str:
    """Return the caller's query without the relation parameters, with a condition on ``id``."""
    wanted, condition, kept = set(image_ids), None, []
    for name, value, raw in query:
        if name == IDS:
            condition = value  # Glance takes the last of several
        elif name not in headers.QUERY:
            kept.append(raw)
    if condition is not None:
        wanted &= _ids_in(condition)
    return "&".join([*kept, f"{IDS}={ONE_OF}:{','.join(sorted(wanted))}"])


def _ids_in(condition: str) -> set[str]:
    """Return the IDs that the caller's own condition on ``id`` allows.

    :raises ParameterMalformed: if its operator is not ``eq`` or ``in``, the ones that Glance knows
    """
    operator, colon, value = condition.partition(":")
    if not colon:
        return {condition}
    if operator == EQUAL:
        return {value}
    if operator == ONE_OF:
        return {id.strip('"') for id in value.split(",")}
    raise ParameterMalformed(
        f"{IDS}={validation.shown(condition)} is malformed; give {IDS}=ID, {IDS}={EQUAL}:ID or "
        f"{IDS}={ONE_OF}:ID,ID,…"
    )


def _restore_links(found: Response, page: Any, query: Sequence[Parameter]) -> None:
    """Rewrite ``first`` and ``next`` so that they repeat the caller's query."""
    if not isinstance(page, dict):
        return
    own = [raw for name, _, raw in query if name != MARKER]
    page["first"] = _link(own)
    if "next" in page:
        marker = parse_qs(urlsplit(page["next"]).query)[MARKER][-1]
        page["next"] = _link([*own, f"{MARKER}={quote(marker)}"])
    found.body = json.dumps(page, ensure_ascii=False).encode()


def _link(parameters: list[str]) -> str:
    path = paths.href(paths.IMAGES)
    return f"{path}?{'&'.join(parameters)}" if parameters else path
