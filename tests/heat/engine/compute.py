"""A fake Nova, which has every server, stores metadata and creates snapshots as Nova does.

tests/nova uses a real Nova, which cannot be installed together with Heat.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread, Timer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import requests

from tests.heat.engine import stacks

BROKEN = str(UUID(int=0))
"""A server whose snapshots fail: the image is deleted after its relation is recorded."""
BROKEN_AT_ONCE = str(UUID(int=2))
"""A server whose snapshots fail before the response with the image ID."""
MISSING = str(UUID(int=1))

PATIENCE = 60

FLAVOR = {"id": "1", "name": "small", "ram": 64, "disk": 1, "vcpus": 1}

LIMITS = {"maxServerMeta": 128, "maxPersonality": 5, "maxPersonalitySize": 10240}


class Servers:
    """The servers: each ID exists, unless it was deleted.

    :cvar written: the servers whose metadata were written, in the order of the requests
    :cvar owners: the projects of servers that other projects cannot see
    :cvar images: the images that servers were booted from; others were booted from volumes
    :cvar spellings: IDs in another case, and the IDs that Nova's database finds for them
    """

    metadata: ClassVar[dict[str, dict[str, str]]] = {}
    written: ClassVar[list[str]] = []
    deleted: ClassVar[set[str]] = set()
    owners: ClassVar[dict[str, str]] = {}
    images: ClassVar[dict[str, str]] = {}
    spellings: ClassVar[dict[str, str]] = {}

    @classmethod
    def add(cls, project: str, image: str | None = None) -> str:
        """Add a server of the project, and return its ID."""
        server = str(uuid4())
        cls.owners[server] = project
        if image is not None:
            cls.images[server] = image
        return server

    @classmethod
    def shown(cls, server: str, project: str) -> dict[str, Any]:
        metadata = cls.metadata.setdefault(server, {})
        state: dict[str, Any] = {"status": "ACTIVE", "OS-EXT-STS:task_state": None, "addresses": {}}
        owner, image = cls.owners.get(server, project), cls.images.get(server)
        started = {"tenant_id": owner, "image": {"id": image} if image else ""}
        server = cls.spellings.get(server, server)
        return {"id": server, "name": "web-1", "metadata": metadata, **state, **started}


class Compute(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, server, what = self._parts
        if kind == "limits":
            return self._answer(200, {"limits": {"rate": [], "absolute": LIMITS}})
        if kind == "flavors":
            return self._answer(200, {"flavor": FLAVOR, "flavors": [FLAVOR]})
        _, project, roles = self.headers["X-Auth-Token"].split(":")
        is_hidden = Servers.owners.get(server, project) != project and "admin" not in roles
        if server == MISSING or server in Servers.deleted or is_hidden:
            return self._answer(404, {"itemNotFound": {"message": "no such server", "code": 404}})
        if what == "os-interface":
            return self._answer(200, {"interfaceAttachments": []})
        return self._answer(200, {"server": Servers.shown(server, project)})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, server, what = self._parts
        if not server:
            Servers.metadata[made := str(uuid4())] = dict(body["server"].get("metadata", {}))
            return self._answer(202, {"server": {"id": made}})
        if what == "metadata":
            Servers.written.append(server)
            Servers.metadata.setdefault(server, {}).update(body["metadata"])
            return self._answer(200, body)
        return self._snapshot(server, body["createImage"]["name"])

    def do_DELETE(self) -> None:
        _, server, what = self._parts
        if not what:
            Servers.deleted.add(server)
        else:
            Servers.metadata[server].pop(unquote(what.removeprefix("metadata/")))
        self._answer(204, None)

    def _snapshot(self, server: str, name: str) -> None:
        body = {
            "name": name,
            "disk_format": "raw",
            "container_format": "bare",
            "instance_uuid": server,
            "image_type": "snapshot",
        }
        image_id = self._glance("POST", "", json=body).json()["id"]
        if server == BROKEN_AT_ONCE:
            self._glance("DELETE", f"/{image_id}")
        elif server == BROKEN:
            Thread(target=self._delete_later, args=[image_id]).start()
        else:
            Timer(0.5, self._upload, [image_id]).start()
        self._answer(202, {"image_id": image_id})

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""

    @property
    def _parts(self) -> tuple[str, str, str]:
        """The parts of the path: such as ``servers``, an ID, and a sub-resource."""
        kind, _, rest = urlsplit(self.path).path.removeprefix("/v2.1/").partition("/")
        id, _, what = rest.partition("/")
        return kind, id, what

    def _delete_later(self, image_id: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._glance("GET", f"/{image_id}/relations").json()["relations"]:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        self._glance("DELETE", f"/{image_id}")

    def _upload(self, image_id: str) -> None:
        octets = {"Content-Type": "application/octet-stream"}
        self._glance("PUT", f"/{image_id}/file", octets, data=b"disk")

    def _glance(
        self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        token = {"X-Auth-Token": self.headers["X-Auth-Token"]}
        url = f"{os.environ[stacks.GLANCE]}/v2/images{path}"
        return requests.request(
            method, url, headers=token | (headers or {}), timeout=PATIENCE, **options
        )

    def _answer(self, status: int, body: Any) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def computing() -> Iterator[str]:
    """Serve the fake Nova, and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Compute) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v2.1"
        finally:
            server.shutdown()
            thread.join()
