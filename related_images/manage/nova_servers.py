"""Look up servers of all projects in Nova as an administrator, deleted ones included."""

from functools import lru_cache
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException

from related_images.errors import NovaUnreachable

CACHE_SIZE: Final = 10_000
"""The maximum number of servers with a cached project."""


class Compute:
    """A client of Nova.

    :param adapter: a keystoneauth adapter of the compute service, with an administrator's account
    :raises NovaUnreachable: if Nova does not return servers; methods raise it too
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.project_of = lru_cache(CACHE_SIZE)(self._project_of)
        self._servers(limit="1")

    def _project_of(self, instance_id: str) -> str | None:
        """Return the project ID of a server; ``None`` if Nova does not know the server."""
        for deleted in ({}, {"deleted": "true"}):
            for server in self._servers(uuid=instance_id, **deleted):
                # Nova ignores a filter that its policy denies to the caller
                if server["id"] == instance_id:
                    return str(server["tenant_id"])
        return None

    def _servers(self, **query: str) -> Any:
        try:
            # the request() of openstacksdk's Proxy requires a Connection
            response = Adapter.request(
                self._adapter,
                "/servers/detail",
                "GET",
                params={"all_tenants": "true", **query},
                raise_exc=False,
            )
            if response.status_code == 200:
                return response.json()["servers"]
            reason = f"the status is {response.status_code}"
        except (ClientException, ValueError, KeyError, TypeError) as error:
            reason = str(error) or type(error).__name__
        raise NovaUnreachable(
            f"Nova does not list the servers of all projects: {reason}; use an administrator's "
            "account and check Nova's endpoint, or omit --ask-nova"
        )
