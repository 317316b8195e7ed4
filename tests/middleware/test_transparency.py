"""Requests that the filter does not handle pass unchanged."""

import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any
from wsgiref.validate import validator

import pytest

from related_images.middleware import filter_factory
from tests import wsgi
from tests.filters import OURS, instance_headers, new_uuid
from tests.middleware.conftest import MakeFilter

Start = Callable[..., Any]
NOVA = "3af926a8-1084-4627-a7b9-e3559b5c9865"
IMAGE = "e47cd6b6-c422-4bea-8010-ffaf61f94165"
TUPLE = instance_headers(NOVA, "i-1", kind="backup", label="daily")
SERVICE = wsgi.identity("nova", "p", "service")


class Unread:
    """A body that fails the test if it is read."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the body was touched: {name}")


PASSING = [
    ("GET", "/", {}),
    ("GET", "/versions", TUPLE),
    ("GET", "/healthcheck", {}),
    ("GET", "/v2/images", {}),
    ("GET", "/v2/images?instance_id=mine&kind=backup", {}),
    ("POST", "/v2/images", {}),
    ("PUT", f"/v2/images/{IMAGE}/file", {}),
    ("PUT", f"/v2/images/{IMAGE}/file", TUPLE),
    ("PUT", f"/v2/images/{IMAGE}/stage", TUPLE),
    ("POST", f"/v2/images/{IMAGE}/import", TUPLE),
    ("PATCH", f"/v2/images/{IMAGE}", TUPLE),
    ("PUT", "/v2/images", TUPLE),
    ("POST", "/v2/tasks", TUPLE),
    ("POST", "/v1/images", TUPLE),
    ("GET", "/v2/schemas/image", TUPLE),
    ("GET", "/v2/info/import", {}),
    ("DELETE", f"/v2/images/{IMAGE}/tags/x", TUPLE),
    ("GET", "/v2/relations%0A", {}),
    ("GET", "/v2/images/a/b/relations", {}),
    ("*", "*", TUPLE),
]


@pytest.mark.parametrize(("method", "path", "sent_headers"), PASSING)
def test_environ_passes_with_an_unread_body(
    make_filter: MakeFilter, method: str, path: str, sent_headers: dict[str, str]
) -> None:
    environ = wsgi.environ_of(method, path, SERVICE | sent_headers)
    environ["wsgi.input"] = Unread()
    expected = {name: value for name, value in environ.items() if name not in OURS}
    seen: list[tuple[Any, Any]] = []
    answer = [b"as it is"]

    def app(given: Any, start_response: Start) -> list[bytes]:
        seen.append((given, start_response))
        return answer

    def start_response(*_: Any) -> None:
        raise AssertionError("nobody answered")

    assert make_filter(app)(environ, start_response) is answer
    assert seen == [(environ, start_response)]
    assert seen[0][0] is environ
    assert environ == expected


@pytest.mark.parametrize("key", [key for key in OURS if key != "HTTP_X_RELATION_FORCE"])
def test_single_instance_header_does_not_reach_glance(make_filter: MakeFilter, key: str) -> None:
    environ = wsgi.environ_of("PUT", "/v2/images/x/file", SERVICE) | {key: "x"}
    started: list[str] = []
    body = make_filter(lambda *_: [b"reached"])(environ, lambda status, _: started.append(status))
    assert b"reached" not in b"".join(body)
    assert started[0].startswith("400")
    assert key not in environ


PATHS = ["/v2/images", "/v2/relations-not", f"/v2/images/{IMAGE}"]


def test_filter_complies_with_wsgi(make_filter: MakeFilter) -> None:
    def app(environ: Any, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"images": []}']

    guarded = make_filter(validator(app))
    for method in ("GET", "POST", "PUT", "DELETE"):
        for path in PATHS:
            for sent_headers in ({}, TUPLE):
                answer = wsgi.call(guarded, method, path, SERVICE | sent_headers, {"name": "n"})
                assert answer.status == 200


MANY = [
    ("GET", "/v2/images", {}),
    ("PUT", "/v2/images/x/file", TUPLE),
    ("DELETE", f"/v2/images/{IMAGE}", {}),
    ("POST", "/v2/images", TUPLE),
]


@pytest.mark.parametrize(("method", "path", "sent_headers"), MANY)
def test_generator_is_not_consumed_early(
    make_filter: MakeFilter, method: str, path: str, sent_headers: dict[str, str]
) -> None:
    done: list[str] = []

    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        try:
            done.append("begun")
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"first"
            done.append("second")
            yield b"second"
        finally:
            done.append("closed")

    environ = wsgi.environ_of(method, path, SERVICE | sent_headers, {"name": "n"})
    started: list[Any] = []
    pieces = make_filter(app)(environ, lambda *given: started.append(given))
    assert (done, started) == ([], [])
    assert next(iter(pieces)) == b"first"
    assert done == ["begun"]
    assert started[0][0] == "200 OK"
    pieces.close()  # type: ignore[attr-defined]
    assert done == ["begun", "closed"]


@pytest.mark.parametrize(("method", "path", "sent_headers"), MANY)
def test_write_exc_info_and_status_line_pass(
    make_filter: MakeFilter, method: str, path: str, sent_headers: dict[str, str]
) -> None:
    started: list[Any] = []

    def write(data: bytes) -> None:
        started.append(data)

    def start_response(*given: Any) -> Callable[[bytes], None]:
        started.append(given)
        return write

    def app(environ: Any, start_response: Start) -> list[bytes]:
        assert start_response("500 Odd Phrase", [("X-A", "b")])(b"written") is None
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Other", [("X-A", "c")], sys.exc_info())
        return []

    environ = wsgi.environ_of(method, path, SERVICE | sent_headers, {"name": "n"})
    assert list(make_filter(app)(environ, start_response)) == []
    first, data, (status, headers, exc_info) = started
    assert (first, data) == (("500 Odd Phrase", [("X-A", "b")]), b"written")
    assert (status, headers, exc_info[0]) == ("500 Other", [("X-A", "c")], LookupError)


def test_exception_of_glance_passes(make_filter: MakeFilter) -> None:
    def app(environ: Any, start_response: Start) -> list[bytes]:
        raise LookupError("of Glance")

    for method, path, sent_headers in MANY:
        environ = wsgi.environ_of(method, path, SERVICE | sent_headers, {"name": "n"})
        with pytest.raises(LookupError, match="of Glance"):
            make_filter(app)(environ, lambda *_: None)


def test_restricted_list_is_closed(make_filter: MakeFilter) -> None:
    closed: list[bool] = []

    class Pieces(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Start) -> Pieces:
        start_response("200 OK", [("Content-Type", "application/json")])(b'{"ima')
        return Pieces([b'ges": []}'])

    environ = wsgi.environ_of("GET", "/v2/images", SERVICE | TUPLE)
    body = b"".join(make_filter(app)(environ, lambda *_: None))
    assert body == b'{"images": [], "first": "/v2/images"}'
    assert closed == [True]


def test_body_of_a_recording_request_is_the_parsed_one(make_filter: MakeFilter) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Start) -> list[bytes]:
        length = int(environ["CONTENT_LENGTH"])
        seen.append((environ["wsgi.input"].read(length), environ["wsgi.input"].read(1)))
        start_response("201 Created", [("Content-Type", "text/plain")])
        return [b""]

    environ = wsgi.environ_of("POST", "/v2/images", SERVICE | TUPLE)
    environ |= {"wsgi.input": BytesIO(b' {"id": "%s"} ' % (id := new_uuid()).encode())}
    environ |= {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    list(make_filter(app)(environ, lambda *_: None))
    assert seen == [(f'{{"id": "{id}"}}'.encode(), b"")]
    assert "HTTP_TRANSFER_ENCODING" not in environ


def test_paste_creates_the_filter() -> None:
    made = filter_factory({"here": "/", "__file__": "x"}, connection="sqlite:///no/such/file.db")
    answer = [b""]
    assert made(lambda *_: answer)(wsgi.environ_of("GET", "/v2/images"), lambda *_: None) is answer
