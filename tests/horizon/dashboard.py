"""The WSGI application of Horizon, with its static files, and a measurement of each response.

It runs in the virtual environment of Horizon, which does not have what other tests need.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import requests
from django.conf import settings
from openstack_dashboard.wsgi import application as horizon
from whitenoise import WhiteNoise

from tests.horizon.measurement import API_MILLISECONDS, CALLS, MILLISECONDS

LOG = logging.getLogger(__name__)


class _Measured:
    """The API calls of the page that is made now. Horizon makes some of them in other threads."""

    def __init__(self) -> None:
        self.taken: list[float] = []


_measured = _Measured()
_send = requests.Session.send


def _measure(session: requests.Session, request: Any, **options: Any) -> Any:
    begin = time.perf_counter()
    try:
        response = _send(session, request, **options)
        _ = response.content
        return response
    finally:
        _measured.taken.append(time.perf_counter() - begin)
        LOG.info("%.3f s: %s %s", _measured.taken[-1], request.method, request.url)


requests.Session.send = _measure  # type: ignore[assignment,method-assign]


def _measuring(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Add the number of API calls of the page, their time and the time of the page.

    They are right if one page is requested at a time.
    """
    _measured.taken = []
    begin = time.perf_counter()

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        took = time.perf_counter() - begin
        measured = [
            (CALLS, str(len(_measured.taken))),
            (API_MILLISECONDS, f"{1000 * sum(_measured.taken):.0f}"),
            (MILLISECONDS, f"{1000 * took:.0f}"),
        ]
        return start_response(status, headers + measured, *more)

    answered: Iterable[bytes] = horizon(environ, start)
    return answered


_static = WhiteNoise(_measuring, root=settings.STATIC_ROOT, prefix=settings.STATIC_URL)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with a static file, or with a page of Horizon.

    The theme material has double slashes in paths of fonts, which Apache takes for one.
    """
    environ["PATH_INFO"] = environ["PATH_INFO"].replace("//", "/")
    answered: Iterable[bytes] = _static(environ, start_response)
    return answered
