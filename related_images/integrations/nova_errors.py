"""What Glance's filter refuses, told to whoever asked nova-api for an image.

Nova passes on what Glance says with 400, 401 and 403. Of everything else it makes a 500 that does
not say why.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from webob.exc import HTTPConflict

LOG = logging.getLogger(__name__)

TOLD_BY_NOVA: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_NOTE: Final = "related_images_refusal"


@dataclass(frozen=True)
class Refusal:
    """An error of the filter, as a client of Glance got it."""

    status: int
    message: str
    retry_after: str | None


class Refused(HTTPConflict):  # type: ignore[misc]
    """A refusal as an error that Nova's API answers with the refusal's own status.

    An action of Nova turns every error into a 500 whose ``code`` it does not list, and answers the
    others with their ``status``. All actions that make images list 409, and none lists 503.
    """

    def __init__(self, refusal: Refusal) -> None:
        headers = {"Retry-After": refusal.retry_after} if refusal.retry_after else {}
        super().__init__(explanation=refusal.message, headers=headers)
        self.status = refusal.status


def noting(from_response: Callable[..., Any]) -> Callable[..., Any]:
    """glanceclient's ``from_response``, whose errors keep what the filter said, if it did."""

    @functools.wraps(from_response)
    def note(response: Any, body: Any = None) -> Any:
        error = from_response(response, body)
        setattr(error, _NOTE, _read(response))
        return error

    return note


def telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of nova-api, which raises :class:`Refused` where Nova would not say why."""
    from glanceclient.exc import HTTPException
    from nova.exception import GlanceConnectionFailed

    @functools.wraps(function)
    def tell(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (HTTPException, GlanceConnectionFailed) as error:
            refusal = _noted(error)
            if refusal is None or refusal.status in TOLD_BY_NOVA:
                raise
            LOG.warning("Glance refuses an image with %d: %s", refusal.status, refusal.message)
            raise Refused(refusal) from error

    return tell


def _noted(error: BaseException) -> Refusal | None:
    """What is noted on ``error``, or on the one that it was raised for after the last attempt."""
    return getattr(error, _NOTE, None) or getattr(error.__context__, _NOTE, None)


def _read(response: Any) -> Refusal | None:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    match body:
        case {"error": {"code": str(), "title": str(), "message": str(message), "request_id": _}}:
            return Refusal(response.status_code, message, response.headers.get("Retry-After"))
    return None
