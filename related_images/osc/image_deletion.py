"""``openstack image force delete`` and ``openstack server deletion record``, for operators."""

import argparse
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from keystoneauth1.exceptions import ClientException
from osc_lib.exceptions import CommandError

from related_images import model, validation
from related_images.client import RelationsClient, ServiceUnavailable
from related_images.osc import arguments, resolve
from related_images.osc.base_commands import (
    UNKNOWN,
    MultiObjectCommand,
    Table,
    TableCommand,
    table,
)
from related_images.osc.compute import Compute


@dataclass(frozen=True)
class Deleted:
    """An image that was deleted.

    :ivar live_servers: the number of live servers that were started from it; ``None`` if unknown
    """

    image_id: str
    live_servers: int | None


class ForceDeleteImage(MultiObjectCommand, TableCommand):
    """Delete images even if live servers were started from them.

    Requires an administrator's role. Lists each deleted image, and the number of live servers that
    were started from it. If delete protection is on, `openstack image delete` fails for such an
    image. This command does not delete images that have the property protected.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_images(parser, "to delete")

    def take_action(self, args: argparse.Namespace) -> Table:
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
        return table(columns, self.for_each(args.images, delete))


def _live_servers(client: RelationsClient, image_id: str) -> int | None:
    try:
        (usage,) = client.usages([image_id])
    except ServiceUnavailable:  # Glance cannot count this many servers in time
        return None
    return usage.live_instances


class RecordServerDeletion(MultiObjectCommand):
    """Record that servers were deleted, if Nova did not report it.

    The servers then no longer use the images that they were started from. Images made from the
    servers are not deleted. Requires a role that may record relations (by default service), or an
    administrator's role. The command fails for a server that the compute service (Nova) still has.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_installation(
            parser,
            "Installation of the servers (UUID of a Nova deployment); needed only if several "
            "installations have a server with this ID",
        )
        arguments.add_resource_type(
            parser,
            "Type of the resources",
            model.SERVER,
            "Types other than server need --force, because the command can check only servers",
        )
        parser.add_argument(
            "servers",
            metavar="<server>",
            nargs="+",
            type=validation.argument(validation.instance_id),
            help="Server(s), or resources of another type, that were deleted (ID)",
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="Do not check whether the compute service still has the server, for example "
            "because the server is in another cloud",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        client = self.clients.relations
        client.info()
        check = DeletionCheck(self.app.client_manager)
        if args.resource_type != model.SERVER and not args.force:
            raise CommandError(
                f"this command cannot ask whether a {args.resource_type} was deleted; check that, "
                "for example with `openstack volume show`, and give --force"
            )

        def record(id: str) -> None:
            ref = resolve.recorded_resource(client, args.installation, id, args.resource_type)
            if not args.force:
                check.require_deleted(id)
            client.instance_ended(ref)

        self.for_each(args.servers, record)


class DeletionCheck:
    """Check that the compute service of the cloud, if there is one, does not have a server.

    :param manager: the ``ClientManager`` of python-openstackclient
    """

    def __init__(self, manager: Any) -> None:
        self._compute = Compute(manager)

    def require_deleted(self, server_id: str) -> None:
        """Raise unless the compute service responds that it does not have the server.

        :raises CommandError: if it has the server, or its response does not say
        """
        try:
            status = self._status(f"/servers/{server_id}") if self._shows_every_project else 404
        except (ClientException, CommandError) as error:
            raise _unconfirmed(server_id, str(error)) from error
        if status == 200:
            raise CommandError(
                f"the compute service still has the server {server_id}, so nothing was recorded; "
                f"delete it with `openstack server delete {server_id}`, or give --force if the "
                "recorded server belongs to another compute service"
            )
        if status != 404:
            raise _unconfirmed(server_id, f"it answered {status}")

    @cached_property
    def _shows_every_project(self) -> bool:
        """True if there is a compute service, and it shows the servers of every project.

        To an account that sees one project, Nova answers 404 for the servers of other projects.

        :raises CommandError: if it does not show this account the servers of every project
        """
        if not self._compute.exists:
            return False
        status = self._status("/servers?all_tenants=True&limit=1")
        if status != 200:
            raise CommandError(f"it answered {status} to a request for servers of all projects")
        return True

    def _status(self, path: str) -> int:
        return int(self._compute.ask(path).status_code)


def _unconfirmed(server_id: str, reason: str) -> CommandError:
    return CommandError(
        f"the compute service does not say whether it still has the server {server_id}, so nothing "
        f"was recorded: {reason}; use an account that is an administrator of the compute service, "
        "try again later, or give --force if you know that the server was deleted"
    )
