"""Finds the compute service of the cloud."""

from typing import Any

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import EndpointNotFound


def adapter(manager: Any) -> Adapter | None:
    """The adapter of the compute service, or ``None`` where the cloud has none.

    :raises ClientException: if the cloud does not answer
    """
    config = manager.sdk_connection.config
    if not config.has_service("compute"):
        return None
    found: Adapter = config.get_session_client("compute")
    try:
        endpoint = found.get_endpoint()
    except EndpointNotFound:
        return None
    # without a catalogue one endpoint is given for all services
    return None if endpoint in (None, manager.related_images.endpoint) else found
