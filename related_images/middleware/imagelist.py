"""The registry's own image list, restricted to an instance by rewriting its query and its links.

The registry stays the only judge of what the caller may see: it is given the ids of the instance's
images as one more condition, and everything else as the caller wrote it.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote_plus, urlsplit

from related_images import metrics, validation
from related_images.db import ListedImage, listing
from related_images.errors import ParameterMalformed
from related_images.middleware.answers import Headers, StartResponse, WSGIApp
from related_images.middleware.environ import Environ
from related_images.middleware.registry import Answer, ask, seen
from related_images.protocol import headers, paths

IDS: Final = "id"
EQUAL: Final = "eq"
ONE_OF: Final = "in"
MARKER: Final = "marker"


def parameters(query: str) -> Iterator[tuple[str, str, str]]:
    """Each parameter of a query string: its name, its value, and how it was written.

    The registry takes a semicolon for an ampersand.
    """
    for written in query.replace(";", "&").split("&"):
        if written:
            name, _, value = written.partition("=")
            yield unquote_plus(name), unquote_plus(value), written


def asserted(query: str) -> dict[str, str]:
    """Our own parameters of a query string, by name; of a repeated one all, which is malformed."""
    found: dict[str, str] = {}
    for name, value, _ in parameters(query):
        if name in headers.QUERY:
            found[name] = f"{found[name]},{value}" if name in found else value
    return found


def answer_restricted(
    app: WSGIApp,
    environ: Environ,
    start_response: StartResponse,
    acknowledgement: str,
    images: Iterable[ListedImage],
    *conditions: str,
) -> Iterable[bytes]:
    """Answer with Glance's image list, of nothing but ``images``.

    An image that has the ID of one of them and is another is left out: then Glance is asked again
    without it, so that the page is as long as it should be.

    :param acknowledgement: by what the list is restricted, as the answer says it
    :param conditions: more of the registry's own, as they stand in a query
    """
    own = environ.get("QUERY_STRING", "")
    environ.pop("HTTP_ACCEPT_ENCODING", None)  # the links in the answer are to be read
    known = {image.image_id: image for image in images}
    found, page = _asked(app, environ, own, known, conditions)
    if found.is_ok:
        _restore_links(found, page, own)
        found.headers.append((headers.FILTERS_APPLIED, acknowledgement))
        metrics.RESTRICTED.inc()
    start_response(found.status, found.headers)
    return [found.body]


def _asked(
    app: WSGIApp,
    environ: Environ,
    own: str,
    known: dict[str, ListedImage],
    conditions: Iterable[str],
) -> tuple[Answer, Any]:
    """Glance's list of the ``known`` images, also read as JSON; others with their IDs go."""
    while True:
        environ["QUERY_STRING"] = "&".join([_restricted(own, known), *conditions])
        # what Glance keeps in the environ is of one request
        found = ask(app, dict(environ))
        page = found.json() if found.is_ok else None
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
        if (now := seen(image)) is not None
        and image.get("id") in known
        and not listing.is_same(known[image["id"]], now)
    ]


def _restricted(query: str, image_ids: Iterable[str]) -> str:
    wanted, condition, kept = set(image_ids), None, []
    for name, value, written in parameters(query):
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


def _restore_links(found: Answer, page: Any, query: str) -> None:
    """Let ``first`` and ``next`` lead on with the caller's own query."""
    if not isinstance(page, dict):
        return
    own = [written for name, _, written in parameters(query) if name != MARKER]
    page["first"] = _link(own)
    if "next" in page:
        marker = parse_qs(urlsplit(page["next"]).query)[MARKER][-1]
        page["next"] = _link([*own, f"{MARKER}={quote(marker)}"])
    found.body = json.dumps(page, ensure_ascii=False).encode()
    found.headers = _with_length(found.headers, len(found.body))


def _link(written: list[str]) -> str:
    path = paths.href(paths.IMAGES)
    return f"{path}?{'&'.join(written)}" if written else path


def _with_length(given: Headers, length: int) -> Headers:
    kept: list[Any] = [(name, value) for name, value in given if name.lower() != "content-length"]
    return [*kept, ("Content-Length", str(length))]
