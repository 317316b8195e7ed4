"""``openstack image relation``: which image belongs to which server."""

import argparse
from collections.abc import Iterator
from typing import Any, Final

from related_images import model
from related_images.client import Relation
from related_images.client.glance import PAGE
from related_images.osc import arguments, resolve
from related_images.osc.commands import (
    Column,
    NamedLister,
    OnSeveral,
    Table,
    TableCommand,
    shown_time,
    table,
)
from related_images.osc.names import Names

COLUMNS: Final[tuple[Column, ...]] = (
    ("Image ID", lambda it: it.row.image_id),
    ("Image Name", lambda it: it.image_name),
    ("Kind", lambda it: it.row.kind),
    ("Label", lambda it: it.row.label),
    ("Server ID", lambda it: it.row.instance_id),
    ("Server Name", lambda it: it.server_name),
    ("Installation UUID", lambda it: it.row.installation_uuid),
    ("Created At", lambda it: shown_time(it.row.created_at)),
    ("Deleted At", lambda it: shown_time(it.row.image_deleted_at)),
)
MORE: Final[tuple[Column, ...]] = (
    ("Source", lambda it: it.row.source),
    ("Project ID", lambda it: it.row.project_id),
)


class ListRelation(NamedLister):
    """List which images belong to which servers, newest first.

    Deleted At is when the image was deleted; the relation stays.
    """

    columns = COLUMNS
    more = MORE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "image", metavar="<image>", nargs="?", help="relations of this image (name or ID) only"
        )
        arguments.add_installation(parser)
        parser.add_argument(
            "--server",
            metavar="<server>",
            help=f"relations of this server ({arguments.SERVER}) only",
        )
        arguments.add_kind(parser)
        arguments.add_label(parser)
        parser.add_argument("--source", choices=model.SOURCES, help="relations of this source only")
        arguments.add_project(parser, "relations of")
        arguments.add_times(parser)
        parser.add_argument(
            "--in-use",
            action="store_true",
            default=None,
            help="only which images live servers were started from",
        )

    def found(self, given: argparse.Namespace) -> Iterator[Relation]:
        client = self.clients.relations
        filters = self._filters(given)
        if given.image is None:
            return client.relations(**filters, limit=given.limit, page_size=PAGE)
        image_id = resolve.image(client, given.image)
        if filters:
            return client.relations(image_id=image_id, **filters)
        return client.relations_of_image(image_id)

    def _server_id(self, text: str | None) -> str | None:
        return None if text is None else resolve.server_id(self.app.client_manager, text)

    def _filters(self, given: argparse.Namespace) -> dict[str, Any]:
        filters = {
            "installation_uuid": given.installation,
            "instance_id": self._server_id(given.server),
            "kind": given.kind,
            "label": given.label,
            "source": given.source,
            "project_id": resolve.project(self.app.client_manager, given.project),
            "created_after": given.created_after,
            "created_before": given.created_before,
            "in_use": given.in_use,
        }
        return {name: value for name, value in filters.items() if value is not None}


class OnRelations(OnSeveral):
    """A command on the relations of a server with several images."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_server(parser)
        arguments.add_images(parser)
        arguments.add_kind(parser, required=True)


class CreateRelation(OnRelations, TableCommand):
    """Record that images belong to a server; the same again changes nothing.

    Needs a recording role.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        arguments.add_label(parser)
        parser.add_argument(
            "--server-project",
            metavar="<project>",
            help="the project (name or ID) of the server, which sees a boot relation",
        )

    def take_action(self, given: argparse.Namespace) -> Table:
        client = self.clients.relations
        server = resolve.server(self.app.client_manager, given.installation, given.server)
        project_id = resolve.project(self.app.client_manager, given.server_project)

        def create(image: str) -> Relation:
            image_id = resolve.image(client, image)
            return client.attach(server, image_id, given.kind, given.label, project_id)

        made = self.each(given.images, create)
        names = Names(self.app.client_manager, self.log)
        return table(COLUMNS + MORE, names.beside(made))


class DeleteRelation(OnRelations):
    """Remove the relations of images with a server; the images stay.

    Needs a recording role or an administrator's.
    """

    def take_action(self, given: argparse.Namespace) -> None:
        client = self.clients.relations
        server = resolve.server(self.app.client_manager, given.installation, given.server)

        def delete(image: str) -> None:
            client.detach(server, resolve.image(client, image), given.kind)

        self.each(given.images, delete)
