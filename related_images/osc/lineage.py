"""``openstack image lineage show``: draw what an image was made from, and what depends on it."""

import argparse
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from related_images.client import Dependent, Descendant, InstanceRef, RelationsClient
from related_images.client.glance import PAGE
from related_images.model import BOOT
from related_images.osc import arguments, resolve
from related_images.osc.commands import GlanceCommand, format_time
from related_images.osc.graph_drawing import FORMATS, IMAGE, Node, fold, tree
from related_images.osc.image_ancestry import AncestryRow, ancestry
from related_images.osc.names import SERVICES, Named, Names

WIDTH: Final = 10
"""The default of ``--width``."""

ORIGIN: Final = "origin"
"""The link between a resource and one that comes from it."""


class ShowImageLineage(GlanceCommand):
    """Draw the lineage of an image: what it was made from, and what depends on it.

    The drawing has images, and the servers, volumes and other resources between them. The links
    have the kind of the relation: boot from an image to a server or volume, and snapshot, backup or
    shelved from a server or volume to an image. The link origin is between two resources. The
    image that was asked for is marked, and what was deleted is grey. A project sees only what it
    owns.
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
            type=arguments.positive,
            help="Maximum number of generations of descendants (default: all)",
        )
        parser.add_argument(
            "--width",
            metavar="<number>",
            type=arguments.positive,
            default=WIDTH,
            help="Maximum number of images or resources below each one; the others are counted "
            "(default: %(default)s)",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        relations = self.clients.relations
        image_id = resolve.image(relations, args.image)
        names = Names(self.app.client_manager, self.log, SERVICES)
        with self.reading():
            root = _lineage(relations, names, image_id, args.depth)
        fold(root, args.width)
        if args.format == "tree":
            drawn = tree(root, is_grey=self.app.stdout.isatty())
        else:
            drawn = FORMATS[args.format](root)
        self.app.stdout.write(drawn + "\n")


def _lineage(relations: RelationsClient, names: Names, image_id: str, depth: int | None) -> Node:
    """Return the oldest ancestor of an image, with everything down to what depends on the image."""
    chain = [*names.add_to(ancestry(relations, image_id))]
    between = [ref for named in chain for ref in named.row.via[:-1]]
    names.find_resources(between, {named.row.project_id for named in chain})
    nodes = [_image(named) for named in chain]
    nodes[0].is_asked = True
    below = _Below(names, image_id, nodes[0])
    for live in (True, False):
        found = relations.dependents(
            image_id, live=live, depth=None if depth is None else depth + 1, page_size=PAGE
        )
        below.keep(names.add_to(found))
    for made in names.add_to(relations.descendants(image_id, depth=depth, page_size=PAGE)):
        below.add_image(made)
    below.add_resources()
    for (child, named), parent in zip(zip(nodes, chain, strict=True), nodes[1:], strict=False):
        parent.children = [_sources(names, named.row.via, child)]
    return _sources(names, chain[-1].row.via, nodes[-1])


def _image(named: Named[AncestryRow] | Named[Descendant]) -> Node:
    row = named.row
    return Node(
        *(IMAGE, row.image_id, named.image_name, row.kind, format_time(row.created_at)),
        ended_at=format_time(row.image_deleted_at),
        size=named.image_size,
        project_id=row.project_id,
    )


def _sources(names: Names, via: Sequence[InstanceRef], image: Node) -> Node:
    """Return the first of the resources that an image was made from, with those below it.

    If they are unknown, return the image.
    """
    node = image
    for index, ref in reversed([*enumerate(via)]):
        link, name = ORIGIN if index else BOOT, names.of_resource(ref)
        node = Node(ref.resource_type, ref.instance_id, name, link, children=[node])
    return node


class _Below:
    """The images and resources below an image.

    :param root: the node of the image
    """

    def __init__(self, names: Names, image_id: str, root: Node) -> None:
        self._names = names
        self._images = {image_id: root}
        self._rows: dict[tuple[str, InstanceRef], Dependent] = {}
        self._resources: dict[tuple[str, InstanceRef], Node] = {}

    def keep(self, found: Iterable[Named[Dependent]]) -> None:
        """Keep resources for :meth:`add_resources`; one that is listed twice is drawn once."""
        for named in found:
            self._rows.setdefault((named.row.image_id, named.row.instance), named.row)

    def add_image(self, named: Named[Descendant]) -> None:
        """Add an image below the resource that it was made from. Its parent was added before."""
        row, node = named.row, _image(named)
        source = self._resource(row.parent_image_id, row.via)
        source.ended_at = source.ended_at or format_time(row.instance_ended_at)
        source.children.append(node)
        self._images[row.image_id] = node

    def add_resources(self) -> None:
        """Add all resources below their images, or below the resources that they come from."""
        for (image_id, _), row in self._rows.items():
            self._resource(image_id, (*row.via, row.instance))

    def _resource(self, image_id: str, way: tuple[InstanceRef, ...]) -> Node:
        """Return the node of the last resource of a way that begins at an image."""
        ref, is_direct = way[-1], len(way) == 1
        key = image_id, ref
        if key not in self._resources:
            row = self._rows.get(key)
            link = ORIGIN if not is_direct else row.kind if row else BOOT
            name = self._names.of_resource(ref)
            node = Node(ref.resource_type, ref.instance_id, name, link)
            if row is not None:
                node.project_id = row.project_id
                node.ended_at = format_time(row.ended_at or _expired(row))
            above = self._images[image_id] if is_direct else self._resource(image_id, way[:-1])
            self._resources[key] = node
            above.children.append(node)
        return self._resources[key]


def _expired(row: Dependent) -> datetime | None:
    is_past = row.expires_at is not None and row.expires_at <= datetime.now(UTC)
    return row.expires_at if is_past else None
