"""``openstack server image list``: list the images made from a server."""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from related_images import model
from related_images.client import Image, Relation
from related_images.client.glance import PAGE
from related_images.client.image_relations import ImageRelations
from related_images.osc import arguments, resolve
from related_images.osc.base_commands import Column, ListCommand


@dataclass(frozen=True)
class Row:
    """An image, and its relations with the server.

    :ivar size: the size of the image and its volume snapshots in bytes
    """

    image: Image
    relations: list[Relation]
    size: int | None = None


KIND: Final[Column] = ("Kind", lambda row: _joined(relation.kind for relation in row.relations))
SERVER_ID: Final[Column] = (
    "Server ID",
    lambda row: _joined(relation.instance_id for relation in row.relations),
)
LABEL: Final[Column] = ("Label", lambda row: _joined(relation.label for relation in row.relations))


def of_image(heading: str, name: str) -> Column:
    """Return a column with a property of the image."""
    return heading, lambda row: row.image.get(name)


def _joined(texts: Iterator[str | None]) -> str | None:
    return ", ".join(sorted({text for text in texts if text})) or None


LONG_COLUMNS: Final[tuple[Column, ...]] = (
    of_image("Size", "size"),
    of_image("Disk Format", "disk_format"),
    of_image("Visibility", "visibility"),
    of_image("Protected", "protected"),
    of_image("Project ID", "owner"),
)


class ServerImageLister(ListCommand):
    """List images of a server."""

    long_columns = LONG_COLUMNS
    objects = "images"
    """The word for the images in the help."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_server_or_all(parser, self.objects)
        arguments.add_label(parser, f"List only {self.objects} with this label, such as daily")
        arguments.add_project(parser, self.objects)
        arguments.add_sort(parser)

    def shown_columns(self, args: argparse.Namespace) -> tuple[Column, ...]:
        columns = super().shown_columns(args)
        return (*columns, SERVER_ID) if args.all else columns

    def find_images(
        self, args: argparse.Namespace, kind: str | None, status: str | None
    ) -> Iterator[Row]:
        """Yield the images of the server, or of all servers, with this kind and status.

        :param kind: ``None`` for snapshots and backups
        :param status: ``None`` for any
        """
        filters = {
            "status": status,
            "owner": resolve.project(self.app.client_manager, args.project),
            "sort": args.sort,
        }
        given = {name: text for name, text in filters.items() if text is not None}
        return self._of_all(args, kind, given) if args.all else self._of_server(args, kind, given)

    def _of_server(
        self, args: argparse.Namespace, kind: str | None, filters: Mapping[str, Any]
    ) -> Iterator[Row]:
        server = resolve.server(self.app.client_manager, args.installation, args.server)
        service = self.clients.images(server.installation_uuid)
        images = service.list(
            server.instance_id,
            kind=kind,
            label=args.label,
            limit=args.limit,
            page_size=PAGE,
            **filters,
        )
        relations = service.relations(server.instance_id, kind=kind, page_size=PAGE)
        return _with_relations(images, relations)

    def _of_all(
        self, args: argparse.Namespace, kind: str | None, filters: Mapping[str, Any]
    ) -> Iterator[Row]:
        client = self.clients.relations
        wanted: dict[str, Any] = {
            "installation_uuid": args.installation,
            "resource_type": model.SERVER,
            "label": args.label,
        }
        images = client.images(kind=kind, **wanted, limit=args.limit, page_size=PAGE, **filters)
        relations = ImageRelations(client, kind, **wanted, project_id=filters.get("owner"))
        return itertools.starmap(Row, relations.with_relations(images))


def _with_relations(images: Iterable[Image], relations: Iterable[Relation]) -> Iterator[Row]:
    """Yield the images with their relations; all relations are read for the first image."""
    by_image: dict[str, list[Relation]] = defaultdict(list)
    for relation in relations:
        by_image[relation.image_id].append(relation)
    for image in images:
        yield Row(image, by_image[image.id])


class ListServerImage(ServerImageLister):
    """List the images made from a server, or from all servers: snapshots, backups, and images of
    shelved servers.

    Deleted images are not listed. `openstack image relation list --server` lists them too.
    """

    columns = (
        of_image("ID", "id"),
        of_image("Name", "name"),
        KIND,
        LABEL,
        of_image("Status", "status"),
        of_image("Created At", "created_at"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        arguments.add_kind(parser, "List only images of this kind")
        parser.add_argument(
            "--status", metavar="<status>", help="List only images with this status, such as active"
        )

    def find(self, args: argparse.Namespace) -> Iterator[Row]:
        return self.find_images(args, args.kind, args.status)
