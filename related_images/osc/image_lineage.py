"""``openstack image lineage show``: draw what an image was made from, and what depends on it."""

import argparse
from typing import Final

from related_images import validation
from related_images.client.graph_drawing import FORMATS, fold, tree
from related_images.client.lineage import lineage
from related_images.osc import arguments, resolve
from related_images.osc.base_commands import GlanceCommand
from related_images.osc.names import SERVICES, Names

WIDTH: Final = 10
"""The default of ``--width``."""


class ShowImageLineage(GlanceCommand):
    """Draw the lineage of an image: what it was made from, and what depends on it.

    The drawing has images, and the servers, volumes and other resources that link or use them. The
    links have the kind of the relation: boot from an image to a server or volume, and snapshot,
    backup or shelved from a server or volume to an image. A link between two resources is called
    origin. The requested image is marked. Deleted images and resources are grey. A project sees
    only what it owns.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_image(parser, "to draw the lineage of")
        parser.add_argument(
            "-f",
            "--format",
            choices=list(FORMATS),
            default="tree",
            help="Output format: indented text, JSON, Graphviz, SVG (which needs the program dot "
            "of Graphviz) or Mermaid (default: %(default)s)",
        )
        parser.add_argument(
            "--depth",
            metavar="<number>",
            type=validation.argument(validation.number, "--depth"),
            help="Maximum number of generations of descendants (default: all)",
        )
        parser.add_argument(
            "--width",
            metavar="<number>",
            type=validation.argument(validation.number, "--width"),
            default=WIDTH,
            help="Maximum number of images or resources below each one; the others are counted "
            "(default: %(default)s)",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        relations = self.clients.relations
        image_id = resolve.image(relations, args.image)
        names = Names(self.app.client_manager, self.log, SERVICES)
        with self.reading():
            root = lineage(relations, names, image_id, args.depth)
        fold(root, args.width)
        if args.format == "tree":
            drawn = tree(root, is_grey=self.app.stdout.isatty())
        else:
            drawn = FORMATS[args.format](root)
        self.app.stdout.write(drawn + "\n")
