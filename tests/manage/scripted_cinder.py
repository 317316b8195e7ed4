"""A scripted Cinder: many volumes, and responses that a real Cinder does not send on demand."""

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from tests.client.scripted import Asked, Reply, shown
from tests.manage.scripted_nova import REQUEST, vm

NOT_FOUND: Final = shown(
    {"itemNotFound": {"code": 404, "message": "Volume could not be found."}},
    404,
    x_openstack_request_id=REQUEST,
)
LISTS: Final = ("volumes", "snapshots", "backups")


def volume(number: int, **more: Any) -> dict[str, Any]:
    """Return a volume as Cinder shows it to an administrator."""
    return {
        "id": vm(number),
        "os-vol-tenant-attr:tenant_id": "demo",
        "status": "available",
        "created_at": "2026-01-31T12:00:00.000000",
        "snapshot_id": None,
        "source_volid": None,
    } | more


def snapshot(number: int, volume_id: str, **more: Any) -> dict[str, Any]:
    """Return a volume snapshot as Cinder shows it to an administrator."""
    return {
        "id": vm(number),
        "os-extended-snapshot-attributes:project_id": "demo",
        "status": "available",
        "created_at": "2026-01-31T12:00:00.000000",
        "volume_id": volume_id,
    } | more


def backup(number: int, volume_id: str, **more: Any) -> dict[str, Any]:
    """Return a volume backup as Cinder shows it to an administrator."""
    return {
        "id": vm(number),
        "os-backup-project-attr:project_id": "demo",
        "status": "available",
        "created_at": "2026-01-31T12:00:00.000000",
        "volume_id": volume_id,
    } | more


@dataclass
class ScriptedCinder:
    """Responds as Cinder.

    :ivar size: the number of resources in a page
    :ivar unlisted: IDs of resources that are not listed
    :ivar deleted: IDs of resources that are deleted after they have been listed once
    :ivar replies: other responses, by the path
    """

    volumes: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    backups: list[dict[str, Any]] = field(default_factory=list)
    size: int = 1000
    unlisted: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    replies: dict[str, Reply] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Reply:
        if asked.path in self.replies:
            return self.replies[asked.path]
        if asked.path == "/os-services":
            return shown({"services": [{"binary": "cinder-volume", "status": "enabled"}]})
        _, name, wanted = asked.path.split("/")
        assert name in LISTS
        if wanted == "detail":
            return self._page(name, asked)
        for one in getattr(self, name):
            if one["id"] == wanted:
                return shown({name.removesuffix("s"): one})
        return NOT_FOUND

    def _page(self, name: str, asked: Asked) -> Reply:
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        marker = query.pop("marker", "")
        assert query == {"all_tenants": "true", "sort": "id:asc", "limit": "1000"}
        there: list[dict[str, Any]] = getattr(self, name)
        if marker and marker not in {one["id"] for one in there}:
            return NOT_FOUND
        listed = [one for one in there if one["id"] > marker and one["id"] not in self.unlisted]
        page = sorted(listed, key=lambda one: str(one["id"]))[: self.size]
        gone = self.deleted.intersection(one["id"] for one in page)
        self.deleted -= gone
        there[:] = [one for one in there if one["id"] not in gone]
        return shown({name: page})
