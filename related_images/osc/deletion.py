"""``openstack image force delete`` and ``server deletion record``: what only operators may say."""

import argparse
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException
from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client import RelationsClient, ServiceUnavailable
from related_images.osc import arguments, compute, resolve
from related_images.osc.commands import (
    OnSeveral,
    Table,
    TableCommand,
    Unset,
    table,
)

UNKNOWN: Final = Unset("unknown")


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
        nova = Compute(self.app.client_manager)

        def record(server_id: str) -> None:
            server = resolve.instance(client, given.installation, server_id)
            if not given.force:
                nova.must_not_have(server_id)
            client.instance_ended(server)

        self.each(given.servers, record)


class Compute:
    """The compute service of the cloud, if it has one, asked whether it still has a server."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def must_not_have(self, server_id: str) -> None:
        """Refuse a server that is there, or of which nobody says that it is not.

        :raises CommandError: if it is there, or if the compute service does not say
        """
        try:
            adapter = self._adapter
            status = 404 if adapter is None else _status(adapter, f"/servers/{server_id}")
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
    def _adapter(self) -> Adapter | None:
        """Of a compute service that shows this caller the servers of every project.

        To others it denies that there is the server of another project.
        """
        adapter = compute.adapter(self._manager)
        if adapter is not None:
            status = _status(adapter, "/servers?all_tenants=True&limit=1")
            if status != 200:
                raise CommandError(f"it answered {status} to a question about all projects")
        return adapter


def _status(adapter: Adapter, path: str) -> int:
    # openstacksdk's own request() wants a connection around the adapter
    return int(Adapter.request(adapter, path, "GET", raise_exc=False).status_code)


def _silent(server_id: str, said: str) -> CommandError:
    return CommandError(
        f"the compute service does not say whether it still has the server {server_id}, so nothing "
        f"was recorded: {said}; ask as an administrator of the compute service, try again later, "
        "or give --force if you know that the server was deleted"
    )
