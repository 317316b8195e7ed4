"""A client of Nova for an administrator, which raises if a response is not reliable."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keystoneauth1.adapter import Adapter

from related_images import validation
from related_images.db.resource_service import Page, Presence, Resource
from related_images.errors import RelatedImagesError
from related_images.manage.rate_limit import RateLimit
from related_images.manage.service_admin import (
    ALL_PROJECTS,
    MALFORMED,
    NOVA,
    PAGE,
    Response,
    ServiceAdmin,
)
from related_images.model import SERVER

LOG = logging.getLogger(__name__)

RESTARTS: Final = 3
"""How often a listing may begin again because Nova no longer knows the last server of a page."""

_SERVERS: Final = "/servers/detail"
_OTHER_IMAGE: Final = ("SHELVED", "SHELVED_OFFLOADED", "REBUILD", "RESIZE")
"""States in which Nova gives a server another image while it acts on the server."""


@dataclass
class _Order:
    """Check the order of the listed servers.

    Nova lists the servers that wait for the scheduler first, and then all others. Each of the two
    parts has the order of the IDs.

    :ivar last: the ID of the last server
    :ivar is_waiting_part: whether all servers so far may belong to the first part
    """

    last: str
    is_waiting_part: bool

    def accepts(self, instance_id: str, *, is_waiting: bool) -> bool:
        """Return whether this server may follow."""
        if instance_id <= self.last:
            if not self.is_waiting_part:
                return False
            self.is_waiting_part = False
        self.is_waiting_part &= is_waiting
        self.last = instance_id
        return True


class NovaAdmin:
    """The servers of all projects; implements
    :class:`related_images.db.resource_service.ResourceService`.

    :param adapter: a keystoneauth adapter of the compute service
    :param rate_limit: limits all requests, retries included
    """

    service_name = NOVA.name
    resource_type = SERVER

    def __init__(self, adapter: Adapter, rate_limit: RateLimit) -> None:
        self._nova = ServiceAdmin(NOVA, adapter, rate_limit)

    def require_administrator(self) -> None:
        """Raise unless the caller is an administrator, to whom Nova shows every server.

        Nova lets only administrators list deleted servers, whatever its policy says.

        :raises UntrustedNovaAnswer: if the caller is not an administrator
        :raises NovaUnreachable: if Nova does not respond
        """
        query = {**ALL_PROJECTS, "status": "deleted", "limit": "1"}
        self._nova.require_administrator("/servers", "servers", **query)

    def untrusted(self, message: str) -> RelatedImagesError:
        """Return the error for a response of Nova that is not reliable."""
        return NOVA.untrusted(message)

    def pages(self, after: str) -> Iterator[Page]:
        """Yield the servers after this ID, page by page.

        :param after: the ID of a server that was listed; empty for all servers
        :raises UntrustedNovaAnswer: if a response is malformed, or the order is wrong
        :raises NovaUnreachable: if Nova does not respond
        """
        marker, reached, order = after, after, _Order(after, is_waiting_part=not after)
        restarts = 0
        while True:
            response = self._page(marker)
            if marker and response.is_fault("badRequest"):
                restarts += 1
                if restarts > RESTARTS:
                    raise response.refused()
                LOG.info("Nova does not know the server %s any more: listing again", marker)
                marker, order = "", _Order("", is_waiting_part=True)
                continue
            servers = [_server(response, one) for one in response.objects("servers")]
            if not servers:
                yield Page({}, None)
                return
            for one in servers:
                if not order.accepts(one.instance_id, is_waiting=_is_waiting(one)):
                    raise response.untrusted(
                        f"the server {one.instance_id} is not in the order of the IDs"
                    )
            marker = order.last
            if order.is_waiting_part:
                yield Page({one.instance_id: one for one in servers}, reached)
            elif marker > reached:
                reached = marker
                yield Page({one.instance_id: one for one in servers}, reached)

    def look_up(self, instance_id: str) -> Presence:
        """Return whether a server exists that Nova did not list.

        :param instance_id: the ID as it was recorded
        :raises UntrustedNovaAnswer: if the response does not say it
        :raises NovaUnreachable: if Nova does not respond
        """
        if not validation.is_image_id(instance_id):  # a UUID in lower case
            return Presence.FOREIGN
        server = self._shown(instance_id)
        if server is None:
            return Presence.GONE
        # Nova does not list servers that can still be restored
        return Presence.PRESENT if _is_unlisted(server) else Presence.DOUBTFUL

    def project_of(self, instance_id: str) -> str | None:
        """Return the project that owns a server; ``None`` if the server does not exist.

        :raises UntrustedNovaAnswer: if the response does not say it
        :raises NovaUnreachable: if Nova does not respond
        """
        server = self._shown(instance_id)
        return None if server is None else str(server.get("tenant_id"))

    def is_whole(self) -> bool:
        """Return whether no cell is down: Nova omits the servers of such a cell from lists.

        :raises UntrustedNovaAnswer: if the response is malformed
        :raises NovaUnreachable: if Nova does not respond
        """
        response = self._nova.get("/os-services")
        down = [it for it in response.objects("services") if it.get("status") == "UNKNOWN"]
        if down:
            host = validation.shown(down[0].get("host"))
            LOG.warning("a cell of Nova is down, with the host %s: its servers are skipped", host)
        return not down

    def _shown(self, instance_id: str) -> Mapping[str, Any] | None:
        """Return a server; ``None`` if Nova says that it does not exist."""
        return self._nova.get(f"/servers/{instance_id}").shown("server", instance_id)

    def _page(self, marker: str) -> Response:
        query = {**ALL_PROJECTS, "sort_key": "uuid", "sort_dir": "asc", "limit": str(PAGE)}
        return self._nova.get(_SERVERS, **query, **({"marker": marker} if marker else {}))


def _server(response: Response, server: Mapping[str, Any]) -> Resource:
    try:
        instance_id, project_id = server["id"], server["tenant_id"]
        if not validation.is_image_id(instance_id) or not validation.is_text(project_id):
            raise ValueError("an ID is malformed")
        status, image = str(server["status"]), server["image"]
        launched = server["OS-SRV-USG:launched_at"]
        is_busy = server["OS-EXT-STS:task_state"] is not None
        return Resource(
            instance_id,
            project_id,
            validation.parse_time("created", server["created"]),
            None if launched is None else validation.parse_time("launched", launched),
            # empty if the server was started from a volume
            image_id=validation.image_id(image["id"]) if image else None,
            is_image_settled=not (is_busy and status in _OTHER_IMAGE),
            has_failed=status == "ERROR" and launched is None,
        )
    except MALFORMED as error:
        raise response.malformed("server", server, error) from error


def _is_waiting(server: Resource) -> bool:
    """Return whether the server may be listed before the others, which have been scheduled."""
    return server.launched_at is None and not server.has_failed


def _is_unlisted(server: Mapping[str, Any]) -> bool:
    """Return whether it is in order that Nova does not list this server at its place."""
    return server.get("status") in ("BUILD", "SOFT_DELETED")
