"""``openstack server image list``: list the images made from a server."""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from related_images.client import Image, Relation
from related_images.client.glance import PAGE
from related_images.osc import arguments, resolve
from related_images.osc.commands import Column, ListCommand


@dataclass(frozen=True)
class Row:
    """An image, and its relations with the server."""

    image: Image
    relations: list[Relation]


KIND: Final[Column] = ("Kind", lambda row: _joined(relation.kind for relation in row.relations))
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
        arguments.add_server(parser, f"to list {self.objects} of")
        arguments.add_label(parser, f"List only {self.objects} with this label, such as daily")
        arguments.add_project(parser, self.objects)
        arguments.add_sort(parser)

    def find_images(
        self, args: argparse.Namespace, kind: str | None, status: str | None
    ) -> Iterator[Row]:
        """Yield the images of the server with this kind and status; ``None`` for any."""
        server = resolve.server(self.app.client_manager, args.installation, args.server)
        service = self.clients.images(server.installation_uuid)
        filters = {
            "status": status,
            "owner": resolve.project(self.app.client_manager, args.project),
            "sort": args.sort,
        }
        images = service.list(
            server.instance_id,
            kind=kind,
            label=args.label,
            limit=args.limit,
            page_size=PAGE,
            **{name: text for name, text in filters.items() if text is not None},
        )
        relations: dict[str, list[Relation]] = defaultdict(list)
        for relation in service.relations(server.instance_id, kind=kind, page_size=PAGE):
            relations[relation.image_id].append(relation)
        return (Row(image, relations[image.id]) for image in images)


class ListServerImage(ServerImageLister):
    """List the images made from a server: snapshots, backups, and images of the shelved server.

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
