"""``openstack image force delete`` and ``server deletion record``: what only operators may say."""

import argparse
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from keystoneauth1.exceptions import ClientException
from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client import RelationsClient, ServiceUnavailable
from related_images.osc import arguments, resolve
from related_images.osc.commands import (
    UNKNOWN,
    OnSeveral,
    Table,
    TableCommand,
    table,
)
from related_images.osc.compute import Compute


@dataclass(frozen=True)
class Deleted:
    """An image that was deleted; from it ``live_servers`` had been started, if that is known."""

    image_id: str
    live_servers: int | None


class ForceDeleteImage(OnSeveral, TableCommand):
    """Delete images although live servers were started from them.

    Needs an administrator's role. Lists each image that was deleted, and how many live servers had
    been started from it. Without force, `openstack image delete` is refused for such an image
    where the deployment guards images in use. An image that is protected stays.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_images(parser)

    def take_action(self, given: argparse.Namespace) -> Table:
        client = self.clients.relations
        client.info()

        def delete(image: str) -> Deleted:
            image_id = resolve.image(client, image)
            live_servers = _live_servers(client, image_id)
            client.delete_image(image_id, force=True)
            return Deleted(image_id, live_servers)

        columns = (
            ("Image ID", lambda row: row.image_id),
            ("Live Servers", lambda row: UNKNOWN if row.live_servers is None else row.live_servers),
        )
        return table(columns, self.each(given.images, delete))


def _live_servers(client: RelationsClient, image_id: str) -> int | None:
    try:
        (usage,) = client.usages([image_id])
    except ServiceUnavailable:  # as where there are more than can be counted in time
        return None
    return usage.live_instances


class RecordServerDeletion(OnSeveral):
    """Record that servers were deleted, where nobody reported it.

    Their images stay. The images that they were started from are no longer in use by them. Needs a
    recording role or an administrator's. A server that the compute service still has is refused.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_installation(parser)
        parser.add_argument(
            "servers",
            metavar="<server>",
            nargs="+",
            type=validation.argument(validation.instance_id),
            help="server(s) (ID, as recorded)",
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="do not ask the compute service whether it still has the server, as for a server "
            "of another compute service than this cloud's",
        )

    def take_action(self, given: argparse.Namespace) -> None:
        client = self.clients.relations
        client.info()
        deleted = DeletedServers(self.app.client_manager)

        def record(server_id: str) -> None:
            server = resolve.recorded(client, given.installation, server_id)
            if not given.force:
                deleted.must_not_have(server_id)
            client.instance_ended(server)

        self.each(given.servers, record)


class DeletedServers:
    """Asks the compute service of the cloud, if it has one, whether it still has a server.

    :param manager: python-openstackclient's ``ClientManager``
    """

    def __init__(self, manager: Any) -> None:
        self._compute = Compute(manager)

    def must_not_have(self, server_id: str) -> None:
        """Refuse a server that is there, or of which nobody says that it is not.

        :raises CommandError: if it is there, or if the compute service does not say
        """
        try:
            status = self._status(f"/servers/{server_id}") if self._shows_every_project else 404
        except (ClientException, CommandError) as error:
            raise _silent(server_id, str(error)) from error
        if status == 200:
            raise CommandError(
                f"the compute service still has the server {server_id}, so nothing was recorded; "
                f"delete it with `openstack server delete {server_id}`, or give --force if the "
                "recorded server belongs to another compute service"
            )
        if status != 404:
            raise _silent(server_id, f"it answered {status}")

    @cached_property
    def _shows_every_project(self) -> bool:
        """Whether there is a compute service; to who sees one project alone it denies the others.

        :raises CommandError: if it does not show this account the servers of every project
        """
        if not self._compute.exists:
            return False
        status = self._status("/servers?all_tenants=True&limit=1")
        if status != 200:
            raise CommandError(f"it answered {status} to a question about all projects")
        return True

    def _status(self, path: str) -> int:
        return int(self._compute.ask(path).status_code)


def _silent(server_id: str, said: str) -> CommandError:
    return CommandError(
        f"the compute service does not say whether it still has the server {server_id}, so nothing "
        f"was recorded: {said}; ask as an administrator of the compute service, try again later, "
        "or give --force if you know that the server was deleted"
    )
