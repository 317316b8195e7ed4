"""Requests to Glance through any OpenStack client.

Every client has, or is, a keystoneauth1 ``Adapter``. All requests use this adapter, so there is one
way to send requests, read responses and raise errors.
"""

import html
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from keystoneauth1 import exceptions as keystone
from keystoneauth1.adapter import Adapter
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session

from related_images import validation
from related_images.client.errors import (
    BY_STATUS,
    GlanceError,
    GlanceUnreachable,
    InvalidResponse,
    Unauthorized,
)
from related_images.client.instance_context import image_part, without_instance
from related_images.client.url_credentials import hide_credentials
from related_images.errors import BadInput, LimitMalformed
from related_images.model import DependentSummary
from related_images.protocol.paths import API, IMAGES

Item = TypeVar("Item")
Query = tuple[tuple[str, str], ...]

PAGE: Final = 1000
"""Number of items on the largest page that Glance returns."""

HIDDEN: Final = ("false", "true")
"""The values of ``os_hidden``. One request lists either hidden images or the others."""

IDS: Final = 32
"""Maximum number of image IDs in a query.

By default uWSGI has a buffer of 4,096 bytes for a request. It contains the query twice, and headers
that do not fit, such as the token, are dropped (uWSGI's ``buffer-size``).
"""

FEW: Final = 4
"""Number of requests that are not worth a page of a list."""

WORTH: Final = 100
"""Number of wanted items that make a page of a list worth its request."""

REQUEST_ID: Final = "x-openstack-request-id"
DATA_HEADERS: Final = {
    "Content-Type": "application/octet-stream",
    # if the server refuses the data before their end, the connection cannot be used again
    "Connection": "close",
}
"""The headers of requests with image data."""

_VERSIONED = re.compile(r"/v2(\.\d+)?/?$")
_PAGE_LENGTH: Final = 8192
"""Number of characters of an error page that are read; a proxy may send any number."""

_TAG = re.compile(r"<(title|h1|style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)

_JSON_ERRORS: Final = (ValueError, TypeError, RecursionError)
_FIELD_ERRORS: Final = (*_JSON_ERRORS, KeyError, AttributeError, BadInput)
"""Errors for a body that lacks a required field, or has a malformed one."""
_REQUEST_ERRORS: Final = (keystone.ClientException, OSError, ValueError)
"""Errors without a response. The last two are raised, for example, if the file of certificates is
missing, or if the endpoint is not a URL."""


@dataclass(frozen=True)
class PageSizes:
    """The number of items to read.

    :ivar limit: of all pages together; ``None`` for all items
    :ivar page_size: of one request; ``None`` for Glance's default
    """

    limit: int | None
    page_size: int | None

    @classmethod
    def of(cls, limit: object, page_size: object) -> "PageSizes":
        """Return the checked sizes.

        :param limit: number of items of all pages together, or ``None``
        :param page_size: number of items of one request, or ``None``; at most ``limit`` is used
        :raises LimitMalformed: if one is not a whole number from 1
        """
        values = {"limit": limit, "page_size": page_size}
        sizes = {
            name: validation.number(name, value, LimitMalformed)
            for name, value in values.items()
            if value is not None
        }
        return cls(sizes.get("limit"), min(sizes.values(), default=None))

    def query(self) -> Query:
        """Return the query parameters; Glance's ``limit`` is the size of a page."""
        return () if self.page_size is None else (("limit", str(self.page_size)),)


@dataclass(frozen=True)
class Answer:
    """A successful response.

    :ivar request: method and path of the request
    :ivar headers: the headers; lookups ignore case
    :ivar decode: returns the body, decoded from JSON
    """

    request: str
    status: int
    headers: Mapping[str, str]
    decode: Callable[[], Any]

    def read(self, convert: Callable[[Mapping[str, Any]], Item]) -> Item:
        """Convert the JSON object in the body.

        :param convert: takes the JSON object
        :returns: the result of ``convert``
        :raises InvalidResponse: if the body is not a JSON object, or ``convert`` fails
        """
        try:
            return convert(_object(self.decode()))
        except _FIELD_ERRORS as error:
            raise self.invalid(f"the body is not the expected JSON ({error!r})") from error

    def invalid(self, reason: str) -> InvalidResponse:
        """Return the error for a response that cannot be used.

        :param reason: a part of the message
        """
        return InvalidResponse(
            self.request, reason, status=self.status, request_id=self.headers.get(REQUEST_ID)
        )


def image_path(image_id: str) -> str:
    """Return the path of an image, under ``/v2``.

    :param image_id: ID of the image
    :raises ImageIdMalformed: if the ID is not a UUID, because it could be another path of Glance
    """
    return f"{IMAGES}/{validation.image_id(image_id)}"


def is_worth_a_page(pages: int, found: int, requests: float) -> bool:
    """Return True if wanted items should be read from one more page of a list.

    A list may have any number of other items. So each page must have, on average, :data:`WORTH`
    wanted ones, and pages without any cost at most a tenth of the requests that they could save.

    :param pages: the number of pages that were read
    :param found: the number of wanted items on these pages
    :param requests: the number of requests that would read all wanted items without pages
    """
    return requests > FEW and pages <= found / WORTH + requests / 10


def text_of(value: Any) -> Any:
    """Return the value of a filter for a query; values of unsupported types are not converted."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else value


class Glance:
    """Send requests to the image service through an OpenStack client.

    :ivar on_answer: called after each response, for example to show progress
    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :raises TypeError: if ``client`` has another type
    :raises GlanceUnreachable: if an openstacksdk connection cannot find the image service, or
        is configured without one
    """

    def __init__(self, client: object) -> None:
        try:
            part = image_part(client)
        except _no_service_errors() as error:
            raise _unreachable(f"GET {API}", error) from error
        self._adapter: Adapter = part if isinstance(part, Adapter) else _adapter_of_endpoint(part)
        self._prefix: str | None = None
        self.on_answer: Callable[[], object] = lambda: None

    def request(self, method: str, path: str, *, is_read: bool = False, **options: Any) -> Answer:
        """Send one request.

        Only a request that reads is repeated after a broken connection. A body in ``data`` is
        streamed, and is never sent twice.

        :param method: the HTTP method
        :param path: the path under ``/v2``
        :param is_read: whether the request only reads, although it is no GET
        :param options: options of keystoneauth1's ``Adapter.request``: ``headers``, ``params``,
            ``json``, ``data``, ``status_code_retries``, ``log``
        :returns: the response, with a status of 2xx
        :raises GlanceError: if the request fails
        """
        request = f"{method} {API}{path}"
        # reading the streamed data may raise other errors, which are not Glance's
        no_response = (keystone.ClientException,) if "data" in options else _REQUEST_ERRORS
        try:
            response = self._send(method, path, is_read or method == "GET", **options)
        except no_response as error:
            raise _unreachable(request, error) from error
        self.on_answer()
        if not 200 <= response.status_code < 300:
            raise _refused(request, response)
        return Answer(request, response.status_code, response.headers, response.json)

    def pages(self, path: str, query: Iterable[tuple[str, str]]) -> Iterator[Answer]:
        """Request the pages of a list when the caller reads them.

        Only the query of a ``next`` link is used, so the token is never sent to another host.

        :param path: the path of the list, under ``/v2``
        :param query: the query of the first page
        :returns: the responses
        :raises InvalidResponse: if a ``next`` link refers to a previous page
        """
        seen: set[Query] = set()
        current: Query | None = tuple(query)
        while current is not None:
            seen.add(current)
            answer = self.request("GET", path, params=current)
            yield answer
            current = answer.read(_next_query)
            if current in seen:
                raise answer.invalid("its next link refers to a previous page")

    def images(
        self,
        image_ids: Iterable[str],
        read: Callable[[Mapping[str, Any]], Item],
        *filters: tuple[str, str],
        visibility: str | None = "all",
        owner: str | None = None,
    ) -> Iterator[tuple[str, Item]]:
        """Yield the images with these IDs that the caller may see, also hidden ones, in any order.

        Many images are read from pages of Glance's whole list, as long as these have enough of them
        (:func:`is_worth_a_page`), and the others by their IDs, at most :data:`IDS` in a request.

        :param image_ids: IDs of images
        :param read: converts an image as Glance shows it
        :param filters: names and values of more filters of Glance
        :param visibility: Glance's filter; ``None`` for the images that it lists by default
        :param owner: the project that owns all or most of the images; pages have only its images
        :returns: pairs of an ID and the result of ``read``
        :raises InvalidResponse: if an image does not have the fields that ``read`` needs
        """
        missing = set(image_ids)
        query = [*filters] if visibility is None else [("visibility", visibility), *filters]
        owned = [*query] if owner is None else [("owner", owner), *query]
        for pages in (self._whole_pages(missing, owned), self._pages_of_ids(missing, query)):
            for page in pages:
                found = page.read(partial(_read_images, missing, read))
                missing.difference_update(found)
                yield from found.items()

    def _whole_pages(self, missing: Set[str], query: list[tuple[str, str]]) -> Iterator[Answer]:
        """Yield pages of the whole list while they are worth it.

        :param missing: the IDs that the caller has not found yet
        """
        wanted, pages = len(missing), 0
        for hidden in HIDDEN:
            shown = [*query, ("os_hidden", hidden), ("limit", str(PAGE))]
            answers = self.pages(IMAGES, shown)
            while missing and is_worth_a_page(pages, wanted - len(missing), wanted / IDS):
                answer = next(answers, None)
                if answer is None:
                    break
                pages += 1
                yield answer

    def _pages_of_ids(self, missing: Set[str], query: list[tuple[str, str]]) -> Iterator[Answer]:
        """Yield pages of the images with the IDs in ``missing``, which the caller updates."""
        remaining = sorted(missing)
        for start in range(0, len(remaining), IDS):
            for hidden in HIDDEN:
                ids = [id for id in remaining[start : start + IDS] if id in missing]
                if ids:
                    shown = [("id", f"in:{','.join(ids)}"), ("os_hidden", hidden), *query]
                    # a full page would have a link to another page
                    yield from self.pages(IMAGES, [*shown, ("limit", str(IDS + 1))])

    def _send(self, method: str, path: str, is_read: bool, **options: Any) -> Any:
        if not is_read:
            options |= {"connect_retries": 0, "status_code_retries": 0}
        elif self._adapter.connect_retries is None:
            options |= {"connect_retries": 1}
        if "data" in options:
            options |= {"allow_reauth": False, "redirect": False}
        with without_instance():
            # the request() of glanceclient and openstacksdk encodes and decodes differently
            return Adapter.request(
                self._adapter, self._base() + path, method, raise_exc=False, **options
            )

    def _base(self) -> str:
        if self._prefix is None:
            endpoint = self._adapter.get_endpoint()
            if not endpoint:
                raise keystone.EndpointNotFound("the catalog has no endpoint of an image service")
            self._prefix = "" if _VERSIONED.search(urlsplit(endpoint).path) else API
        return self._prefix


def _read_images(
    wanted: Set[str], read: Callable[[Mapping[str, Any]], Item], body: Mapping[str, Any]
) -> dict[str, Item]:
    return {image["id"]: read(image) for image in body["images"] if image["id"] in wanted}


class _EndpointAuth(BaseAuthPlugin):
    """The current token and endpoint of a glanceclient that was created without a session."""

    def __init__(self, http: Any) -> None:
        super().__init__()
        self._http = http

    def get_headers(self, session: Session) -> dict[str, str]:
        token = self._http.auth_token
        return {"X-Auth-Token": token} if token else {}

    def get_endpoint(self, session: Session, **_filters: Any) -> str:
        return str(self._http.endpoint)


def _adapter_of_endpoint(http: Any) -> Adapter:
    session = Session(
        auth=_EndpointAuth(http),
        session=http.session,
        verify=http.session.verify,
        cert=http.session.cert,
        timeout=http.timeout,
    )
    return Adapter(session, service_type="image", additional_headers=http.identity_headers)


def _object(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise TypeError("not an object")
    return body


def _next_query(body: Mapping[str, Any]) -> Query | None:
    # the next page has the same path, whatever path the link has
    link = body.get("next")
    return tuple(parse_qsl(urlsplit(link).query, keep_blank_values=True)) if link else None


def _no_service_errors() -> tuple[type[Exception], ...]:
    # a caller with a connection of openstacksdk has imported it
    openstacksdk = sys.modules.get("openstack.exceptions")
    return (*_REQUEST_ERRORS, openstacksdk.SDKException) if openstacksdk else _REQUEST_ERRORS


def _unreachable(request: str, error: Exception) -> GlanceError:
    reason = hide_credentials(str(error)) or type(error).__name__
    if isinstance(error, keystone.http.Unauthorized | keystone.AuthorizationFailure):
        return Unauthorized(request, reason, request_id=getattr(error, "request_id", None))
    return GlanceUnreachable(request, reason)


def _refused(request: str, response: Any) -> GlanceError:
    error = _parse_error(response)
    request_id = error.request_id or response.headers.get(REQUEST_ID)
    if response.status_code == HTTPStatus.MULTIPLE_CHOICES:
        return InvalidResponse(
            request,
            "the body is the list of versions, which Glance returns for an unknown path",
            status=response.status_code,
            request_id=request_id,
        )
    return BY_STATUS.get(response.status_code, GlanceError)(
        request,
        hide_credentials(error.message),
        status=response.status_code,
        code=error.code,
        request_id=request_id,
        retry_after=seconds_to_wait(response.headers),
        dependents=error.dependents,
    )


def refused_item(request: str, status: int, described: Mapping[str, Any]) -> GlanceError:
    """Return the error for one refused item of a request for several.

    :param request: method and path of the request
    :param status: the status in the result of the item
    :param described: the error in that result
    """
    return BY_STATUS.get(status, GlanceError)(
        request,
        hide_credentials(described["message"]),
        status=status,
        code=described["code"],
    )


def seconds_to_wait(headers: Mapping[str, str]) -> int | None:
    """Return the seconds in ``Retry-After``, which is a number or a date (RFC 9110, 10.2.3).

    :param headers: the headers of a response
    :returns: seconds from 0; ``None`` if the header is missing or malformed
    """
    value = headers.get("Retry-After", "")
    try:
        if value.isdecimal():
            return int(value)
        wait = parsedate_to_datetime(value) - _server_time(headers)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0, math.ceil(wait.total_seconds()))


def _server_time(headers: Mapping[str, str]) -> datetime:
    """Return the time of the server's clock, which ``Retry-After`` refers to."""
    date = headers.get("Date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Error:
    """The error in a response; all but the message only of an error of the filter."""

    message: str
    code: str | None = None
    request_id: str | None = None
    dependents: DependentSummary | None = None


def _parse_error(response: Any) -> _Error:
    try:
        body = _object(response.json())
    except _JSON_ERRORS:
        return _Error(_strip_html(response.text) or str(response.reason))
    match body:
        case {"error": {"code": str(code), "message": str(message), **more}}:
            request_id, dependents = map(more.get, ("request_id", "dependents"))
            return _Error(message, code, _text(request_id), _summary(dependents))
        case {"error": {"message": str(message)}} | {"message": str(message)}:
            return _Error(_strip_html(message))
    return _Error(_strip_html(str(body)))


def _summary(value: Any) -> DependentSummary | None:
    """Return the numbers of dependents; ``None`` if the server is of another version."""
    try:
        return None if value is None else DependentSummary.from_json(value)
    except _FIELD_ERRORS:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _strip_html(text: str) -> str:
    words = html.unescape(_TAG.sub(" ", text[:_PAGE_LENGTH])).split()
    # before the text is cut, because half of a URL would not be recognized
    return hide_credentials(" ".join(words))[:300]
