"""Requests of an administrator to Nova or Cinder, whose responses are checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException, ConnectFailure

from related_images import validation
from related_images.client.glance import REQUEST_ID, seconds_to_wait
from related_images.errors import (
    BadInput,
    CinderUnreachable,
    NovaUnreachable,
    RelatedImagesError,
    UntrustedCinderAnswer,
    UntrustedNovaAnswer,
)
from related_images.manage import retries
from related_images.manage.rate_limit import RateLimit

PAGE: Final = 1000
"""Resources in one page; the service's own limit may make the pages shorter."""

ALL_PROJECTS: Final = {"all_tenants": "true"}


@dataclass(frozen=True, slots=True)
class Service:
    """A service.

    :ivar microversion: the value of the header ``OpenStack-API-Version``
    :ivar unreachable: the error if it does not respond
    :ivar untrusted: the error if a response is not reliable
    """

    name: str
    microversion: str
    unreachable: type[RelatedImagesError]
    untrusted: type[RelatedImagesError]


NOVA: Final = Service("Nova", "compute 2.69", NovaUnreachable, UntrustedNovaAnswer)
"""Since 2.69, Nova returns servers of a cell that is down, with the status UNKNOWN."""

CINDER: Final = Service("Cinder", "volume 3.18", CinderUnreachable, UntrustedCinderAnswer)
"""Since 3.18, Cinder returns the projects of volume backups."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response of a service.

    :ivar body: the JSON object; empty if the service sent something else
    """

    service: Service
    request: str
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    def untrusted(self, reason: str) -> RelatedImagesError:
        """Return the error for a response that is not reliable."""
        return self.service.untrusted(
            f"{self.request}: {reason}; check the endpoint of {self.service.name} and the proxies "
            "in front of it"
        )

    def refused(self) -> RelatedImagesError:
        """Return the error for a response with an unexpected status."""
        faults = (str(one.get("message")) for one in self._faults())
        message = next(faults, f"no JSON of {self.service.name}")
        return self.untrusted(f"the status is {self.status} ({message})")

    def is_fault(self, name: str) -> bool:
        """Return whether the service itself sent this fault."""
        return isinstance(self.body.get(name), Mapping) and REQUEST_ID in self.headers

    def is_not_found(self) -> bool:
        """Return whether the service itself says that a resource does not exist."""
        return self.status == 404 and self.is_fault("itemNotFound")

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """Return the objects in a list of the body."""
        if self.status != 200:
            raise self.refused()
        found = self.body.get(name)
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise self.untrusted("the body is not the expected JSON")
        return found

    def shown(self, name: str, resource_id: str) -> Mapping[str, Any] | None:
        """Return the object in the body, which must be the resource with this ID.

        :returns: ``None`` if the service itself says that the resource does not exist
        """
        if self.is_not_found():
            return None
        if self.status != 200:
            raise self.refused()
        found = self.body.get(name)
        if not isinstance(found, Mapping) or found.get("id") != resource_id:
            raise self.untrusted("the body is not the expected JSON")
        return found

    def malformed(self, what: str, resource: Mapping[str, Any], error: Exception) -> Exception:
        """Return the error for a listed resource that is not as documented."""
        shown = validation.shown(resource.get("id"))
        return self.untrusted(f"the {what} {shown} is not the expected JSON ({error!r})")

    def _faults(self) -> Iterator[Mapping[str, Any]]:
        return (value for value in self.body.values() if isinstance(value, Mapping))


MALFORMED: Final = (KeyError, TypeError, ValueError, BadInput)
"""What reading a resource in another format raises."""


class _NotNow(Exception):
    """The service refuses requests for ``retry_after`` seconds."""

    def __init__(self, retry_after: int | None) -> None:
        super().__init__("the service answered 503")
        self.retry_after = retry_after


class ServiceAdmin:
    """A client of a service.

    A response with a short ``Retry-After`` is obeyed. A broken connection is retried with
    exponential backoff.

    :param adapter: a keystoneauth adapter of the service
    :param rate_limit: limits all requests, retries included
    """

    def __init__(self, service: Service, adapter: Adapter, rate_limit: RateLimit) -> None:
        # the client's own retries would not respect the rate limit
        adapter.connect_retries = adapter.status_code_retries = 0
        self.service = service
        self._adapter = adapter
        self._rate_limit = rate_limit
        self._retrying = retries.retrying(rate_limit, _is_retriable)

    def get(self, path: str, **query: str) -> Response:
        """Send a GET request.

        :raises RelatedImagesError: :attr:`Service.unreachable`
        """
        request, service = f"GET {path}", self.service
        try:
            response = self._retrying(self._get_once, path, query)
        except _NotNow as error:
            raise service.unreachable(
                f"{request}: {service.name} answered 503; try again later"
            ) from error
        except (ClientException, OSError, ValueError) as error:
            raise service.unreachable(
                f"{request} got no answer from {service.name}: "
                f"{str(error) or type(error).__name__}; check the endpoint and the account"
            ) from error
        return Response(service, request, response.status_code, response.headers, _object(response))

    def require_administrator(self, path: str, name: str, **query: str) -> None:
        """Raise unless the caller may send a request that the service allows only administrators.

        :param name: the list in the response
        """
        response = self.get(path, **query)
        if response.status in (401, 403):
            raise self.service.untrusted(
                f"{self.service.name} may hide resources from this caller (the status is "
                f"{response.status}): nothing was changed; use an account with the admin role"
            )
        response.objects(name)

    def _get_once(self, path: str, query: Mapping[str, str]) -> Any:
        self._rate_limit.wait()
        # the request() of openstacksdk's Proxy requires a Connection
        response = Adapter.request(
            self._adapter,
            path,
            "GET",
            params=query,
            headers={"OpenStack-API-Version": self.service.microversion},
            raise_exc=False,
        )
        if response.status_code == 503:
            raise _NotNow(seconds_to_wait(response.headers))
        return response


def _is_retriable(error: BaseException) -> bool:
    """Return True if a retry may succeed soon. A timeout is not retried."""
    if isinstance(error, _NotNow):
        return retries.is_soon(error.retry_after)
    return isinstance(error, ConnectFailure)


def _object(response: Any) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, Mapping) else {}
