"""Requests to Glance through any OpenStack client.

Every client has, or is, a keystoneauth1 ``Adapter``. All requests use it, so that there is one way
to send, to read responses and to raise errors.
"""

import html
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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
from related_images.client.instance_context import for_nobody, image_part
from related_images.client.urls import hide_credentials
from related_images.errors import BadInput, LimitMalformed
from related_images.protocol.paths import API, IMAGES

Item = TypeVar("Item")
Query = tuple[tuple[str, str], ...]

PAGE: Final = 1000
"""Items of one request; Glance gives no more."""

HIDDEN: Final = ("false", "true")
"""Each value of ``os_hidden``: Glance lists images that are hidden, or those that are not."""

IDS: Final = 32
"""Images that one request names in its query. By default uWSGI keeps a request in 4,096 bytes, the
query twice, and drops headers that do not fit, such as the token."""

REQUEST_ID: Final = "x-openstack-request-id"
OCTETS: Final = {
    "Content-Type": "application/octet-stream",
    # who refuses data half-way leaves a connection on which nothing more can be asked
    "Connection": "close",
}
_VERSIONED = re.compile(r"/v2(\.\d+)?/?$")
_READ_AT_MOST: Final = 8192
"""Characters of an explanation that are looked at, whatever a proxy sends."""

_TAG = re.compile(r"<(title|h1|style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)

_NO_JSON: Final = (ValueError, TypeError, RecursionError)
_NO_ANSWER: Final = (keystone.ClientException, OSError, ValueError)
"""As when a file of certificates is missing, or the endpoint is no URL."""


@dataclass(frozen=True)
class PageSizes:
    """How much a list reads: ``limit`` items in all, ``of_a_page`` by one request."""

    limit: int | None
    of_a_page: int | None

    @classmethod
    def of(cls, limit: object, page_size: object) -> "PageSizes":
        """The sizes that a caller gives; ``None`` is no limit.

        :raises LimitMalformed: if one is not a whole number from 1
        """
        given = {"limit": limit, "page_size": page_size}
        sizes = {
            name: validation.positive(name, value, LimitMalformed)
            for name, value in given.items()
            if value is not None
        }
        return cls(sizes.get("limit"), min(sizes.values(), default=None))

    def query(self) -> Query:
        """What a request says of it: ``limit`` is the size of a page there."""
        return () if self.of_a_page is None else (("limit", str(self.of_a_page)),)


@dataclass(frozen=True)
class Answer:
    """A successful answer to ``request``; headers are found in any case."""

    request: str
    status: int
    headers: Mapping[str, str]
    decode: Callable[[], Any]

    def read(self, reading: Callable[[Mapping[str, Any]], Item]) -> Item:
        """What ``reading`` makes of the JSON object that the answer is.

        :raises InvalidResponse: if it is none, or one that cannot be read so
        """
        try:
            return reading(_object(self.decode()))
        except (*_NO_JSON, KeyError, AttributeError, BadInput) as error:
            said = f"the body is not the JSON that belongs there ({error!r})"
            raise self.unusable(said) from error

    def unusable(self, said: str) -> InvalidResponse:
        """The error that the answer is no use, for the reason ``said``."""
        return InvalidResponse(
            self.request, said, status=self.status, request_id=self.headers.get(REQUEST_ID)
        )


def image_path(image_id: str) -> str:
    """The path of an image, whose ID is checked: it could be another path of Glance."""
    return f"{IMAGES}/{validation.image_id(image_id)}"


class Glance:
    """The image service behind ``client``: a glanceclient, an openstacksdk connection, an adapter.

    :raises TypeError: if ``client`` is none of them
    :raises GlanceUnreachable: if an openstacksdk connection cannot find the image service, or
        has been told that there is none
    """

    def __init__(self, client: object) -> None:
        try:
            part = image_part(client)
        except _no_service_errors() as error:
            raise _unreachable(f"GET {API}", error) from error
        self._adapter: Adapter = part if isinstance(part, Adapter) else _adapter_of_endpoint(part)
        self._prefix: str | None = None

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Send one request, ``path`` being under ``/v2``.

        Only a GET is ever sent again by itself, if the connection broke. A body in ``data`` is
        streamed, and never sent twice.

        :param options: ``headers``, ``params``, ``json``, ``data``, ``status_code_retries``
        :raises GlanceError: if it did not succeed
        """
        request = f"{method} {API}{path}"
        # the data that is streamed may fail by itself, which is no error of Glance
        no_answer = (keystone.ClientException,) if "data" in options else _NO_ANSWER
        try:
            response = self._send(method, path, **options)
        except no_answer as error:
            raise _unreachable(request, error) from error
        if not 200 <= response.status_code < 300:
            raise _refused(request, response)
        return Answer(request, response.status_code, response.headers, response.json)

    def pages(self, path: str, query: Iterable[tuple[str, str]]) -> Iterator[Answer]:
        """Ask page after page, as far as they are wanted, following ``next``.

        Of a ``next`` the query alone is followed, so that no token goes to another host.

        :raises InvalidResponse: if a ``next`` leads back to a page that was read
        """
        seen: set[Query] = set()
        following: Query | None = tuple(query)
        while following is not None:
            seen.add(following)
            answer = self.ask("GET", path, params=following)
            yield answer
            following = answer.read(_following)
            if following in seen:
                raise answer.unusable("its pages lead round in a circle")

    def images(
        self,
        image_ids: Iterable[str],
        read: Callable[[Mapping[str, Any]], Item],
        *filters: tuple[str, str],
    ) -> Iterator[tuple[str, Item]]:
        """Yield the images with these IDs that the caller sees, hidden ones too, in any order.

        A request asks for :data:`IDS` of them.

        :param read: takes an image as Glance shows it, and returns what is wanted of it
        :param filters: more of Glance's filters, by name
        :returns: pairs of the ID and what ``read`` returned
        :raises InvalidResponse: if an image lacks what ``read`` needs
        """
        remaining = iter(image_ids)
        while missing := set(itertools.islice(remaining, IDS)):
            for hidden in HIDDEN:
                if not missing:
                    break
                query = [("id", f"in:{','.join(sorted(missing))}"), ("visibility", "all")]
                # a page that is full would name a next one
                query += [("os_hidden", hidden), ("limit", str(IDS + 1)), *filters]
                for page in self.pages(IMAGES, query):
                    found = page.read(lambda body: {i["id"]: read(i) for i in body["images"]})
                    missing -= found.keys()
                    yield from found.items()

    def _send(self, method: str, path: str, **options: Any) -> Any:
        if method != "GET":
            options |= {"connect_retries": 0, "status_code_retries": 0}
        elif self._adapter.connect_retries is None:
            options |= {"connect_retries": 1}
        if "data" in options:
            options |= {"allow_reauth": False, "redirect": False}
        with for_nobody():
            # the clients' own request() encode and decode in ways of their own
            return Adapter.request(
                self._adapter, self._base() + path, method, raise_exc=False, **options
            )

    def _base(self) -> str:
        if self._prefix is None:
            endpoint = self._adapter.get_endpoint()
            if not endpoint:
                raise keystone.EndpointNotFound("the catalogue has no endpoint of an image service")
            self._prefix = "" if _VERSIONED.search(urlsplit(endpoint).path) else API
        return self._prefix


class _EndpointAuth(BaseAuthPlugin):
    """The token and endpoint of a glanceclient that was made without a session, as they stand."""

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


def _following(body: Mapping[str, Any]) -> Query | None:
    # the query alone: whatever the link's path, this page's path leads to the next page
    link = body.get("next")
    return tuple(parse_qsl(urlsplit(link).query, keep_blank_values=True)) if link else None


def _no_service_errors() -> tuple[type[Exception], ...]:
    # whoever gives a connection of openstacksdk has imported it
    openstacksdk = sys.modules.get("openstack.exceptions")
    return (*_NO_ANSWER, openstacksdk.SDKException) if openstacksdk else _NO_ANSWER


def _unreachable(request: str, error: Exception) -> GlanceError:
    said = hide_credentials(str(error)) or type(error).__name__
    if isinstance(error, keystone.http.Unauthorized | keystone.AuthorizationFailure):
        return Unauthorized(request, said, request_id=getattr(error, "request_id", None))
    return GlanceUnreachable(request, said)


def _refused(request: str, response: Any) -> GlanceError:
    said, code, request_id = _explanation(response)
    request_id = request_id or response.headers.get(REQUEST_ID)
    if response.status_code == HTTPStatus.MULTIPLE_CHOICES:
        return InvalidResponse(
            request,
            "it offers its versions, as for a path that belongs to none of them",
            status=response.status_code,
            request_id=request_id,
        )
    return BY_STATUS.get(response.status_code, GlanceError)(
        request,
        hide_credentials(said),
        status=response.status_code,
        code=code,
        request_id=request_id,
        retry_after=seconds_to_wait(response.headers),
    )


def seconds_to_wait(headers: Mapping[str, str]) -> int | None:
    """What ``Retry-After`` asks for: it is a number of seconds, or a date."""
    asked = headers.get("Retry-After", "")
    try:
        if asked.isdecimal():
            return int(asked)
        wait = parsedate_to_datetime(asked) - _now(headers)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0, math.ceil(wait.total_seconds()))


def _now(headers: Mapping[str, str]) -> datetime:
    """The time by the clock of whoever answered, which its dates are meant by."""
    said = headers.get("Date")
    return parsedate_to_datetime(said) if said else datetime.now(UTC)


def _explanation(response: Any) -> tuple[str, str | None, str | None]:
    """What is said, and if the filter says it, its code and the request id."""
    try:
        body = _object(response.json())
    except _NO_JSON:
        return _plain(response.text) or str(response.reason), None, None
    match body:
        case {"error": {"code": str(code), "message": str(said), **more}}:
            return said, code, _text(more.get("request_id"))
        case {"error": {"message": str(said)}} | {"message": str(said)}:
            return _plain(said), None, None
    return _plain(str(body)), None, None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _plain(text: str) -> str:
    words = html.unescape(_TAG.sub(" ", text[:_READ_AT_MOST])).split()
    # before it is cut, or half of a password would not be known for one
    return hide_credentials(" ".join(words))[:300]
