"""Clients of the compute service (Nova) and the block storage service (Cinder) of the cloud."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException, EndpointNotFound
from osc_lib.exceptions import CommandError

from related_images.osc import services

REFUSED: Final = (401, 403, 404)
"""The statuses of a service that refuses the account, or does not have the object."""


class Compute:
    """The compute service of the cloud. A cloud may have none.

    :param manager: the ``ClientManager`` of python-openstackclient
    """

    service = "compute"
    collection = "servers"

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    @cached_property
    def _adapter(self) -> Adapter | None:
        return services.adapter(self._manager, self.service)

    @property
    def exists(self) -> bool:
        """True if the cloud has the service.

        :raises ClientException: if the identity service fails
        """
        return self._adapter is not None

    def ask(self, path: str, **options: Any) -> Any:
        """Send a GET request.

        :param options: of ``keystoneauth1.session.Session.request``
        :returns: the ``requests.Response``, with any status
        :raises ClientException: if there is no response
        """
        if self._adapter is None:
            raise EndpointNotFound(f"the cloud has no {self.service} service")
        # the request() of openstacksdk's Proxy requires a Connection
        return Adapter.request(self._adapter, path, "GET", raise_exc=False, **options)

    def named(self, name: str) -> Iterator[str]:
        """Yield the IDs of the servers with exactly this name that Nova lists by default.

        :raises CommandError: if the compute service fails
        """
        # Nova takes a regular expression; on MySQL it escapes "|" itself, and ignores the case
        pattern = re.escape(name).replace(r"\|", "|")
        for names in self.pages({"name": f"^{pattern}$"}):
            yield from (id for id, found in names.items() if found == name)

    def pages(self, query: Mapping[str, str], **options: Any) -> Iterator[dict[str, str]]:
        """Yield pages of servers, as names by ID, with one request for each page.

        The page is empty if there is no such service, or it refuses the account.

        :param query: filters of the service, and ``limit``
        :param options: see :meth:`ask`
        :raises CommandError: if the service fails
        """
        next_query: Mapping[str, str] | None = query
        while next_query is not None:
            names, is_last = self._page(next_query, options)
            yield names
            next_query = None if is_last else {**query, "marker": list(names)[-1]}

    def _page(
        self, query: Mapping[str, str], options: Mapping[str, Any]
    ) -> tuple[dict[str, str], bool]:
        """Return the names on one page, and True if it is the last page."""
        try:
            if not self.exists:
                return {}, True
            response = self.ask(f"/{self.collection}", params=query, **options)
            if response.status_code in REFUSED:
                return {}, True
            if response.status_code != 200:
                raise CommandError(f"the {self.service} service answered {response.status_code}")
            body = response.json()
            names = {one["id"]: one["name"] for one in body[self.collection]}
            return names, not (names and body.get(f"{self.collection}_links"))
        except (ClientException, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CommandError(
                f"the {self.service} service did not return a list of {self.collection}: {error}"
            ) from error


class BlockStorage(Compute):
    """The block storage service of the cloud. A cloud may have none."""

    service = "block-storage"
    collection = "volumes"
