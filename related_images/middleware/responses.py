"""Answers of our own: JSON, errors as JSON, and which status each error has."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final

from webob import Response

from related_images.errors import (
    BadInput,
    BodyTooLarge,
    Conflict,
    Forbidden,
    NotFound,
    NotIdentified,
    RelatedImagesError,
    StoreUnavailable,
)
from related_images.middleware.environ import Environ, request_id
from related_images.protocol import schemas

StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class MethodNotAllowed(RelatedImagesError):
    """The path is ours, but does not answer this method; ``allowed`` are those it does."""

    code = "method.not-allowed"
    title = "The method is not allowed here"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not answered here; allowed are {self.allowed}")


STATUSES: Final[dict[type[RelatedImagesError], HTTPStatus]] = {
    BadInput: HTTPStatus.BAD_REQUEST,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NotIdentified: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    Conflict: HTTPStatus.CONFLICT,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""By the class of the error or the nearest one above it."""


JSON: Final = "application/json; charset=UTF-8"

RETRY_AFTER: Final = 1
"""Seconds, of every 503: openstacksdk waits as long before each of five attempts of its own."""


def status_of(error: RelatedImagesError) -> HTTPStatus:
    """The status of an error; every class below those of :data:`STATUSES` has one."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def written(body: Any, status: HTTPStatus = HTTPStatus.OK, more: Headers | None = None) -> WSGIApp:
    """An answer with ``body`` as JSON, and ``more`` headers."""
    response = Response(json_body=body, status=status.value, content_type=JSON)
    response.headerlist.extend(more or [])
    answer: WSGIApp = response
    return answer


def no_content() -> WSGIApp:
    response: WSGIApp = Response(status=HTTPStatus.NO_CONTENT.value)
    return response


def refusal(environ: Environ, error: RelatedImagesError) -> WSGIApp:
    """The answer that is an error, in the shape in which all of ours are."""
    status = status_of(error)
    shown = schemas.fault(status.value, error, request_id(environ))
    return written(shown, status, _headers_of(error))


def _headers_of(error: RelatedImagesError) -> Headers:
    if isinstance(error, StoreUnavailable):
        return [("Retry-After", str(RETRY_AFTER))]
    if isinstance(error, MethodNotAllowed):
        return [("Allow", error.allowed)]
    return []
