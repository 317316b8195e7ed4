"""Requests of the filter to Glance, and how it reads the responses."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from related_images.middleware import glance
from tests import wsgi


def asked(app: Any) -> Any:
    return glance.call(app, wsgi.environ_of("GET", "/v2/images"))


def test_second_start_response_replaces_the_first() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        try:
            raise LookupError("late")
        except LookupError:
            start_response("503 Not Now", [("Retry-After", "1")], sys.exc_info())
        return [b"down"]

    found = asked(app)
    assert (found.status, found.body) == ("503 Not Now", b"down")
    assert (found.headers["Retry-After"], found.headers["Content-Length"]) == ("1", "4")


def test_generator_app_is_run() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        yield b"b"

    assert (asked(app).status, asked(app).body) == ("200 OK", b"ab")


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"a", b"b"]])
def test_response_is_closed_once(pieces: list[bytes]) -> None:
    closed: list[bool] = []

    class Closing(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Closing:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Closing(pieces)

    assert asked(app).body == b"".join(pieces)
    assert closed == [True]


def test_request_to_glance_has_no_conditional_headers_of_the_caller() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ)
        start_response("404 Not Found", [])
        return [b""]

    sent_headers = {"If-None-Match": "*", "Range": "bytes=0-1", "X-Roles": "member"}
    environ = wsgi.environ_of("DELETE", "/v2/images/x?_method=GET", sent_headers, b"body")
    before = dict(environ)
    assert glance.find_image(app, environ, "x") == {}
    assert environ == before
    assert "HTTP_RANGE" not in seen[0]
    assert "HTTP_IF_NONE_MATCH" not in seen[0]
    assert (seen[0]["REQUEST_METHOD"], seen[0]["QUERY_STRING"]) == ("GET", "")
    assert (seen[0]["HTTP_X_ROLES"], seen[0]["wsgi.input"].read()) == ("member", b"")
