"""The filter in this process, its database, and an app in the place of Glance."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from related_images import config
from related_images.db import schema
from related_images.middleware import InstanceAwareMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

OURS = (
    "HTTP_X_INSTALLATION_UUID",
    "HTTP_X_INSTANCE_ID",
    "HTTP_X_RESOURCE_TYPE",
    "HTTP_X_RELATION_KIND",
    "HTTP_X_RELATION_LABEL",
    "HTTP_X_INSTANCE_PROJECT_ID",
    "HTTP_X_RELATION_FORCE",
)
"""The environ keys of the instance headers, written out to check the computed ones."""


def migrated(directory: Path) -> str:
    """Return the URL of a database with empty tables, copied from a template."""
    template = directory.parent / "migrated.db"
    if not template.exists():
        schema.upgrade(f"sqlite:///{template}")
    path = directory / f"{uuid4().hex}.db"
    shutil.copy(template, path)
    return f"sqlite:///{path}"


def filtering(app: Any, connection: str, **options: str) -> InstanceAwareMiddleware:
    """Return the filter in front of ``app``, with options as text as in a paste file.

    The default timeout is longer than that of the filter, so that a busy machine fails no test.
    """
    given = {"connection": connection, "database_timeout": "10", **options}
    return InstanceAwareMiddleware(app, config.load("filter:related-images", given))


def instance_headers(installation: str, instance: str, **others: str) -> dict[str, str]:
    """Return the instance headers of a server; ``kind`` and ``label`` are optional."""
    values = {"X-Installation-UUID": installation, "X-Instance-ID": instance}
    return values | {f"X-Relation-{name.title()}": text for name, text in others.items()}


def new_uuid() -> str:
    return str(uuid4())


class StubGlance:
    """Stores each request. Answers a POST with an image, shows every image, and lists none.

    For tests that do not depend on Glance's responses: permissions, and requests that pass.
    """

    def __init__(self, owner: str = "own") -> None:
        self.owner = owner
        self.seen: list[dict[str, Any]] = []
        self.created: list[str] = []

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        self.seen.append(dict(environ))
        status, body = self._answer(environ)
        content = b"" if body is None else json.dumps(body).encode()
        typed = [("Content-Type", "application/json")] if body is not None else []
        start_response(status, typed)
        return [content]

    def _answer(self, environ: "WSGIEnvironment") -> tuple[str, Any]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method == "POST" and path == "/v2/images":
            return "201 Created", self._create(environ)
        if method == "DELETE":
            return "204 No Content", None
        if path == "/v2/images":
            return "200 OK", {"images": [], "first": "/v2/images", "schema": "/v2/schemas/images"}
        shown = {"id": path.rpartition("/")[2], "owner": self.owner, "visibility": "private"}
        return "200 OK", shown

    def _create(self, environ: "WSGIEnvironment") -> Any:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = json.loads(environ["wsgi.input"].read(length) or b"{}")
        self.created.append(body.get("id", ""))
        return body

    def instance_headers_seen(self) -> list[str]:
        """Return the instance headers that reached the app; there must be none."""
        return [key for environ in self.seen for key in OURS if key in environ]


def app_of(glance: Any) -> "WSGIApplication":
    app: WSGIApplication = glance
    return app
