"""Requests to Nova and Cinder, through keystoneauth1 adapters."""

import itertools
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException

from related_images.client.errors import ServiceFailed
from related_images.client.glance import PAGE
from related_images.client.url_credentials import hide_credentials

RETRIES: Final = 3
"""How often a request that only reads is sent again after a 503 or a broken connection."""

SHOWN: Final = 300
"""The number of characters of an error that are shown."""


class Service:
    """Send requests to a service of OpenStack.

    :param name: the name of the service in messages
    :param adapter: a keystoneauth1 ``Adapter`` of the service
    """

    def __init__(self, name: str, adapter: Adapter) -> None:
        self.name = name
        self._adapter = adapter

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request, and return the body of the response; ``None`` if it has none.

        A request that only reads is repeated after a 503 or a broken connection.

        :param options: options of keystoneauth1's ``Adapter.request``, also for repetitions
        :raises ServiceFailed: if it fails, or the response is no JSON
        """
        retries = RETRIES if method == "GET" else 0
        again = {"connect_retries": retries, "status_code_retries": retries}
        try:
            # the request() of openstacksdk's Proxy requires a Connection
            response = Adapter.request(
                self._adapter, path, method, raise_exc=False, **{**again, **options}
            )
            body = response.json() if response.content else None
        except (ClientException, OSError, ValueError) as error:
            raise self._failed(method, path, None, str(error)) from error
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise self._failed(method, path, response.status_code, _message(body))
        return body

    def items(self, path: str, items: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, as :meth:`pages` reads them."""
        return itertools.chain.from_iterable(self.pages(path, items, query))

    def pages(
        self, path: str, items: str, query: Mapping[str, str], **options: Any
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the pages of a list, with one request for each.

        :param items: the name of the list in the responses
        :param query: the filters of the list, and ``limit`` for pages of another size
        :param options: see :meth:`request`
        :raises ServiceFailed: if a request fails, or a response is no such list
        """
        marker: dict[str, str] = {}
        while True:
            params = {"limit": str(PAGE), **query, **marker}
            body = self.request("GET", path, params=params, **options)
            try:
                found = list(body[items])
                yield found
                if not (found and body.get(f"{items}_links")):
                    return
                marker = {"marker": found[-1]["id"]}
            except (TypeError, KeyError, AttributeError) as error:
                raise self._failed("GET", path, None, f"it returned no {items}") from error

    def _failed(self, method: str, path: str, status: int | None, reason: str) -> ServiceFailed:
        result = f"answered {status}" if status else "failed"
        text = hide_credentials(" ".join(reason.split()))[:SHOWN].rstrip(". ")
        return ServiceFailed(f"{method} {path} of {self.name} {result}: {text}", status=status)


def _message(body: Any) -> str:
    """Return the message in an error of Nova or Cinder: that of its only top-level object."""
    try:
        (fault,) = body.values()
        return str(fault["message"])
    except (AttributeError, ValueError, TypeError, KeyError):
        return str(body)
