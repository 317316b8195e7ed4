"""Pass on the errors of the filter in Glance to the users of nova-api.

Nova itself passes on Glance's message for 400, 401 and 403. For every other status it responds with
a 500 without the reason.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from webob.exc import HTTPConflict

LOG = logging.getLogger(__name__)

PASSED_ON_BY_NOVA: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_ATTRIBUTE: Final = "related_images_refusal"


@dataclass(frozen=True)
class Refusal:
    """An error response of the filter.

    :ivar retry_after: the value of the header ``Retry-After``
    """

    status: int
    message: str
    retry_after: str | None


class Refused(HTTPConflict):  # type: ignore[misc]
    """A refusal as an exception for which nova-api responds with the status of the refusal.

    Nova's ``expected_errors`` converts an exception to a 500 unless the action lists its ``code``;
    the response has its ``status``. All actions that create images list 409, and none lists 503.
    """

    def __init__(self, refusal: Refusal) -> None:
        headers = {"Retry-After": refusal.retry_after} if refusal.retry_after else {}
        super().__init__(explanation=refusal.message, headers=headers)
        self.status = refusal.status


def keep_refusals(from_response: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap glanceclient's ``from_response``, so that exceptions keep an error of the filter.

    :param from_response: the function of glanceclient
    :returns: a function with the same arguments
    """

    @functools.wraps(from_response)
    def wrapper(response: Any, body: Any = None) -> Any:
        error = from_response(response, body)
        setattr(error, _ATTRIBUTE, _parse(response))
        return error

    return wrapper


def raise_refusals(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function of nova-api, so that it raises :class:`Refused` for errors of the filter.

    :param function: creates an image in Glance
    :returns: a function with the same arguments
    """
    from glanceclient.exc import HTTPException
    from nova.exception import GlanceConnectionFailed

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (HTTPException, GlanceConnectionFailed) as error:
            refusal = refusal_of(error)
            if refusal is None or refusal.status in PASSED_ON_BY_NOVA:
                raise
            LOG.warning("Glance refuses an image with %d: %s", refusal.status, refusal.message)
            raise Refused(refusal) from error

    return wrapper


def refusal_of(error: BaseException) -> Refusal | None:
    """Return the refusal of an exception, or of the one that Nova's last retry replaced."""
    return getattr(error, _ATTRIBUTE, None) or getattr(error.__context__, _ATTRIBUTE, None)


def _parse(response: Any) -> Refusal | None:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    match body:
        case {"error": {"code": str(), "title": str(), "message": str(message), "request_id": _}}:
            return Refusal(response.status_code, message, response.headers.get("Retry-After"))
    return None
