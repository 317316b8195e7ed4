"""Glance's own image list, restricted by relation.

Glance alone decides which images the caller may see, and sorts them. The filter requests pages of
Glance's list with the caller's query, and leaves out the images that do not match. If the IDs of
few images can match, they are in the query as one more condition, so that one page of Glance is
enough. Otherwise Glance's list is searched page by page until the caller's page is full.
"""

import json
import string
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from webob import Response

from related_images import metrics, validation
from related_images.db import Database, ListedImage, image_list
from related_images.errors import ListTooWide, ParameterMalformed
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, Parameter
from related_images.middleware.glance import call, created_at, parse_json
from related_images.middleware.request import Listing
from related_images.middleware.responses import StartResponse, WSGIApp
from related_images.protocol import headers, paths
from related_images.protocol.image_list import NAMES, PAGES, Restriction

IDS: Final = "id"
EQUAL: Final = "eq"
ONE_OF: Final = "in"
LIMIT: Final = "limit"
MARKER: Final = "marker"

PAGE: Final = 1000
"""The largest number of images that a page of Glance has."""

FEW: Final = 1000
"""The number of images up to which their IDs are in the query from the first page on."""

PATIENCE: Final = 3
"""The number of pages after which the IDs are in the query, if they are known but not few: a query
with many IDs takes as long as some pages."""

EARLIER: Final = 100
"""How many markers are kept. If the image of a marker was deleted, Glance refuses the
marker, and the search continues at an earlier one."""

FIRST_PAGE: Final = ""
"""The first page, in place of a marker."""

RESERVE: Final = 1.25
"""How many more images a page has than the share of matches so far requires."""

NARROWING: Final = ("created_at", "owner", "visibility", "status")
"""Glance's filters that the error for a list that is too wide recommends, the best ones first."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An image in a page of Glance's list; ``created_at`` is ``None`` if Glance shows none."""

    image_id: str
    created_at: datetime | None
    owner: str | None


Condition = Callable[[Sequence[Shown]], Collection[str]]
"""Takes the images of a page, at least one, and returns the IDs of those that match."""


@dataclass(slots=True)
class Selection:
    """Which images of Glance's list belong to a restricted list.

    :ivar conditions: all of them must hold
    :ivar candidates: the IDs of all images that may match; ``None`` if they are too many
    :ivar unknown: the names of the filters for which it is unknown whether some image matches
    """

    conditions: list[Condition] = field(default_factory=list)
    candidates: Collection[str] | None = None
    unknown: set[str] = field(default_factory=set)

    @classmethod
    def of_images(cls, images: Iterable[ListedImage]) -> "Selection":
        """Return the selection of these images."""
        known = {image.image_id: image for image in images}
        return cls([partial(_are_known, known)], known)

    def choose(self, images: Sequence[Shown]) -> Collection[str]:
        """Return the IDs of the ``images`` that belong to the list."""
        for condition in self.conditions:
            chosen = condition(images) if images else ()
            images = [image for image in images if image.image_id in chosen]
        return {image.image_id for image in images}


def _are_known(known: Mapping[str, ListedImage], images: Sequence[Shown]) -> list[str]:
    """Return the IDs of the images that are known and not other images with the same ID."""
    return [
        image.image_id
        for image in images
        if (listed := known.get(image.image_id)) is not None
        and (image.created_at is None or image_list.is_same(listed, image.created_at))
    ]


def answer(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    request: Listing,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer with Glance's image list, restricted as the request says.

    :returns: the response body
    :raises ListTooWide: if Glance lists too many images before the first one that matches
    :raises ParameterMalformed: if the caller's condition on ``id`` is malformed
    """
    restriction = request.restriction
    selection = _selection(database, restriction, caller.visible_to)
    return answer_restricted(
        app, environ, start_response, request.query, restriction.acknowledgement(), selection
    )


def _selection(database: Database, restriction: Restriction, visible_to: str | None) -> Selection:
    selection = Selection()
    if restriction.asks_for_relation:
        filters, kinds = restriction.filters(visible_to), restriction.kinds
        found = image_list.images(database, filters, kinds)
        if found is not None:
            selection = Selection.of_images(found)
        else:
            asking = partial(image_list.matching, database, filters, kinds)
            selection.conditions.append(partial(_are_found, asking))
    if restriction.descends_from is not None:
        of_root = (database, restriction.descends_from, visible_to)
        if selection.candidates is None:
            selection.candidates = image_list.descendants(*of_root)
        selection.conditions.append(partial(_are_found, partial(image_list.descending, *of_root)))
    if restriction.in_use is not None:
        asking_use = partial(image_list.in_use, database, visible_to)
        condition = partial(_have_use, asking_use, restriction.in_use, selection.unknown)
        selection.conditions.append(condition)
    return selection


def _are_found(ask: Callable[[list[str]], list[ListedImage]], images: Sequence[Shown]) -> list[str]:
    found = ask([image.image_id for image in images])
    return _are_known({image.image_id: image for image in found}, images)


def _have_use(
    ask: Callable[[dict[str, str | None], dict[str, datetime]], Mapping[str, bool | None]],
    wanted: bool,
    unknown: set[str],
    images: Sequence[Shown],
) -> list[str]:
    times = ((image.image_id, image.created_at) for image in images)
    owners = {image.image_id: image.owner for image in images}
    uses = ask(owners, {image_id: time for image_id, time in times if time is not None})
    if None in uses.values():
        unknown.add("in_use")
    return [image_id for image_id, is_used in uses.items() if is_used is wanted]


def answer_restricted(
    app: WSGIApp,
    environ: Environ,
    start_response: StartResponse,
    query: Sequence[Parameter],
    acknowledgement: str,
    selection: Selection,
    *conditions: str,
) -> Iterable[bytes]:
    """Answer with Glance's image list, restricted to the selected images.

    :param query: the caller's query
    :param acknowledgement: the value of ``X-Relation-Filters-Applied``
    :param conditions: more query parameters for Glance, encoded
    :returns: the response body
    :raises ListTooWide: if Glance lists too many images before the first one that matches
    :raises ParameterMalformed: if the caller's condition on ``id`` is malformed
    """
    environ.pop("HTTP_ACCEPT_ENCODING", None)  # the pages of Glance must be readable
    found = _Search(app, environ, query, selection, conditions).run()
    if found.status_code == HTTPStatus.OK:
        found.headers.add(headers.FILTERS_APPLIED, acknowledgement)
        if selection.unknown:
            found.headers.add(headers.INCOMPLETE, ", ".join(sorted(selection.unknown)))
        metrics.RESTRICTED.inc()
    start_response(found.status, found.headerlist)
    pieces: Iterable[bytes] = found.app_iter
    return pieces


@dataclass(slots=True)
class _Search:
    """The search for one page of the restricted list in the pages of Glance's list.

    :ivar images: the images that belong to the list, as Glance shows them
    :ivar examined: the number of images that Glance has listed
    :ivar earlier: the current marker and those before it, at most :data:`EARLIER`
    """

    app: WSGIApp
    environ: Environ
    query: Sequence[Parameter]
    selection: Selection
    conditions: Sequence[str]
    images: list[Any] = field(default_factory=list)
    examined: int = 0
    earlier: list[str] = field(default_factory=list)

    def run(self) -> Response:
        """Return Glance's response to the first request, with the images and links of the list.

        If Glance refuses the first request, the response is Glance's. If it refuses a later marker,
        the image was deleted, and the search continues at an earlier one. If a later request fails
        otherwise, the list ends there, with a link to the next page.
        """
        first, page = self._request(0)
        if page is None:
            return first
        # as long as a page of Glance, whatever limits are configured there
        own = [one.value for one in self.query if one.name == MARKER]
        self.earlier = own[-1:] or [FIRST_PAGE]
        length, marker = len(page["images"]), self._examine(page)
        for number in range(1, PAGES):
            if marker is None or len(self.images) >= length:
                break
            found, later = self._request(number, marker, self._size(length))
            if later is not None:
                marker = self._examine(later)
            elif found.status_code == HTTPStatus.BAD_REQUEST and self._goes_back(marker):
                marker = self.earlier[-1]
            elif self.images:
                marker = self.images[-1][IDS]
                break
            else:
                return found
        if len(self.images) > length or (marker is not None and len(self.images) == length > 0):
            del self.images[length:]
            marker = self.images[-1][IDS]  # as in Glance's list, the last image of the page
        if marker is not None and not self.images:
            raise ListTooWide(self._advice())
        page["images"] = self.images
        self._link(page, marker)
        first.body = json.dumps(page, ensure_ascii=False).encode()
        return first

    def _request(
        self, number: int, marker: str | None = None, size: int | None = None
    ) -> tuple[Response, Any]:
        """Request a page of Glance's list: the caller's, or the one after ``marker``.

        :returns: the response, and its JSON, or ``None`` if it is not a list
        """
        own = [one for one in self.query if one.name not in NAMES]
        if marker is not None:
            own = [one for one in own if one.name not in (LIMIT, MARKER)]
        candidates = self.selection.candidates
        narrowed = candidates is not None and (len(candidates) <= FEW or number >= PATIENCE)
        sent = _with_ids(own, candidates or ()) if narrowed else [one.raw for one in own]
        if marker is not None:
            sent.append(f"{LIMIT}={size}")
            if marker != FIRST_PAGE:
                sent.append(f"{MARKER}={quote(marker)}")
        # Glance stores state of one request in its environ
        environ = {**self.environ, "QUERY_STRING": "&".join([*sent, *self.conditions])}
        found = call(self.app, environ)
        page = parse_json(found.body) if found.status_code == HTTPStatus.OK else None
        is_list = isinstance(page, dict) and isinstance(page.get("images"), list)
        return found, page if is_list else None

    def _examine(self, page: Any) -> str | None:
        """Add the images of a page of Glance that belong to the list.

        :returns: the marker of the next page, if there is one
        """
        chosen = self.selection.choose([_shown(image) for image in page["images"]])
        self.images += [image for image in page["images"] if image[IDS] in chosen]
        self.examined += len(page["images"])
        following = parse_qs(urlsplit(page.get("next", "")).query)
        marker = following[MARKER][-1] if MARKER in following else None
        listed = (image[IDS] for image in page["images"])
        self.earlier = [*self.earlier, *listed][-EARLIER:]
        return marker

    def _goes_back(self, marker: str) -> bool:
        """Forget a marker whose image was deleted; return whether an earlier one is left."""
        while self.earlier and self.earlier[-1] == marker:
            self.earlier.pop()
        return bool(self.earlier)

    def _size(self, length: int) -> int:
        """Return the size of the next page of Glance, from the share of matches so far."""
        missing, found = length - len(self.images), max(len(self.images), 1)
        return min(PAGE, 1 + int(RESERVE * missing * self.examined / found))

    def _link(self, page: dict[str, Any], marker: str | None) -> None:
        """Write ``first`` and ``next`` so that they repeat the caller's query."""
        # a query string may have bytes that are not ASCII, which WSGI passes as Latin-1
        own = [
            quote(raw, safe=string.punctuation, encoding="latin-1")
            for name, _, raw in self.query
            if name != MARKER
        ]
        page["first"] = _href(own)
        page.pop("next", None)
        if marker is not None:
            page["next"] = _href([*own, f"{MARKER}={quote(marker)}"])

    def _advice(self) -> str:
        given = {one.name for one in self.query}
        other = next((name for name in NARROWING if name not in given), "name")
        return (
            f"none of the first {self.examined} images of this list matches, and one request reads "
            f"at most {PAGES} pages of Glance; add Glance's filter {other}, which leaves out "
            "images, or name one resource by installation_uuid and instance_id"
        )


def _shown(image: Any) -> Shown:
    owner = image.get("owner")
    return Shown(image[IDS], created_at(image), None if owner is None else str(owner))


def _with_ids(query: Iterable[Parameter], image_ids: Iterable[str]) -> list[str]:
    """Return the parameters of the query with a condition on ``id``, encoded."""
    wanted, condition, kept = set(image_ids), None, []
    for name, value, raw in query:
        if name == IDS:
            condition = value  # Glance takes the last of several
        else:
            kept.append(raw)
    if condition is not None:
        wanted &= _ids_in(condition)
    return [*kept, f"{IDS}={ONE_OF}:{','.join(sorted(wanted))}"]


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


def _href(parameters: list[str]) -> str:
    path = paths.href(paths.IMAGES)
    return f"{path}?{'&'.join(parameters)}" if parameters else path
