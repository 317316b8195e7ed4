"""``openstack image lineage show``: draw the ancestors and descendants of an image."""

import argparse
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from related_images.client import Descendant
from related_images.osc import arguments, resolve
from related_images.osc.commands import GlanceCommand, format_time
from related_images.osc.graph_drawing import FORMATS, Node, fold
from related_images.osc.image_ancestry import AncestryRow, ancestry
from related_images.osc.names import Named, Names

WIDTH: Final = 10
"""The default of ``--width``."""


class ShowImageLineage(GlanceCommand):
    """Draw the lineage of an image: its ancestors above it, and its descendants below it."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser, "to draw the lineage of")
        parser.add_argument(
            "-f",
            "--format",
            choices=list(FORMATS),
            default="table",
            help="Output format: indented text, JSON, Graphviz, SVG or Mermaid "
            "(default: %(default)s)",
        )
        parser.add_argument(
            "--depth",
            metavar="<number>",
            type=arguments.positive,
            help="Maximum number of generations of descendants (default: all)",
        )
        parser.add_argument(
            "--width",
            metavar="<number>",
            type=arguments.positive,
            default=WIDTH,
            help="Maximum number of images below each image; the others are counted "
            "(default: %(default)s)",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        relations = self.clients.relations
        image_id = resolve.image(relations, args.image)
        names = Names(self.app.client_manager, self.log)
        chain = [_node(named) for named in names.add_to(ancestry(relations, image_id))]
        for child, parent in pairwise(chain):
            parent.children = [child]
        image, root = chain[0], chain[-1]
        descendants = relations.descendants(image_id, depth=args.depth)
        _add_descendants(image, names.add_to(descendants))
        fold(root, args.width)
        self.app.stdout.write(FORMATS[args.format](root) + "\n")


def _node(named: Named[AncestryRow] | Named[Descendant]) -> Node:
    row = named.row
    return Node(
        row.image_id,
        image_name=named.image_name,
        kind=row.kind,
        created_at=format_time(row.created_at),
        project_id=row.project_id,
        server_id=row.via.instance_id if row.via else None,
        server_name=named.server_name,
        deleted_at=format_time(row.image_deleted_at),
    )


def _add_descendants(image: Node, descendants: Iterable[Named[Descendant]]) -> None:
    """Add each descendant to the children of its parent. Parents precede their children."""
    path = [image]
    for descendant in descendants:
        node = _node(descendant)
        del path[descendant.row.depth :]
        path[-1].children.append(node)
        path.append(node)
