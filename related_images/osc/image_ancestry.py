"""``openstack image ancestry list`` and ``openstack image descendant list``."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, Final

from related_images import validation
from related_images.client import Descendant
from related_images.client.lineage import AncestryRow, ancestry
from related_images.client.names import resource_of
from related_images.osc import arguments, resolve
from related_images.osc.base_commands import Column, ListWithNames


def _of_source(field: str) -> Callable[[Any], Any]:
    return lambda it: getattr(resource_of(it.row), field, None)


IMAGE_COLUMNS: Final[tuple[Column, ...]] = (
    ("Depth", lambda it: it.row.depth),
    ("Image ID", lambda it: it.row.image_id),
    ("Image Name", lambda it: it.image_name),
)
ORIGIN_COLUMNS: Final[tuple[Column, ...]] = (
    ("Kind", lambda it: it.row.kind),
    ("Resource Type", _of_source("resource_type")),
    ("Resource ID", _of_source("instance_id")),
    ("Server Name", lambda it: it.server_name),
    ("Installation UUID", _of_source("installation_uuid")),
    ("Deleted At", lambda it: validation.format_seconds(it.row.image_deleted_at)),
)


class _ListRelatives(ListWithNames):
    long_columns = (
        ("Created At", lambda it: validation.format_seconds(it.row.created_at)),
        ("Project ID", lambda it: it.row.project_id),
    )


class ListAncestry(_ListRelatives):
    """List an image and its ancestors, the nearest first.

    Each row shows the server or volume that the image was made from, and the kind: snapshot,
    backup or shelved. The next row has the image that this server was started from, or that this
    volume was made from. A project sees an ancestor only if it owns the resources and images that
    lead to it.
    """

    columns = (*IMAGE_COLUMNS, *ORIGIN_COLUMNS)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser, "to list ancestors of")

    def find(self, args: argparse.Namespace) -> Iterator[AncestryRow]:
        client = self.clients.relations
        return ancestry(client, resolve.image(client, args.image))


class ListDescendant(_ListRelatives):
    """List the descendants of an image.

    These are the images made from servers that were started from the image, or from volumes that
    were made from it, and their descendants. Each row shows the server or volume that the image was
    made from, and the kind: snapshot, backup or shelved. A project sees a descendant only if it
    owns the resources and images that lead to it.
    """

    columns = (
        *IMAGE_COLUMNS,
        ("Parent Image ID", lambda it: it.row.parent_image_id),
        *ORIGIN_COLUMNS,
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser, "to list descendants of")
        parser.add_argument(
            "--depth",
            metavar="<number>",
            type=validation.argument(validation.number, "--depth"),
            help="Maximum number of generations (default: all)",
        )

    def find(self, args: argparse.Namespace) -> Iterator[Descendant]:
        client = self.clients.relations
        return client.descendants(resolve.image(client, args.image), depth=args.depth)
