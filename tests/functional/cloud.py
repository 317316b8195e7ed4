"""The real Glance in this process with the filter in its pipeline, and its callers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from oslo_config import cfg

from tests import wsgi
from tests.filters import instance_headers, new_uuid
from tests.servers import Answer

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

ADMIN = wsgi.identity("admin", "admin-project", "admin")
SERVICE_TOKEN = {
    "X-Service-Identity-Status": "Confirmed",
    "X-Service-Roles": "service",
    "X-Service-User-Id": "nova",
}


def user_of(project: str) -> dict[str, str]:
    """Return the identity headers of a member of the project."""
    return wsgi.identity(f"user-of-{project}", project)


def service_for(project: str) -> dict[str, str]:
    """Return the identity headers of the compute service with a token of a user of the project."""
    return user_of(project) | SERVICE_TOKEN


@contextmanager
def glance_option(name: str, value: object) -> Iterator[None]:
    """Set an option of Glance for the duration of the context."""
    cfg.CONF.set_override(name, value)
    try:
        yield
    finally:
        cfg.CONF.clear_override(name)


def a_project() -> str:
    return f"project-{new_uuid()}"


@dataclass(frozen=True)
class Server:
    """A server with its project."""

    installation: str
    id: str
    project: str

    @property
    def headers(self) -> dict[str, str]:
        return instance_headers(self.installation, self.id) | {
            "X-Instance-Project-ID": self.project
        }

    @property
    def query(self) -> dict[str, str]:
        return {"installation_uuid": self.installation, "instance_id": self.id}

    @property
    def service(self) -> dict[str, str]:
        return service_for(self.project)

    @property
    def user(self) -> dict[str, str]:
        return user_of(self.project)


def new_server(
    installation: str | None = None, id: str | None = None, project: str | None = None
) -> Server:
    return Server(installation or new_uuid(), id or new_uuid(), project or a_project())


class Cloud:
    """Requests to the pipeline with the filter, and to the same Glance without it (``bare``)."""

    def __init__(self, app: "WSGIApplication", bare: "WSGIApplication") -> None:
        self.app = app
        self.bare = bare

    def call(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        return wsgi.call(self.app, method, path, headers, body)

    def try_to_create(self, server: Server, **fields: Any) -> Answer:
        return self.call(
            "POST", "/v2/images", server.service | server.headers, {"name": "n"} | fields
        )

    def create(self, server: Server, **fields: Any) -> str:
        """Create an image of the server, as the service does for its project; return its ID."""
        answer = self.try_to_create(server, **fields)
        assert answer.status == 201, answer.body
        assert answer.headers["X-Relation-Recorded"] == "snapshot"
        return str(answer.json["id"])

    def create_for(self, owner: str, server: Server, **fields: Any) -> str:
        """Create an image of the server for another ``owner``, as an administrator's snapshot."""
        fields = {"name": "n", "owner": owner} | fields
        answer = self.call("POST", "/v2/images", ADMIN | SERVICE_TOKEN | server.headers, fields)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def pages(self, path: str, headers: Mapping[str, str], key: str) -> list[list[Any]]:
        """Return every page, by following ``next``."""
        found, next = [], path
        while next:
            answer = self.call("GET", next, headers)
            assert answer.status == 200, answer.body
            found.append(answer.json[key])
            next = answer.json.get("next", "")
            assert len(found) < 100
        return found

    def image_ids(self, headers: Mapping[str, str], **query: Any) -> list[str]:
        """Return the IDs of all pages of an image list."""
        pages = self.pages(f"/v2/images?{urlencode(query, doseq=True)}", headers, "images")
        return [image["id"] for page in pages for image in page]

    def relations(self, **query: str) -> list[dict[str, Any]]:
        """Return the recorded relations, as an administrator sees them."""
        pages = self.pages(f"/v2/relations?{urlencode(query)}", ADMIN, "relations")
        return [relation for page in pages for relation in page]

    def upload(self, image_id: str, headers: Mapping[str, str], data: bytes = b"data") -> None:
        answer = self.call("PUT", f"/v2/images/{image_id}/file", headers, data)
        assert answer.status == 204, answer.body

    def exists(self, image_id: str) -> bool:
        return wsgi.call(self.bare, "GET", f"/v2/images/{image_id}", ADMIN).status == 200

    def total(self, project: str) -> int:
        """Return the number of images of the project, from Glance without the filter."""
        path = f"/v2/images?owner={project}&limit=1000"
        return len(wsgi.call(self.bare, "GET", path, ADMIN).json["images"])
