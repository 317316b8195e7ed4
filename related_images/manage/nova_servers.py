"""Nova as its administrator sees it: whose the instances are, and those that were."""

from functools import lru_cache
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException

from related_images.errors import NovaUnreachable

REMEMBERED: Final = 10_000
"""Instances whose project is not asked for again."""


class Compute:
    """Asks Nova through ``adapter``, in the name of an administrator.

    :raises NovaUnreachable: as each method does, if it does not answer as Nova does
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.project_of = lru_cache(REMEMBERED)(self._project_of)
        self._servers(limit="1")

    def _project_of(self, instance_id: str) -> str | None:
        """Whose the instance is or was; ``None`` if Nova knows none of this id."""
        for deleted in ({}, {"deleted": "true"}):
            for server in self._servers(uuid=instance_id, **deleted):
                # Nova ignores a filter that this caller may not use
                if server["id"] == instance_id:
                    return str(server["tenant_id"])
        return None

    def _servers(self, **query: str) -> Any:
        try:
            # openstacksdk's own request() wants a connection around the adapter
            response = Adapter.request(
                self._adapter,
                "/servers/detail",
                "GET",
                params={"all_tenants": "true", **query},
                raise_exc=False,
            )
            if response.status_code == 200:
                return response.json()["servers"]
            said = f"it answers {response.status_code}"
        except (ClientException, ValueError, KeyError, TypeError) as error:
            said = str(error) or type(error).__name__
        raise NovaUnreachable(
            f"Nova cannot be asked for the servers of all projects: {said}; name an administrator "
            "and Nova's endpoint, or leave --ask-nova out"
        )
