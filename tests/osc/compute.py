"""A scripted Nova with servers and their metadata.

tests/nova checks with Nova's own fixtures that Nova has the same responses.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from related_images.client.backups.stored_policy import METADATA_KEY
from tests.client.scripted import Asked, Reply, Scripted, shown

LEGACY = {"id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": ""}
VERSION = {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1"}


@dataclass
class Compute:
    """A scripted Nova.

    :ivar page: the number of servers on a page, unless the request has a ``limit``
    :ivar refusal: the status of responses to requests for a list of servers; ``None`` for success
    :ivar failure: the status of responses to requests for one server; ``None`` for success
    :ivar servers: the servers by ID
    :ivar volumes: the names of the volumes of a scripted Cinder with the same URL, by ID
    :ivar make_image: makes the image of ``createImage`` for a server ID and the metadata of the
        request, and returns its ID, or the response
    """

    scripted: Scripted
    page: int = 1
    refusal: int | None = None
    failure: int | None = None
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    make_image: Callable[[str, dict[str, str]], str | Reply] = lambda server_id, metadata: Reply(
        409
    )

    @property
    def url(self) -> str:
        return f"{self.scripted.url}/v2.1"

    def add(
        self,
        server_id: str,
        project_id: str,
        policy: Any = None,
        days: float = 100,
        name: str | None = None,
        status: str = "ACTIVE",
    ) -> None:
        """Add a server created ``days`` ago. ``policy`` is encoded as JSON unless it is text."""
        text = policy if isinstance(policy, str) else json.dumps(policy)
        self.servers[server_id] = {
            "id": server_id,
            "name": name or server_id,
            "tenant_id": project_id,
            "created": f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}",
            "metadata": {} if policy is None else {METADATA_KEY: text},
            "status": status,
            "hostId": "host",
        }

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/":
            return shown({"versions": [self._shown(LEGACY, "v2"), self._shown(VERSION, "v2.1")]})
        rest = asked.path.removeprefix("/v2.1").removeprefix("/v2").strip("/")
        if not rest:
            return shown({"version": self._shown(VERSION, "v2.1")})
        if rest == "volumes":
            named = [{"id": id, "name": name} for id, name in self.volumes.items()]
            return shown({"volumes": named})
        if rest.startswith("snapshots"):
            return shown({"snapshots": []})
        if rest == "servers/detail":
            return shown(self._page(parse_qs(asked.query)))
        if rest == "servers":
            return Reply(self.refusal) if self.refusal else shown(self._page(parse_qs(asked.query)))
        if asked.method == "POST":
            image = json.loads(asked.body)["createImage"]
            made = self.make_image(rest.split("/")[1], image["metadata"])
            return made if isinstance(made, Reply) else shown({"image_id": made}, 202)
        if self.failure is not None:
            return Reply(self.failure)
        found = self.servers.get(rest.removeprefix("servers/"))
        if found is None:
            return shown({"itemNotFound": {"code": 404, "message": "no such server"}}, 404)
        return shown({"server": found})

    def _shown(self, version: dict[str, Any], path: str) -> dict[str, Any]:
        return version | {"links": [{"rel": "self", "href": f"{self.scripted.url}/{path}/"}]}

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        (marker,), (limit,) = query.get("marker", [""]), query.get("limit", [self.page])
        (name,) = query.get("name", [""])
        named = {id: it for id, it in self.servers.items() if re.search(name, it["name"])}
        ids = [id for id in sorted(named) if id > marker]
        here = ids[: int(limit)]
        page: dict[str, Any] = {"servers": [named[id] for id in here]}
        if len(ids) > len(here):
            link = {"rel": "next", "href": f"{self.url}/servers/detail?marker={here[-1]}"}
            page["servers_links"] = [link]
        return page
