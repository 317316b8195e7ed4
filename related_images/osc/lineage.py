"""``openstack image lineage show``: where an image comes from and what was made from it, drawn."""

import argparse
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from related_images.client import Descendant
from related_images.osc import arguments, resolve
from related_images.osc.commands import RelatedCommand, shown_time
from related_images.osc.descent import Row, ancestry
from related_images.osc.graph_drawing import FORMATS, Node, fold
from related_images.osc.names import Named, Names

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
        image_id = resolve.image(relations, given.image)
        names = Names(self.app.client_manager, self.log)
        chain = [_node(it) for it in names.beside(ancestry(relations, image_id))]
        for below, above in pairwise(chain):
            above.children = [below]
        image, root = chain[0], chain[-1]
        descendants = relations.descendants(image_id, depth=given.depth)
        _hang(image, names.beside(descendants))
        fold(root, given.width)
        self.app.stdout.write(FORMATS[given.format](root) + "\n")


def _node(named: Named[Row] | Named[Descendant]) -> Node:
    """The image of the row and how it was made."""
    row = named.row
    return Node(
        row.image_id,
        image_name=named.image_name,
        kind=row.kind,
        created_at=shown_time(row.created_at),
        project_id=row.project_id,
        server_id=row.via.instance_id if row.via else None,
        server_name=named.server_name,
        deleted_at=shown_time(row.image_deleted_at),
    )


def _hang(image: Node, descendants: Iterable[Named[Descendant]]) -> None:
    """Hang each below its parent; they come each before those made from it."""
    path = [image]
    for descendant in descendants:
        node = _node(descendant)
        del path[descendant.row.depth :]
        path[-1].children.append(node)
        path.append(node)
