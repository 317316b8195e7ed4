"""The plugin interface of python-openstackclient (entry point ``openstack.cli.extension``)."""

import argparse
from functools import cached_property
from typing import Any, Final

from related_images.client import InstanceAwareImageService, RelationsClient
from related_images.client.backups import Inventory

API_NAME: Final = "related_images"
API_VERSION_OPTION: Final = "os_related_images_api_version"
API_VERSIONS: Final = ("1",)
DEFAULT_API_VERSION: Final = "1"
"""The commands are in the entry point group ``openstack.related_images.v1``."""


class Clients:
    """The clients of one command, in ``client_manager.related_images``.

    :param adapter: a keystoneauth1 ``Adapter`` of Glance
    """

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    @property
    def endpoint(self) -> str | None:
        """The URL of Glance. Without a catalog, it is the URL of every service."""
        endpoint: str | None = self._adapter.get_endpoint()
        return endpoint

    @cached_property
    def relations(self) -> RelationsClient:
        """The client for relations of all installations."""
        return RelationsClient(self._adapter)

    @cached_property
    def inventory(self) -> Inventory:
        """The client for backups of all installations."""
        return Inventory(self.relations)

    def images(self, installation_uuid: str) -> InstanceAwareImageService:
        """Return the client for images of servers of one installation."""
        return InstanceAwareImageService(self.relations, installation_uuid)


def make_client(manager: Any) -> Clients:
    """Return the clients; python-openstackclient calls this when a command needs them."""
    return Clients(manager.sdk_connection.config.get_session_client("image"))


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add no option: there is only one version."""
    return parser
