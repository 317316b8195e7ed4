"""``openstack image ancestry`` and ``descendant``: which image comes from which."""

import argparse
from collections.abc import Iterator
from typing import Final

from related_images.cli import arguments, finding
from related_images.cli.commands import Column, RelatedLister, shown_time
from related_images.client import Ancestor, Descendant

VIA: Final[tuple[Column, ...]] = (
    ("Kind", lambda row: row.kind),
    ("Instance ID", lambda row: row.via.instance_id),
    ("Installation UUID", lambda row: row.via.installation_uuid),
)
MORE: Final[tuple[Column, ...]] = (
    ("Created At", lambda row: shown_time(row.created_at)),
    ("Image Deleted At", lambda row: shown_time(row.image_deleted_at)),
)


class ListAncestry(RelatedLister):
    """List the images that an image descends from, the nearest first.

    Each is the image that an instance was started from, of which the image before was made. A
    project sees those that its own instances lead to.
    """

    columns = (("Image ID", lambda row: row.image_id), *VIA)
    more = MORE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser)

    def found(self, given: argparse.Namespace) -> Iterator[Ancestor]:
        client = self.clients.relations
        return client.ancestry(finding.image(client, given.image))


class ListDescendant(RelatedLister):
    """List the images made from instances that were started from an image, and so on.

    A project sees those that it made from its own instances.
    """

    columns = (
        ("Depth", lambda row: row.depth),
        ("Image ID", lambda row: row.image_id),
        ("Parent Image ID", lambda row: row.parent_image_id),
        *VIA,
    )
    more = MORE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser)
        parser.add_argument(
            "--depth",
            metavar="<number>",
            type=arguments.positive,
            help="at most so many generations (default: as many as the registry follows)",
        )

    def found(self, given: argparse.Namespace) -> Iterator[Descendant]:
        client = self.clients.relations
        return client.descendants(finding.image(client, given.image), depth=given.depth)
