"""Responses of the filter: JSON, errors as JSON, and the status of each error."""

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
    """The path is one of the filter's own, and does not support the method."""

    code = "method.not-allowed"
    title = "The method is not allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(
            f"the method {method} is not allowed for this path; allowed are: {self.allowed}"
        )


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
"""The status of each error class and of its subclasses."""


JSON: Final = "application/json; charset=UTF-8"

RETRY_AFTER: Final = 1
"""Seconds, in every 503. openstacksdk retries five times and waits this long before each."""


def status_of(error: RelatedImagesError) -> HTTPStatus:
    """Return the HTTP status of an error whose class is in or below :data:`STATUSES`."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def json_response(
    body: Any, status: HTTPStatus = HTTPStatus.OK, more: Headers | None = None
) -> WSGIApp:
    """Return a response with ``body`` as JSON and with ``more`` headers."""
    response = Response(json_body=body, status=status.value, content_type=JSON)
    response.headerlist.extend(more or [])
    answer: WSGIApp = response
    return answer


def no_content() -> WSGIApp:
    """Return a response with status 204."""
    response: WSGIApp = Response(status=HTTPStatus.NO_CONTENT.value)
    return response


def error_response(environ: Environ, error: RelatedImagesError) -> WSGIApp:
    """Return the response for an error, in the format of all errors of the filter."""
    status = status_of(error)
    shown = schemas.fault(status.value, error, request_id(environ))
    return json_response(shown, status, _headers_of(error))


def _headers_of(error: RelatedImagesError) -> Headers:
    if isinstance(error, StoreUnavailable):
        return [("Retry-After", str(RETRY_AFTER))]
    if isinstance(error, MethodNotAllowed):
        return [("Allow", error.allowed)]
    return []
