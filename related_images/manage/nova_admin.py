"""A client of Nova for an administrator, which raises if a response is not reliable."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException, ConnectFailure

from related_images import validation
from related_images.client.glance import REQUEST_ID, seconds_to_wait
from related_images.db.reconcile_resources import Page, Presence, Resource
from related_images.errors import BadInput, NovaUnreachable, UntrustedNovaAnswer
from related_images.manage import retries
from related_images.manage.rate_limit import RateLimit

LOG = logging.getLogger(__name__)

PAGE: Final = 1000
"""Servers in one page; Nova's ``max_limit`` may make the pages shorter."""

MICROVERSION: Final = "compute 2.69"
"""From this version on, Nova returns servers of a cell that is down, with the status UNKNOWN."""

RESTARTS: Final = 3
"""How often a listing may begin again because Nova no longer knows the last server of a page."""

_SERVERS: Final = "/servers/detail"
_EVERYWHERE: Final = {"all_tenants": "true"}
_OTHER_IMAGE: Final = ("SHELVED", "SHELVED_OFFLOADED", "REBUILD", "RESIZE")
"""States in which Nova gives a server another image while it acts on the server."""


@dataclass(frozen=True, slots=True)
class _Response:
    """A response of Nova.

    :ivar body: the JSON object; empty if it is none
    """

    request: str
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    def untrusted(self, reason: str) -> UntrustedNovaAnswer:
        return UntrustedNovaAnswer(
            f"{self.request}: {reason}; check the endpoint of Nova and the proxies in front of it"
        )

    def refused(self) -> UntrustedNovaAnswer:
        message = next((str(it.get("message")) for it in self._faults()), "no JSON of Nova")
        return self.untrusted(f"the status is {self.status} ({message})")

    def is_fault(self, name: str) -> bool:
        """Return whether Nova itself sent this fault."""
        return isinstance(self.body.get(name), Mapping) and REQUEST_ID in self.headers

    def _faults(self) -> Iterator[Mapping[str, Any]]:
        return (value for value in self.body.values() if isinstance(value, Mapping))


class _NotNow(NovaUnreachable):
    """Nova refuses requests for ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: int | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


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
    :class:`related_images.db.reconcile_resources.ResourceService`.

    A response with a short ``Retry-After`` is obeyed. A broken connection is retried with
    exponential backoff.

    :param adapter: a keystoneauth adapter of the compute service
    :param rate_limit: limits all requests, retries included
    """

    def __init__(self, adapter: Adapter, rate_limit: RateLimit) -> None:
        # the client's own retries would not respect the rate limit
        adapter.connect_retries = adapter.status_code_retries = 0
        self._adapter = adapter
        self._rate_limit = rate_limit
        self._retrying = retries.retrying(rate_limit, _is_retriable)

    def require_administrator(self) -> None:
        """Raise unless the caller is an administrator, to whom Nova shows every server.

        Nova lets only administrators list deleted servers, whatever its policy says.

        :raises UntrustedNovaAnswer: if the caller is not an administrator
        :raises NovaUnreachable: if Nova does not respond
        """
        query = {**_EVERYWHERE, "status": "deleted", "limit": "1"}
        response = self._get("/servers", **query)
        if response.status in (401, 403):
            raise UntrustedNovaAnswer(
                f"Nova may hide servers from this caller (the status is {response.status}): "
                "nothing was changed; use an account with the admin role"
            )
        _list(response, "servers")

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
            servers = [_server(response, one) for one in _list(response, "servers")]
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
        response = self._get(f"/servers/{instance_id}")
        if response.status == 404 and response.is_fault("itemNotFound"):
            return Presence.GONE
        if response.status != 200:
            raise response.refused()
        server = response.body.get("server")
        if not isinstance(server, Mapping) or server.get("id") != instance_id:
            raise response.untrusted("the body is not the expected JSON")
        # Nova does not list servers that can still be restored
        return Presence.PRESENT if _is_unlisted(server) else Presence.DOUBTFUL

    def is_whole(self) -> bool:
        """Return whether no cell is down: Nova omits the servers of such a cell from lists.

        :raises UntrustedNovaAnswer: if the response is malformed
        :raises NovaUnreachable: if Nova does not respond
        """
        response = self._get("/os-services")
        down = [it for it in _list(response, "services") if it.get("status") == "UNKNOWN"]
        if down:
            host = validation.shown(down[0].get("host"))
            LOG.warning("a cell of Nova is down, with the host %s: its servers are skipped", host)
        return not down

    def _page(self, marker: str) -> _Response:
        query = {**_EVERYWHERE, "sort_key": "uuid", "sort_dir": "asc", "limit": str(PAGE)}
        return self._get(_SERVERS, **query, **({"marker": marker} if marker else {}))

    def _get(self, path: str, **query: str) -> _Response:
        response: _Response = self._retrying(self._get_once, path, query)
        return response

    def _get_once(self, path: str, query: Mapping[str, str]) -> _Response:
        self._rate_limit.wait()
        request = f"GET {path}"
        try:
            # the request() of openstacksdk's Proxy requires a Connection
            response = Adapter.request(
                self._adapter,
                path,
                "GET",
                params=query,
                headers={"OpenStack-API-Version": MICROVERSION},
                raise_exc=False,
            )
        except (ClientException, OSError, ValueError) as error:
            raise NovaUnreachable(
                f"{request} got no answer from Nova: {str(error) or type(error).__name__}; check "
                "the endpoint and the account"
            ) from error
        if response.status_code == 503:
            raise _NotNow(
                f"{request}: Nova answered 503; try again later", seconds_to_wait(response.headers)
            )
        return _Response(request, response.status_code, response.headers, _object(response))


def _is_retriable(error: BaseException) -> bool:
    """Return True if a retry may succeed soon. A timeout is not retried."""
    if isinstance(error, _NotNow):
        return retries.is_soon(error.retry_after)
    return isinstance(error, NovaUnreachable) and isinstance(error.__cause__, ConnectFailure)


def _object(response: Any) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, Mapping) else {}


def _list(response: _Response, name: str) -> list[Mapping[str, Any]]:
    """Return the objects in a list of the body."""
    if response.status != 200:
        raise response.refused()
    found = response.body.get(name)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise response.untrusted("the body is not the expected JSON")
    return found


def _server(response: _Response, server: Mapping[str, Any]) -> Resource:
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
            # empty if the server was started from a volume
            validation.image_id(image["id"]) if image else None,
            is_image_settled=not (is_busy and status in _OTHER_IMAGE),
            created_at=validation.parse_time("created", server["created"]),
            launched_at=None if launched is None else validation.parse_time("launched", launched),
            has_failed=status == "ERROR" and launched is None,
        )
    except (KeyError, TypeError, ValueError, BadInput) as error:
        raise response.untrusted(
            f"the server {validation.shown(server.get('id'))} is not the expected JSON ({error!r})"
        ) from error


def _is_waiting(server: Resource) -> bool:
    """Return whether the server may be listed before the others, which have been scheduled."""
    return server.launched_at is None and not server.has_failed


def _is_unlisted(server: Mapping[str, Any]) -> bool:
    """Return whether it is in order that Nova does not list this server at its place."""
    return server.get("status") in ("BUILD", "SOFT_DELETED")
