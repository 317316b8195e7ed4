"""What python-openstackclient asks of a plugin (entry point ``openstack.cli.extension``)."""

import argparse
from functools import cached_property
from typing import Any, Final

from related_images.client import InstanceAwareImageService, RelationsClient
from related_images.client.backups import Inventory

API_NAME: Final = "related_images"
API_VERSION_OPTION: Final = "os_related_images_api_version"
API_VERSIONS: Final = ("1",)
DEFAULT_API_VERSION: Final = "1"
"""The commands are in the group ``openstack.related_images.v1``."""


class Clients:
    """The clients of one invocation; commands find it as ``client_manager.related_images``.

    :param adapter: keystoneauth1's, of the image service
    """

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    @property
    def endpoint(self) -> str | None:
        """The URL of the image service; of every service where there is no catalogue."""
        endpoint: str | None = self._adapter.get_endpoint()
        return endpoint

    @cached_property
    def relations(self) -> RelationsClient:
        """Asks about every installation."""
        return RelationsClient(self._adapter)

    @cached_property
    def inventory(self) -> Inventory:
        """The backups of every installation."""
        return Inventory(self._adapter)

    def images(self, installation_uuid: str) -> InstanceAwareImageService:
        """Makes, lists and deletes images of the instances of one installation."""
        return InstanceAwareImageService(self._adapter, installation_uuid)


def make_client(manager: Any) -> Clients:
    """Called once a command asks for the clients; nothing is sent yet."""
    return Clients(manager.sdk_connection.config.get_session_client("image"))


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """There is one version, so there is nothing to choose."""
    return parser
