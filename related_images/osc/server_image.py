"""``openstack server image list``: the images made from a server."""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from related_images.client import Image, Relation
from related_images.client.glance import PAGE
from related_images.osc import arguments, resolve
from related_images.osc.commands import Column, RelatedLister


@dataclass(frozen=True)
class Row:
    """An image, and the relations by which it belongs to the server."""

    image: Image
    relations: list[Relation]


KIND: Final[Column] = ("Kind", lambda row: _words(relation.kind for relation in row.relations))
LABEL: Final[Column] = ("Label", lambda row: _words(relation.label for relation in row.relations))


def of_image(heading: str, name: str) -> Column:
    return heading, lambda row: row.image.get(name)


def _words(texts: Iterator[str | None]) -> str | None:
    return ", ".join(sorted({text for text in texts if text})) or None


MORE: Final[tuple[Column, ...]] = (
    of_image("Size", "size"),
    of_image("Disk Format", "disk_format"),
    of_image("Visibility", "visibility"),
    of_image("Protected", "protected"),
    of_image("Project ID", "owner"),
)


class ServerImageLister(RelatedLister):
    more = MORE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_server(parser)
        arguments.add_label(parser)
        arguments.add_project(parser, "images of")
        arguments.add_sort(parser)

    def rows(
        self, given: argparse.Namespace, kind: str | None, status: str | None
    ) -> Iterator[Row]:
        """The images of the server that is asked for, of that kind and in that status."""
        server = resolve.server(self.app.client_manager, given.installation, given.server)
        service = self.clients.images(server.installation_uuid)
        filters = {
            "status": status,
            "owner": resolve.project(self.app.client_manager, given.project),
            "sort": given.sort,
        }
        images = service.list(
            server.instance_id,
            kind=kind,
            label=given.label,
            limit=given.limit,
            page_size=PAGE,
            **{name: text for name, text in filters.items() if text is not None},
        )
        relations: dict[str, list[Relation]] = defaultdict(list)
        for relation in service.relations(server.instance_id, kind=kind, page_size=PAGE):
            relations[relation.image_id].append(relation)
        return (Row(image, relations[image.id]) for image in images)


class ListServerImage(ServerImageLister):
    """List the images made from a server: its snapshots and backups.

    Images that were deleted are not listed: `openstack image relation list --server` has them too.
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
        arguments.add_kind(parser)
        parser.add_argument(
            "--status", metavar="<status>", help="images in this status, such as active, only"
        )

    def found(self, given: argparse.Namespace) -> Iterator[Row]:
        return self.rows(given, given.kind, given.status)
