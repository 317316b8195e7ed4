"""Asks the compute service of the cloud about its servers."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException, EndpointNotFound
from osc_lib.exceptions import CommandError

REFUSED: Final = (401, 403, 404)
"""The statuses with which a service refuses an account, or does not know what is asked for."""


class Compute:
    """The compute service of the cloud, which need not have one.

    :param manager: python-openstackclient's ``ClientManager``
    """

    def __init__(self, manager: Any) -> None:
        self._config = manager.sdk_connection.config
        self._image_endpoint: str | None = manager.related_images.endpoint

    @cached_property
    def _adapter(self) -> Adapter:
        found: Adapter = self._config.get_session_client("compute")
        return found

    @cached_property
    def exists(self) -> bool:
        """Whether the cloud has a compute service.

        :raises ClientException: if that cannot be found out
        """
        if not self._config.has_service("compute"):
            return False
        try:
            endpoint = self._adapter.get_endpoint()
        except EndpointNotFound:
            return False
        # without a catalogue one endpoint is given for every service
        return bool(endpoint) and endpoint != self._image_endpoint

    def ask(self, path: str, **options: Any) -> Any:
        """Send a GET request.

        :param options: those of keystoneauth1's ``Session.request``
        :returns: the ``requests.Response``, whatever its status
        :raises ClientException: if no answer comes
        """
        # openstacksdk's own request() wants a connection around the adapter
        return Adapter.request(self._adapter, path, "GET", raise_exc=False, **options)

    def named(self, name: str) -> Iterator[str]:
        """The IDs of the servers with exactly this name, among those that Nova shows by default.

        :raises CommandError: if the compute service fails
        """
        # Nova takes a regular expression; on MySQL it escapes "|" itself, and the case is ignored
        pattern = re.escape(name).replace(r"\|", "|")
        for names in self.pages({"name": f"^{pattern}$"}):
            yield from (id for id, found in names.items() if found == name)

    def pages(self, query: Mapping[str, str], **options: Any) -> Iterator[dict[str, str]]:
        """Names of servers by their IDs, a page for each request; none where there is no Nova.

        There is none either where Nova does not let the account ask.

        :param query: Nova's filters, and ``limit``
        :param options: as for :meth:`ask`
        :raises CommandError: if the compute service fails
        """
        following: Mapping[str, str] | None = query
        while following is not None:
            names, is_last = self._page(following, options)
            yield names
            following = None if is_last else {**query, "marker": list(names)[-1]}

    def _page(
        self, query: Mapping[str, str], options: Mapping[str, Any]
    ) -> tuple[dict[str, str], bool]:
        """The names on one page, and whether it is the last one."""
        try:
            if not self.exists:
                return {}, True
            response = self.ask("/servers", params=query, **options)
            if response.status_code in REFUSED:
                return {}, True
            if response.status_code != 200:
                raise CommandError(f"the compute service answered {response.status_code}")
            body = response.json()
            names = {server["id"]: server["name"] for server in body["servers"]}
            return names, not (names and body.get("servers_links"))
        except (ClientException, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CommandError(f"the compute service gave no list of servers: {error}") from error
