"""``openstack image lineage show``: where an image comes from and what was made from it, drawn."""

import argparse
from collections.abc import Iterable
from typing import Final

from related_images.cli import arguments, finding
from related_images.cli.commands import RelatedCommand, shown_time
from related_images.cli.picture import FORMATS, Node, fold
from related_images.client import Ancestor, Descendant

WIDTH: Final = 10
"""Images shown below each, if nothing else is asked for."""


class ShowImageLineage(RelatedCommand):
    """Draw the images that an image descends from, and below it those made from it."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser)
        parser.add_argument(
            "-f",
            "--format",
            choices=list(FORMATS),
            default="table",
            help="text, JSON, graphviz, a picture, or mermaid (default: %(default)s)",
        )
        parser.add_argument(
            "--depth",
            metavar="<number>",
            type=arguments.positive,
            help="so many generations below it (default: all)",
        )
        parser.add_argument(
            "--width",
            metavar="<number>",
            type=arguments.positive,
            default=WIDTH,
            help="so many images below each, the others are counted (default: %(default)s)",
        )

    def take_action(self, given: argparse.Namespace) -> None:
        relations = self.clients.relations
        image_id = finding.image(relations, given.image)
        ancestors = list(relations.ancestry(image_id))
        root, image = _above(image_id, ancestors)
        told = next(relations.relations_of_image(image_id), None)
        _mark(image, told is not None and told.image_deleted_at is not None)
        _hang(image, relations.descendants(image_id, depth=given.depth))
        fold(root, given.width)
        self.app.stdout.write(FORMATS[given.format](root) + "\n")


def _above(image_id: str, ancestors: Iterable[Ancestor]) -> tuple[Node, Node]:
    """The chain from the root down to the image, by both its ends."""
    top = image = Node(image_id)
    for ancestor in ancestors:
        _tell(top, ancestor)
        top = Node(ancestor.image_id, children=[top])
        _mark(top, ancestor.image_deleted_at is not None)
    return top, image


def _mark(node: Node, deleted: bool) -> None:
    if deleted:
        node.state = "deleted"


def _tell(node: Node, made: Ancestor | Descendant) -> None:
    """Note on an image how it was made."""
    node.kind = made.kind
    node.created_at = shown_time(made.created_at)
    node.project_id = made.project_id
    node.instance_id = made.via.instance_id


def _hang(image: Node, descendants: Iterable[Descendant]) -> None:
    """Hang each below its parent; they come each before those made from it."""
    path = [image]
    for descendant in descendants:
        node = Node(descendant.image_id)
        _tell(node, descendant)
        _mark(node, descendant.image_deleted_at is not None)
        del path[descendant.depth :]
        path[-1].children.append(node)
        path.append(node)
