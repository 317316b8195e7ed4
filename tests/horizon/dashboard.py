"""The WSGI application of Horizon, with its static files, and a measurement of each response.

It runs in the virtual environment of Horizon, which does not have what other tests need.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import requests
from django.conf import settings
from openstack_dashboard.wsgi import application as horizon
from whitenoise import WhiteNoise

from tests.horizon.measurement import API_MILLISECONDS, CALLS, MILLISECONDS

_measured = threading.local()
_send = requests.Session.send


def _measure(session: requests.Session, request: Any, **options: Any) -> Any:
    begin = time.perf_counter()
    try:
        response = _send(session, request, **options)
        _ = response.content
        return response
    finally:
        _measured.calls = getattr(_measured, "calls", 0) + 1
        _measured.seconds = getattr(_measured, "seconds", 0.0) + time.perf_counter() - begin


requests.Session.send = _measure  # type: ignore[assignment,method-assign]


def _measuring(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Add the number of API calls of the page, their time and the time of the page."""
    _measured.calls, _measured.seconds = 0, 0.0
    begin = time.perf_counter()

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        took = time.perf_counter() - begin
        measured = [
            (CALLS, str(_measured.calls)),
            (API_MILLISECONDS, f"{1000 * _measured.seconds:.0f}"),
            (MILLISECONDS, f"{1000 * took:.0f}"),
        ]
        return start_response(status, headers + measured, *more)

    answered: Iterable[bytes] = horizon(environ, start)
    return answered


application = WhiteNoise(_measuring, root=settings.STATIC_ROOT, prefix=settings.STATIC_URL)
