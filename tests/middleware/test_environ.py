from io import BytesIO
from typing import Any

import pytest

from related_images.errors import BodyIncomplete, BodyTooLarge
from related_images.middleware import environ as reading
from tests.filters import OURS


def test_removed_headers_match_the_environ_keys() -> None:
    assert set(OURS) == reading.HEADER_KEYS


def test_popping_removes_all_headers() -> None:
    environ = {**dict.fromkeys(OURS, "x"), "HTTP_X_OTHER": "y"}
    taken, forced = reading.pop_headers(environ)
    assert set(taken) == {
        *("X-Installation-UUID", "X-Instance-ID", "X-Resource-Type"),
        *("X-Relation-Kind", "X-Relation-Label", "X-Instance-Project-ID"),
    }
    assert not forced
    assert environ == {"HTTP_X_OTHER": "y"}
    assert reading.pop_headers(environ) == ({}, False)


@pytest.mark.parametrize(
    ("script", "path", "below"),
    [
        ("", "/v2/images", "/images"),
        ("", "//v2/images", "/images"),
        ("", "/v2//images", "/images"),
        ("", "/v2///images", "/images"),
        ("", "/v2/images\n", "/images\n"),
        ("", "/v2/images/", "/images/"),
        ("", "/v2/IMAGES", "/IMAGES"),
        ("", "http://host/v2/images", "/images"),
        ("", "https://user@host:1//v2//images", "/images"),
        ("", "http:///v2/images", "/images"),
        ("", "http://a\nb/v2/images", "/images"),
        ("", "/v2.9/images", "/images"),
        ("", "/v2.17/images", "/images"),
        ("/image", "/v2/images", "/images"),
        ("/image/v2", "/images", "/images"),
        ("/image/v2", "/images/x", "/images/x"),
        ("/image/v2", "/v2/images", "/images"),
        ("", "", None),
        ("", "*", None),
        ("", "/", None),
        ("", "/v1/images", None),
        ("", "/v2", None),
        ("", "/images", None),
        ("", "HTTP://host/v2/images", None),
        ("", "/v2.x/images", None),
        ("", "/image/v2/images", None),
    ],
)
def test_path_is_read_as_glance_reads_it(script: str, path: str, below: str | None) -> None:
    assert reading.path_below_api({"SCRIPT_NAME": script, "PATH_INFO": path}) == below


@pytest.mark.parametrize(
    ("script", "path"), [("", "/v2/images/x"), ("/image", "/v2/images/x"), ("/v2", "/images/x")]
)
def test_path_is_set_at_the_same_mount_point(script: str, path: str) -> None:
    environ = {"SCRIPT_NAME": script}
    reading.set_path_below_api(environ, "/images/x")
    assert environ["PATH_INFO"] == path
    assert reading.path_below_api(environ) == "/images/x"


def body(length: str | None, sent: bytes, **more: Any) -> dict[str, Any]:
    announced = {} if length is None else {"CONTENT_LENGTH": length}
    return {**announced, "wsgi.input": BytesIO(sent), **more}


def test_body_is_read_up_to_its_content_length() -> None:
    assert reading.read_body(body("3", b"abcdef")) == b"abc"


def test_terminated_body_is_read_to_its_end() -> None:
    assert reading.read_body(body(None, b"abc", **{"wsgi.input_terminated": True})) == b"abc"


@pytest.mark.parametrize("length", [None, "", "x", "-1", "+3", " 3", "٣"])
def test_body_of_unknown_length_is_empty(length: str | None) -> None:
    assert reading.read_body(body(length, b"abc")) == b""


def test_incomplete_body_is_refused() -> None:
    with pytest.raises(BodyIncomplete, match="Content-Length is 4, but the body has 3 bytes"):
        reading.read_body(body("4", b"abc"))


def test_broken_connection_is_an_incomplete_body() -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(BodyIncomplete, match="gone"):
        reading.read_body(body("4", b"") | {"wsgi.input": Broken()})


def test_body_at_the_limit_is_read() -> None:
    full = b"x" * reading.BODY_LIMIT
    assert reading.read_body(body(str(len(full)), full)) == full


@pytest.mark.parametrize("announced", [True, False])
def test_body_over_the_limit_is_refused(announced: bool) -> None:
    size = reading.BODY_LIMIT + 1
    ended = {"wsgi.input_terminated": True}
    with pytest.raises(BodyTooLarge):
        reading.read_body(body(str(size) if announced else None, b"x" * size, **ended))


def test_body_is_not_read_if_its_content_length_is_too_large() -> None:
    stream = BytesIO(b"x")
    with pytest.raises(BodyTooLarge):
        reading.read_body({"CONTENT_LENGTH": str(10**12), "wsgi.input": stream})
    assert stream.tell() == 0
