"""The servers of Nova, and backups of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from keystoneauth1.adapter import Adapter

from related_images import model, validation
from related_images.client.backups.service import Service

MICROVERSION: Final = "2.45"
"""The first microversion in which the response to ``createImage`` has the ID of the image."""

READY: Final = ("ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED")
"""The statuses of servers of which Nova makes images. It also makes them of locked servers."""

NAME_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class Server:
    """A server as Nova shows it.

    :ivar host: a name of its host; empty if it has none
    :ivar task_state: what Nova does with it now; ``None`` if it does nothing
    """

    id: str
    name: str
    project_id: str
    host: str
    status: str
    task_state: str | None
    created_at: str
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> "Server":
        """Return the server in a response of Nova."""
        return cls(
            shown["id"],
            shown["name"],
            shown["tenant_id"],
            shown.get("OS-EXT-SRV-ATTR:host") or shown.get("hostId") or "",
            shown["status"],
            shown.get("OS-EXT-STS:task_state"),
            shown["created"],
            shown["metadata"],
        )

    @property
    def obstacle(self) -> str:
        """The reason why Nova makes no image of the server now; empty if it makes one."""
        if self.status not in READY:
            return f"Nova makes no image of a server with the status {self.status}"
        return f"Nova is busy with it: {self.task_state}" if self.task_state else ""


class Servers:
    """List servers, and make backups of them.

    :param adapter: a keystoneauth1 ``Adapter`` of Nova

    Every method raises :exc:`ServiceFailed` if a request fails.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._nova = Service("Nova", adapter)

    def list(
        self, project_id: str | None = None, *, all_projects: bool = False
    ) -> Iterator[Server]:
        """Yield servers, with one request for each page of 1,000.

        :param project_id: only servers of this project, which needs the rights for all projects;
            default: the servers of the caller's project
        :param all_projects: the servers of all projects
        """
        query: dict[str, str] = {}
        if project_id is not None or all_projects:
            query["all_tenants"] = "True"
        if project_id is not None:
            query["project_id"] = project_id
        return map(Server.of, self._nova.items("/servers/detail", "servers", query))

    def back_up(self, server: Server, label: str, now: datetime) -> str:
        """Ask Nova for a backup of a server on local disks or on volumes, and return its image ID.

        Nova needs the filter of nova-api, which records the image as a backup.

        :param label: the label of the backup
        :param now: the time in the name of the image
        """
        suffix = f"-{label}-{now:%Y-%m-%dT%H:%M:%SZ}"
        image = {
            "name": server.name[: NAME_LENGTH - len(suffix)] + suffix,
            "metadata": {"relation_kind": model.BACKUP, "relation_label": label},
        }
        body = self._nova.request(
            "POST",
            f"/servers/{server.id}/action",
            json={"createImage": image},
            microversion=MICROVERSION,
        )
        return validation.image_id(body["image_id"])
