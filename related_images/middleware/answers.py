"""Answers of our own: JSON, errors as JSON, and which status each error has."""

import json
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

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


RETRY_AFTER: Final = 1
"""Seconds, of every 503: openstacksdk waits as long before each of five attempts of its own."""


def status_of(error: RelatedImagesError) -> HTTPStatus:
    """The status of an error; every class below those of :data:`STATUSES` has one."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def answer(
    start_response: StartResponse,
    status: HTTPStatus,
    body: Any = None,
    headers: Sequence[tuple[str, str]] = (),
) -> list[bytes]:
    """Answer with ``body``: text as it is, nothing for ``None``, all else as JSON."""
    content, type_ = _written(body)
    described = [("Content-Type", f"{type_}; charset=UTF-8")] if type_ else []
    if status != HTTPStatus.NO_CONTENT:
        described.append(("Content-Length", str(len(content))))
    start_response(f"{status.value} {status.phrase}", [*described, *headers])
    return [content]


def _written(body: Any) -> tuple[bytes, str | None]:
    if body is None:
        return b"", None
    if isinstance(body, str):
        return body.encode(), "text/plain; version=0.0.4"
    return json.dumps(body).encode(), "application/json"


def answer_error(
    environ: Environ, start_response: StartResponse, error: RelatedImagesError
) -> list[bytes]:
    """Answer with an error in the shape in which all of ours are."""
    status = status_of(error)
    shown = schemas.fault(status.value, error, request_id(environ))
    content = answer(start_response, status, shown, _headers_of(error))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else content


def _headers_of(error: RelatedImagesError) -> Headers:
    if isinstance(error, StoreUnavailable):
        return [("Retry-After", str(RETRY_AFTER))]
    if isinstance(error, MethodNotAllowed):
        return [("Allow", error.allowed)]
    return []
