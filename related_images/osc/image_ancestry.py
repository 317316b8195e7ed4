"""``openstack image ancestry list`` and ``openstack image descendant list``."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from related_images import model
from related_images.client import (
    Ancestor,
    Descendant,
    InstanceRef,
    Relation,
    RelationsClient,
)
from related_images.osc import arguments, resolve
from related_images.osc.commands import Column, ListWithNames, format_time
from related_images.osc.names import resource_of


@dataclass(frozen=True)
class AncestryRow:
    """An image of an ancestry.

    :ivar depth: generations from the first image
    :ivar kind: snapshot, backup or shelved
    :ivar via: the resources between the next ancestor and the image, which was made from the last
    :ivar created_at: the time of the relation with it
    """

    depth: int
    image_id: str
    image_deleted_at: datetime | None = None
    kind: str | None = None
    via: tuple[InstanceRef, ...] = ()
    created_at: datetime | None = None
    project_id: str | None = None


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
    ("Deleted At", lambda it: format_time(it.row.image_deleted_at)),
)


class _ListRelatives(ListWithNames):
    long_columns = (
        ("Created At", lambda it: format_time(it.row.created_at)),
        ("Project ID", lambda it: it.row.project_id),
    )


class ListAncestry(_ListRelatives):
    """List an image and its ancestors, the nearest first.

    Each row shows the server or volume that the image was made from, and the kind: snapshot,
    backup or shelved. This server was started from the image in the next row, or this volume was
    made from it. A project sees an ancestor only if it owns the resources and images that lead to
    it.
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
            type=arguments.positive,
            help="Maximum number of generations (default: all)",
        )

    def find(self, args: argparse.Namespace) -> Iterator[Descendant]:
        client = self.clients.relations
        return client.descendants(resolve.image(client, args.image), depth=args.depth)


def ancestry(client: RelationsClient, image_id: str) -> Iterator[AncestryRow]:
    """Yield the image and its ancestors, each with the resource that it was made from.

    In the API, each entry has the resource that the image of the previous entry was made from.

    :raises RelatedImagesError: if Glance fails
    """
    relation = next(client.relations_of_image(image_id), None)
    row = AncestryRow(0, image_id, relation.image_deleted_at if relation else None)
    for parent in client.ancestry(image_id):
        yield _with_origin(row, parent)
        row = AncestryRow(row.depth + 1, parent.image_id, parent.image_deleted_at)
    yield _with_origin(row, _oldest_relation(client, row.image_id))


def _with_origin(row: AncestryRow, origin: Ancestor | Relation | None) -> AncestryRow:
    if origin is None:
        return row
    return replace(
        row,
        kind=origin.kind,
        via=origin.via if isinstance(origin, Ancestor) else (origin.instance,),
        created_at=origin.created_at,
        project_id=origin.project_id,
    )


def _oldest_relation(client: RelationsClient, image_id: str) -> Relation | None:
    """Return the oldest relation of an image with a resource that it was made from."""
    relations = [
        relation
        for kind in model.MADE_FROM
        for relation in client.relations(image_id=image_id, kind=kind)
    ]
    return min(relations, key=lambda relation: relation.created_at, default=None)
