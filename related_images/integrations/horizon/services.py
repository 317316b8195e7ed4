"""The services of the cloud, with the token of the user who is logged in."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from horizon.exceptions import ServiceCatalogException
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from openstack_dashboard.api import base

from related_images.client import RelationsClient, ServiceFailed
from related_images.client.backups import Inventory
from related_images.client.backups.service import Service

IMAGE = "image"
COMPUTE = "compute"
BLOCK_STORAGE = "block-storage"
ALIASES = {BLOCK_STORAGE: ("block-storage", "volumev3")}
"""The types of a service in catalogs, the current one first."""
SECONDS = 60
"""The longest time without a byte of a response."""
NAMES = {COMPUTE: "Nova", BLOCK_STORAGE: "Cinder"}


def adapter(request: Any, service_type: str) -> Adapter:
    """Return the adapter of a service in the region that the user chose.

    :raises ServiceCatalogException: if the cloud does not have the service
    """
    aliases = ALIASES.get(service_type, (service_type,))
    known = [alias for alias in aliases if base.is_service_enabled(request, alias)]
    endpoint = base.url_for(request, known[0] if known else service_type)
    verify = not settings.OPENSTACK_SSL_NO_VERIFY and (settings.OPENSTACK_SSL_CACERT or True)
    auth = Token(endpoint, request.user.token.id)
    session = Session(auth=auth, verify=verify, timeout=SECONDS)
    return Adapter(session, service_type=service_type)


def relations(request: Any) -> RelationsClient:
    """Return the client of Glance with the filter.

    :raises ServiceCatalogException: if the cloud has no Glance
    """
    return RelationsClient(adapter(request, IMAGE))


def inventory(request: Any) -> Inventory:
    """Return what lists backups.

    :raises ServiceCatalogException: if the cloud has no Glance
    """
    return Inventory(relations(request))


def service(request: Any, service_type: str) -> Service:
    """Return what sends requests to Nova or Cinder.

    :raises ServiceFailed: if the cloud does not have the service
    """
    name = NAMES[service_type]
    try:
        return Service(name, adapter(request, service_type))
    except ServiceCatalogException as error:
        raise ServiceFailed(f"this cloud has no {name}") from error


class Listing:
    """The names of the servers or volumes that a service lists.

    :param collection: the name of the list in the responses
    """

    def __init__(self, request: Any, service_type: str, collection: str) -> None:
        self._request = request
        self._service_type = service_type
        self._collection = collection

    def pages(self, query: Mapping[str, str], **options: Any) -> Iterator[dict[str, str]]:
        """Yield pages of names by ID.

        :raises ServiceFailed: if a request fails
        """
        listing, name = service(self._request, self._service_type), self._collection
        for page in listing.pages(f"/{name}", name, query, **options):
            yield {one["id"]: one["name"] for one in page}
