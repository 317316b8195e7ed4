"""The servers of Nova, and their stored policies."""

from http import HTTPStatus

from related_images.client import ServiceFailed
from related_images.client.backups import Server, ServerPolicies, policies_of_server
from related_images.client.backups.service import Service


def find(nova: Service, server_id: str) -> Server | None:
    """Return a server; ``None`` if Nova does not know it.

    :raises ServiceFailed: if Nova does not answer
    """
    try:
        return Server.of(nova.request("GET", f"/servers/{server_id}")["server"])
    except ServiceFailed as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def policies_of(server: Server | None) -> ServerPolicies | None:
    """Return the stored policy of a server; ``None`` without one."""
    if server is None:
        return None
    return policies_of_server(server.id, server.project_id, server.created_at, server.metadata)
