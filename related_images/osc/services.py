"""The other services of the cloud: Nova and Cinder."""

from typing import Any

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import EndpointNotFound

from related_images.client.backups import VolumeSnapshots


def adapter(manager: Any, service_type: str) -> Adapter | None:
    """Return the adapter of a service; ``None`` if the cloud does not have the service.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param service_type: the type of the service in the catalog
    :raises ClientException: if the identity service fails
    """
    config = manager.sdk_connection.config
    if not config.has_service(service_type):
        return None
    found: Adapter = config.get_session_client(service_type)
    try:
        endpoint = found.get_endpoint()
    except EndpointNotFound:
        return None
    # without a catalog, every service has the same endpoint
    return found if endpoint and endpoint != manager.related_images.endpoint else None


def volume_snapshots(manager: Any) -> VolumeSnapshots | None:
    """Return the client for volume snapshots; ``None`` if the cloud has no Cinder.

    :param manager: the ``ClientManager`` of python-openstackclient
    """
    cinder = adapter(manager, "block-storage")
    return None if cinder is None else VolumeSnapshots(cinder)
