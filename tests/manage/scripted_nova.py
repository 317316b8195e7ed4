"""A scripted Nova: responses that a real Nova does not send on demand."""

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import UUID

from tests.client.scripted import Asked, Reply, shown

REQUEST: Final = "req-1"
FORBIDDEN: Final = shown({"forbidden": {"code": 403, "message": "Policy doesn't allow it."}}, 403)
NOT_FOUND: Final = shown(
    {"itemNotFound": {"code": 404, "message": "Instance could not be found."}},
    404,
    x_openstack_request_id=REQUEST,
)
NO_MARKER: Final = shown(
    {"badRequest": {"code": 400, "message": "marker not found"}},
    400,
    x_openstack_request_id=REQUEST,
)


def vm(number: int) -> str:
    """Return the ID of a server; a higher number is later in the order of the IDs."""
    return str(UUID(int=number << 96))


def vms(*numbers: int) -> list[str]:
    """Return the IDs of servers."""
    return [vm(number) for number in numbers]


def server(number: int, image: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a server as Nova shows it."""
    return {
        "id": vm(number),
        "tenant_id": "demo",
        "image": {"id": image, "links": []} if image else "",
        "status": "ACTIVE",
        "created": "2026-01-31T12:00:00Z",
        "OS-SRV-USG:launched_at": "2026-01-31T12:01:00.000000",
        "OS-EXT-STS:task_state": None,
    } | more


WAITING: Final = {"status": "BUILD", "OS-SRV-USG:launched_at": None}
FAILED: Final = {"status": "ERROR", "OS-SRV-USG:launched_at": None}


@dataclass
class ScriptedNova:
    """Responds as Nova.

    :ivar waiting: servers that are listed before all others
    :ivar unlisted: servers that Nova has, but does not list
    :ivar replies: other responses, by the path; that of deleted servers is ``/servers``
    """

    servers: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    unlisted: list[dict[str, Any]] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    size: int = 1000
    lost_markers: set[str] = field(default_factory=set)

    def __call__(self, asked: Asked) -> Reply:
        if asked.path in self.replies:
            return self.replies[asked.path]
        if asked.path == "/servers":
            return shown({"servers": []})
        if asked.path == "/os-services":
            return shown({"services": [{"binary": "nova-compute", "status": "enabled"}]})
        if asked.path == "/servers/detail":
            return self._page(asked)
        wanted = asked.path.removeprefix("/servers/")
        for one in (*self.servers, *self.waiting, *self.unlisted):
            if one["id"] == wanted:
                return shown({"server": one})
        return NOT_FOUND

    def _page(self, asked: Asked) -> Reply:
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        wanted = {"all_tenants": "true", "sort_key": "uuid", "sort_dir": "asc", "limit": "1000"}
        assert query.items() >= wanted.items()
        marker, waiting = query.get("marker"), sorted(self.waiting, key=lambda one: str(one["id"]))
        if marker in self.lost_markers:
            self.lost_markers.remove(str(marker))
            return NO_MARKER
        names = [one["id"] for one in waiting]
        if marker in names:
            waiting, marker = waiting[names.index(marker) + 1 :], None
        elif marker:
            waiting = []
        following = sorted(
            (one for one in self.servers if marker is None or one["id"] > marker),
            key=lambda one: str(one["id"]),
        )
        return shown({"servers": [*waiting, *following][: self.size]})
