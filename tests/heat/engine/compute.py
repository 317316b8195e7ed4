"""What answers as Nova: it has every server, keeps metadata, and takes snapshots as Nova does.

Nova proper is tried with its own fixtures elsewhere; it does not go into one environment with Heat.
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
"""A server whose snapshots fail: Nova takes the image away again when its relation is known."""
BROKEN_AT_ONCE = str(UUID(int=2))
"""Likewise, before anybody knows that there is an image."""
MISSING = str(UUID(int=1))

PATIENCE = 60

FLAVOR = {"id": "1", "name": "small", "ram": 64, "disk": 1, "vcpus": 1}

LIMITS = {"maxServerMeta": 128, "maxPersonality": 5, "maxPersonalitySize": 10240}


class Servers:
    """What is known of servers: every id is one, unless it was deleted.

    :cvar owners: the projects of those that are shown to nobody else
    :cvar images: what they were started from; others were started from volumes
    :cvar spellings: of ids that Nova's database takes for the same, and the ids
    """

    metadata: ClassVar[dict[str, dict[str, str]]] = {}
    deleted: ClassVar[set[str]] = set()
    owners: ClassVar[dict[str, str]] = {}
    images: ClassVar[dict[str, str]] = {}
    spellings: ClassVar[dict[str, str]] = {}

    @classmethod
    def of(cls, project: str, image: str | None = None) -> str:
        """A server of the project."""
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
        kind, server, what = self._place
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
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, server, what = self._place
        if not server:
            Servers.metadata[made := str(uuid4())] = dict(asked["server"].get("metadata", {}))
            return self._answer(202, {"server": {"id": made}})
        if what == "metadata":
            Servers.metadata.setdefault(server, {}).update(asked["metadata"])
            return self._answer(200, asked)
        return self._snapshot(server, asked["createImage"]["name"])

    def do_DELETE(self) -> None:
        _, server, what = self._place
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
            Thread(target=self._take_away, args=[image_id]).start()
        else:
            Timer(0.5, self._upload, [image_id]).start()
        self._answer(202, {"image_id": image_id})

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""

    @property
    def _place(self) -> tuple[str, str, str]:
        """What is asked for: such as ``servers``, an id, and what of it."""
        kind, _, rest = urlsplit(self.path).path.removeprefix("/v2.1/").partition("/")
        id, _, what = rest.partition("/")
        return kind, id, what

    def _take_away(self, image_id: str) -> None:
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
    """The URL under which it answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Compute) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v2.1"
        finally:
            server.shutdown()
            thread.join()
