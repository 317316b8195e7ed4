"""Send a request to the filter in front of Glance's own router, and check the invariants."""

import json
import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paste.urlmap import URLMap
from routes import Mapper
from routes.middleware import RoutesMiddleware
from webob.compat import parse_qsl_text

from related_images.protocol import headers, image_list
from tests import wsgi
from tests.filters import OURS, filtering, migrated

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

ADMIN = wsgi.identity("root", "admins", "admin")


@dataclass
class Request:
    """A request as a WSGI server passes it; text has characters up to U+00FF."""

    method: str = "POST"
    path: str = "/v2/images"
    query: str = ""
    script: str = ""
    content_type: str = "application/json"
    length: str | None = None
    terminated: bool = False
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)

    def environ(self) -> "WSGIEnvironment":
        environ = wsgi.environ_of(self.method, "/", self.headers)
        environ |= {
            "HTTP_HOST": "127.0.0.1",
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SCRIPT_NAME": self.script,
            "CONTENT_TYPE": self.content_type,
            "CONTENT_LENGTH": str(len(self.body)) if self.length is None else self.length,
            "wsgi.input": BytesIO(self.body),
            "wsgi.input_terminated": self.terminated,
        }
        return environ


class RoutedGlance:
    """The parts of Glance before its controllers: URL map and router, with a table of images."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.created: list[Any] = []
        mapper = Mapper()
        for path, methods in (
            ("/images", {"GET": "list", "POST": "create"}),
            ("/images/{image_id}", {"GET": "show", "DELETE": "delete"}),
            ("/images/{image_id}/members", {"GET": "members"}),
        ):
            for method, action in methods.items():
                mapper.connect(path, action=action, conditions={"method": [method]})
        below = URLMap()
        below["/v2"] = RoutesMiddleware(self._act, mapper)
        self._app = below

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        self.seen.append(dict(environ))
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer

    def _act(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        match = environ["wsgiorg.routing_args"][1]
        status, body = getattr(self, f"_{match.get('action', 'none')}")(environ, match)
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(body).encode() if body is not None else b""]

    def _none(self, environ: "WSGIEnvironment", match: dict[str, str]) -> tuple[str, Any]:
        return "404 Not Found", {}

    def _list(self, environ: "WSGIEnvironment", match: dict[str, str]) -> tuple[str, Any]:
        return "200 OK", {"images": [], "first": "/v2/images"}

    def _show(self, environ: "WSGIEnvironment", match: dict[str, str]) -> tuple[str, Any]:
        return "200 OK", {"id": match["image_id"], "owner": "p", "visibility": "private"}

    def _members(self, environ: "WSGIEnvironment", match: dict[str, str]) -> tuple[str, Any]:
        return "200 OK", {"members": []}

    def _delete(self, environ: "WSGIEnvironment", match: dict[str, str]) -> tuple[str, Any]:
        return "204 No Content", None

    def _create(self, environ: "WSGIEnvironment", match: dict[str, str]) -> tuple[str, Any]:
        length = environ.get("CONTENT_LENGTH") or ""
        content = environ["wsgi.input"].read(
            int(length) if len(length) < 9 and length.isdecimal() else -1
        )
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            return "400 Bad Request", {}
        self.created.append(body.get("id") if isinstance(body, dict) else None)
        return "201 Created", body


class Target:
    """The filter with its own database; ``tried`` counts requests."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        home = Path(self._directory.name) / "home"
        home.mkdir()
        self.glance = RoutedGlance()
        # long, so that a busy machine does not fail the test
        self.app = filtering(self.glance, migrated(home), database_timeout="60")
        self.tried = 0

    def hold(self, request: Request) -> None:
        """Send the request and check the invariants."""
        self.tried += 1
        self.glance.seen.clear()
        self.glance.created.clear()
        environ = request.environ()
        carried = any(key in environ for key in OURS)
        try:
            answer = wsgi.run(self.app, environ)
        except (AssertionError, ValueError, OSError) as error:
            # errors of Glance's router for malformed paths, not of the filter
            where = traceback.extract_tb(error.__traceback__)[-1].filename
            assert "related_images" not in where, request
        else:
            assert answer.status < 500, (request, answer)
            self._hold_answer(request, answer)
        for seen in self.glance.seen:
            assert not any(key in seen for key in OURS), request
        if carried:
            for image_id in self.glance.created:
                assert self._is_recorded(image_id), request

    def _hold_answer(self, request: Request, answer: Any) -> None:
        if not self.glance.seen:
            assert answer.body == b"" or isinstance(answer.json, dict), request
        if headers.FILTERS_APPLIED in answer.headers:
            (asked,) = (seen["QUERY_STRING"] for seen in self.glance.seen)
            names = [name for name, _ in parse_qsl_text(asked, "latin-1")]
            assert not set(names) & set(image_list.NAMES), request
            assert names.count("id") <= 1, request
        if headers.RECORDED in answer.headers:
            assert len(self.glance.created) == 1, request

    def _is_recorded(self, image_id: Any) -> bool:
        if not isinstance(image_id, str):
            return False
        found = wsgi.call(self.app, "GET", f"/v2/relations?image_id={image_id}", ADMIN)
        return found.status == 200 and len(found.json["relations"]) > 0


UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
METHODS = ("POST", "GET", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "FOO")
PATHS = (
    "/v2/images",
    "//v2//images\n",
    "http://h/v2/images",
    "/v2.9/images",
    f"/v2/images/{UUID}",
    f"/v2/images/{UUID}/relations",
    f"/v2/images/{UUID}/relations/{UUID}/i/backup",
    f"/v2/images/{UUID}/ancestry",
    f"/v2/images/{UUID}/descendants",
    "/v2/relations",
    "/v2/instances",
    f"/v2/instances/{UUID}/i",
    "/v2/installations",
    f"/v2/installations/{UUID}",
    "/v2/info/relations",
    "/v2/schemas/relation",
)
WORDS = (
    *("/", "//", "v2", "images", "relations", "instances", "\n", "%0A", "http://", ";", "&", "="),
    *("_method", "%5fmethod", "POST", "DELETE", "installation_uuid", "instance_id", "id", "in:"),
    *(
        "relation_kind",
        "relation_in_use",
        "relation_",
        "true",
        "false",
        "backup",
        "boot",
        "limit",
        "marker",
        "kind",
        "label",
    ),
    *("created_after", "latest_before", "depth", "project_id", "source", UUID, "i", "\0", "ÿ", "+"),
    *("%", "%ff", "2026-01-01", "1", "0", "-1", "9" * 30, ",", '"', "{", "}", "[", "]", ":", "|"),
    *("null", '"id"', '"owner"', '"uuid"', '"name"', '"instance_id"', '"installation_uuid"'),
    *('"image_id"', '"kind"', '"\\ud800"', '"\\u0000"', "1e999", "NaN"),
)
"""Pieces of requests."""

BODIES = (
    b'{"name": "n"}',
    b'{"id": "%s"}' % UUID.encode(),
    b'{"owner": "o"}',
    json.dumps(
        {"installation_uuid": UUID, "instance_id": "i", "image_id": UUID, "kind": "backup"}
    ).encode(),
    json.dumps({"uuid": UUID, "name": "n"}).encode(),
    b"_method=POST",
)
CALLERS: tuple[dict[str, str], ...] = (
    wsgi.identity("nova", "p", "service", "member"),
    wsgi.identity("u", "p", "member"),
    wsgi.identity("root", "p", "admin", "service"),
    {},
)
TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
    "",
)
SCRIPTS = ("", "/image", "/v2", "/image/v2")
TUPLES: tuple[dict[str, str], ...] = (
    {"X-Installation-UUID": UUID, "X-Instance-ID": "i"},
    {},
    {"X-Installation-UUID": UUID, "X-Instance-ID": "i", "X-Relation-Kind": "backup"},
    {"X-Installation-UUID": UUID},
)
