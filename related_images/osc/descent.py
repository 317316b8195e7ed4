"""``openstack image ancestry`` and ``descendant``: which image comes from which."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from related_images import model
from related_images.client import (
    Ancestor,
    Descendant,
    InstanceRef,
    Relation,
    RelationsClient,
)
from related_images.osc import arguments, resolve
from related_images.osc.commands import Column, NamedLister, shown_time
from related_images.osc.names import server_of


@dataclass(frozen=True)
class Row:
    """An image and how it was made: ``via`` the server of which it is a ``kind``.

    ``depth`` is the distance from the image that is asked about.
    """

    depth: int
    image_id: str
    image_deleted_at: datetime | None = None
    kind: str | None = None
    via: InstanceRef | None = None
    created_at: datetime | None = None
    project_id: str | None = None


IMAGE: Final[tuple[Column, ...]] = (
    ("Depth", lambda it: it.row.depth),
    ("Image ID", lambda it: it.row.image_id),
    ("Image Name", lambda it: it.image_name),
)
MADE: Final[tuple[Column, ...]] = (
    ("Kind", lambda it: it.row.kind),
    ("Server ID", lambda it: it.row.via and it.row.via.instance_id),
    ("Server Name", lambda it: it.server_name),
    ("Installation UUID", lambda it: it.row.via and it.row.via.installation_uuid),
    ("Deleted At", lambda it: shown_time(it.row.image_deleted_at)),
)


class _DescentLister(NamedLister):
    more = (
        ("Created At", lambda it: shown_time(it.row.created_at)),
        ("Project ID", lambda it: it.row.project_id),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser)


class ListAncestry(_DescentLister):
    """List an image and the images that it descends from, the nearest first.

    Each row says how its image was made: as a snapshot or backup of which server. That server was
    started from the image in the next row. A project sees those that its own servers lead to.
    """

    columns = (*IMAGE, *MADE)

    def found(self, given: argparse.Namespace) -> Iterator[Row]:
        client = self.clients.relations
        return ancestry(client, resolve.image(client, given.image))


class ListDescendant(_DescentLister):
    """List the images made from servers that were started from an image, and so on.

    Each row says how its image was made. A project sees those that it made from its own servers.
    """

    columns = (*IMAGE, ("Parent Image ID", lambda it: it.row.parent_image_id), *MADE)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--depth",
            metavar="<number>",
            type=arguments.positive,
            help="at most so many generations (default: as many as the registry follows)",
        )

    def found(self, given: argparse.Namespace) -> Iterator[Descendant]:
        client = self.clients.relations
        return client.descendants(resolve.image(client, given.image), depth=given.depth)


def ancestry(client: RelationsClient, image_id: str) -> Iterator[Row]:
    """The image and those that it descends from, each with how it was made itself.

    Glance's filter answers the other way round: each entry says how the image before it was made.
    """
    known = next(client.relations_of_image(image_id), None)
    row = Row(0, image_id, known.image_deleted_at if known else None)
    for parent in client.ancestry(image_id):
        yield _made(row, parent)
        row = Row(row.depth + 1, parent.image_id, parent.image_deleted_at)
    yield _made(row, _how_made(client, row.image_id))


def _made(row: Row, how: Ancestor | Relation | None) -> Row:
    if how is None:
        return row
    return replace(
        row,
        kind=how.kind,
        via=server_of(how),
        created_at=how.created_at,
        project_id=how.project_id,
    )


def _how_made(client: RelationsClient, image_id: str) -> Relation | None:
    """How an image was made whose server was started from nothing that the caller sees."""
    found = [
        relation
        for kind in model.MADE_FROM
        for relation in client.relations(image_id=image_id, kind=kind)
    ]
    return min(found, key=lambda relation: relation.created_at, default=None)
