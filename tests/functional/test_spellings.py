"""The filter recognizes every spelling of a request that Glance accepts."""

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests import wsgi
from tests.functional.cloud import ADMIN, Cloud, Server, new_server

EXAMPLES = int(os.environ.get("RELATED_IMAGES_FUZZ_EXAMPLES", "300"))
"""The number of requests for each property."""

METHODS = ["POST", "GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
JSON = "application/json"
BODY = b'{"name": "n"}'


def send(
    app: Any,
    server: Server,
    method: str = "POST",
    path: str = "/v2/images",
    query: str = "",
    script: str = "",
    more: dict[str, str] | None = None,
) -> int:
    """Send a request with an unusual spelling; return the status."""
    environ = wsgi.environ_of(method, "/", server.service | (more or {}), BODY)
    environ |= {"PATH_INFO": path, "QUERY_STRING": query, "SCRIPT_NAME": script}
    environ["CONTENT_TYPE"] = JSON
    return wsgi.run(app, environ).status


def recorded_or_refused(cloud: Cloud, server: Server, **request: Any) -> int:
    """Send it with instance headers; check that exactly the created images have relations."""
    try:
        status = send(
            cloud.app, server, **{**request, "more": server.headers | request.get("more", {})}
        )
    except (
        AssertionError,
        ValueError,
    ):  # Glance's own errors for malformed paths and paths that are not UTF-8
        status = 500
    path = f"/v2/images?owner={server.project}&limit=1000"
    made = {image["id"] for image in wsgi.call(cloud.bare, "GET", path, ADMIN).json["images"]}
    recorded = {relation["image_id"] for relation in cloud.relations(**server.query)}
    assert made <= recorded
    assert made == recorded or status >= 500
    return status


TAKEN = [
    {"path": "//v2/images"},
    {"path": "/v2//images"},
    {"path": "///v2///images"},
    {"path": "/v2/images\n"},
    {"path": "/v2.9/images"},
    {"path": "/v2.0//images\n"},
    {"path": "http://host/v2/images"},
    {"path": "https://user@host:1//v2/images"},
    {"path": "http:///v2/images"},
    {"path": "http://a\nb/v2/images\n"},
    {"path": "/v2/images", "script": "/image"},
    {"path": "/v2/images", "script": "/image/v2"},
    {"path": "/v2/images", "query": "x=y;z"},
    {"path": "/images", "more": {"Accept": "application/vnd.openstack.images-v2"}},
    {"path": "//images\n", "more": {"Accept": "application/vnd.openstack.images-v2.9"}},
    {"path": "http://host/images", "more": {"Accept": "application/vnd.openstack.images-v2"}},
]
REFUSED = [
    {"method": method, "query": query}
    for method in METHODS
    for query in (
        *("_method=POST", "_method=post", "a=b&_method=%50OST", "_method=GET&_method=POST"),
        *("x=_method&%5f%6dethod=POST", "a;_method=POST", "_method=POST;x", "_method=PUT"),
    )
]
NOTHING = [
    {"path": "/v2/images/"},
    {"path": "/v2/IMAGES"},
    {"path": "/v2/./images"},
    {"path": "/v2/images?"},
    {"path": "/images"},
    {"path": "/v1/images"},
    {"path": "HTTP://host/v2/images"},
    {"path": ""},
    {"path": "*"},
]


@pytest.mark.parametrize("request_", TAKEN, ids=str)
def test_every_spelling_of_the_path_is_recorded(cloud: Cloud, request_: dict[str, Any]) -> None:
    assert send(cloud.bare, new_server(), **request_) == 201
    assert recorded_or_refused(cloud, new_server(), **request_) == 201


@pytest.mark.parametrize("request_", REFUSED, ids=str)
def test_method_override_in_the_query_is_refused(cloud: Cloud, request_: dict[str, Any]) -> None:
    server = new_server()
    assert recorded_or_refused(cloud, server, **request_) == 400
    assert cloud.total(server.project) == 0


@pytest.mark.parametrize("request_", NOTHING, ids=str)
def test_requests_that_create_no_image_are_not_recorded(
    cloud: Cloud, request_: dict[str, Any]
) -> None:
    server = new_server()
    assert recorded_or_refused(cloud, server, **request_) != 201
    assert cloud.relations(**server.query) == []


@pytest.mark.parametrize(
    "query",
    ["_method=POST&{}", "{};_method=POST", "x;_method=POST&{}", "{}&x=_method&%5fmethod=POST"],
)
def test_server_in_the_query_cannot_create_an_image(cloud: Cloud, query: str) -> None:
    server = new_server()
    server_query = f"installation_uuid={server.installation}&instance_id={server.id}"
    assert send(cloud.app, server, "GET", query=query.format(server_query)) == 400
    assert cloud.total(server.project) == 0


@pytest.mark.parametrize(
    "type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"]
)
def test_method_in_a_form_creates_no_unrecorded_image(cloud: Cloud, type: str) -> None:
    server = new_server()
    for body in (b"_method=POST", b'{"name": "&_method=PUT&"}', b'{"name": "&_method=POST&"}'):
        headers = server.service | server.headers | {"Content-Type": type}
        cloud.call("POST", "/v2/images", headers, body)
    assert len(cloud.relations(**server.query)) == cloud.total(server.project)


def pieces() -> st.SearchStrategy[str]:
    known = [
        "/",
        "//",
        "v2",
        "images",
        "/v2/images",
        "v2.9",
        "\n",
        "http://h",
        "https://",
        "..",
        ";",
    ]
    return st.sampled_from(
        [*known, "%0A", "v1", "IMAGES", "?", "#", "\r", "\0", " ", "é", "/v2"]
    ) | (st.characters(max_codepoint=255))


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Return the path with a few pieces inserted or removed."""
    path = "/v2/images"
    for piece in draw(st.lists(pieces() | st.none(), max_size=3)):
        at = draw(st.integers(0, len(path)))
        path = path[:at] + (piece or "") + path[at + (piece is None) :]
    return path


@st.composite
def queries(draw: st.DrawFn) -> str:
    words = ["_method", "=", "&", ";", "POST", "post", "GET", "%5f", "method", "+", "%", "\0", "ÿ"]
    return "".join(draw(st.lists(st.sampled_from(words), max_size=8)))


FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@FUZZ
@given(
    method=st.sampled_from(["POST", "POST", "POST", *METHODS]),
    path=paths(),
    query=st.just("") | queries(),
    script=st.sampled_from(["", "", "/image", "/v2", "/image/v2", "/v2.1"]),
    accept=st.sampled_from([{}, {}, {"Accept": "application/vnd.openstack.images-v2"}]),
)
@example("POST", "/v2/images", "", "", {})
@example("GET", "/v2/images", "a;_method=POST", "", {})
def test_no_spelling_creates_an_image_without_a_relation(
    cloud: Cloud, method: str, path: str, query: str, script: str, accept: dict[str, str]
) -> None:
    recorded_or_refused(
        cloud, new_server(), method=method, path=path, query=query, script=script, more=accept
    )


LENGTHS = ["0", "-1", "+13", " 13", "13 ", "13", "12", "14", "x", "", "1e1", "013", "13,13"]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("terminated", [True, False])
def test_no_body_length_creates_an_image_without_a_relation(
    cloud: Cloud, length: str, terminated: bool
) -> None:
    server = new_server()
    environ = wsgi.environ_of("POST", "/v2/images", server.service | server.headers, BODY)
    environ |= {"CONTENT_LENGTH": length, "wsgi.input_terminated": terminated}
    environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    answer = wsgi.run(cloud.app, environ)
    assert answer.status in (201, 400)
    assert (
        len(cloud.relations(**server.query))
        == cloud.total(server.project)
        == (answer.status == 201)
    )


NESTED = [10, 500, 900, 970, 980, 990, 1000, 100_000]


@pytest.mark.parametrize("depth", NESTED)
def test_no_body_depth_creates_an_image_without_a_relation(cloud: Cloud, depth: int) -> None:
    server = new_server()
    body = b'{"name": ' + b"[" * depth + b"]" * depth + b"}"
    environ = wsgi.environ_of("POST", "/v2/images", server.service | server.headers, body)
    assert wsgi.run(cloud.app, environ).status in (400, 500)
    assert cloud.total(server.project) == 0


def test_unusual_numbers_and_names_pass(cloud: Cloud) -> None:
    server = new_server()
    fields = {"name": "облако", "tags": ["ä"], "min_disk": 2**31 - 1}
    image_id = cloud.create(server, **fields)
    shown = cloud.call("GET", f"/v2/images/{image_id}", server.user).json
    assert json.loads(json.dumps(fields)) == {name: shown[name] for name in fields}
