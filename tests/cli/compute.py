"""What answers as Nova where servers and their metadata are asked for.

That Nova proper answers so is tried with its own fixtures elsewhere.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from related_images.client.policies import METADATA_KEY
from tests.client.scripted import Asked, Reply, Scripted, shown

VERSION = {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1"}


@dataclass
class Compute:
    """Servers by their ids; answers pages of one server."""

    scripted: Scripted
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.scripted.url}/v2.1"

    def add(self, server_id: str, project_id: str, policy: Any = None, days: float = 100) -> None:
        """A server that is so many days old; the policy is JSON, or text as it is."""
        text = policy if isinstance(policy, str) else json.dumps(policy)
        self.servers[server_id] = {
            "id": server_id,
            "name": server_id,
            "tenant_id": project_id,
            "created": f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}",
            "metadata": {} if policy is None else {METADATA_KEY: text},
        }

    def answer(self, asked: Asked) -> Reply:
        rest = asked.path.removeprefix("/v2.1").strip("/")
        if not rest:
            links = [{"rel": "self", "href": f"{self.url}/"}]
            return shown({"version": VERSION | {"links": links}})
        if rest == "servers/detail":
            return shown(self._page(parse_qs(asked.query)))
        found = self.servers.get(rest.removeprefix("servers/"))
        if found is None:
            return shown({"itemNotFound": {"code": 404, "message": "no such server"}}, 404)
        return shown({"server": found})

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        (marker,) = query.pop("marker", [""])
        ids = [id for id in sorted(self.servers) if id > marker]
        page: dict[str, Any] = {"servers": [self.servers[id] for id in ids[:1]]}
        if len(ids) > 1:
            link = {"rel": "next", "href": f"{self.url}/servers/detail?marker={ids[0]}"}
            page["servers_links"] = [link]
        return page
