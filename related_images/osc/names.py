"""Look up the names of images and servers with the clients of the command line."""

from collections.abc import Iterable, Mapping
from logging import Logger
from typing import Any, Final

from osc_lib.exceptions import CommandError

from related_images.client import names
from related_images.model import SERVER, VOLUME
from related_images.osc.compute import BlockStorage, Compute

SERVICES: Final[Mapping[str, type[Compute]]] = {SERVER: Compute, VOLUME: BlockStorage}
"""The service that knows the names of the resources of a type."""


class Names(names.Names):
    """Look up the names for the rows of a list, and log a warning if that fails.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param types: the types of resources to look up, some of :data:`SERVICES`
    """

    def __init__(self, manager: Any, log: Logger, types: Iterable[str] = (SERVER,)) -> None:
        own_project = manager.auth_ref.project_id if manager.auth_ref else None
        services = {type: SERVICES[type](manager) for type in types}
        relations = manager.related_images.relations
        super().__init__(relations, own_project, services, CommandError, log.warning)
