"""The lineage of an image: what it was made from, and what depends on it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from related_images import model
from related_images.client.glance import PAGE
from related_images.client.graph_drawing import IMAGE, Node
from related_images.client.names import Named, Names
from related_images.client.relations import RelationsClient
from related_images.model import BOOT, Ancestor, Dependent, Descendant, InstanceRef, Relation
from related_images.validation import format_seconds

ORIGIN: Final = "origin"
"""The link between a resource and one that comes from it."""


@dataclass(frozen=True)
class AncestryRow:
    """An image of an ancestry.

    :ivar depth: generations from the first image
    :ivar kind: snapshot, backup or shelved
    :ivar via: the resources between the next ancestor and the image, which was made from the last
    :ivar via_ended_at: when the last resource was deleted, if that is known
    :ivar created_at: the time of the relation with it
    """

    depth: int
    image_id: str
    image_deleted_at: datetime | None = None
    kind: str | None = None
    via: tuple[InstanceRef, ...] = ()
    created_at: datetime | None = None
    project_id: str | None = None
    via_ended_at: datetime | None = None


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
        via_ended_at=origin.instance_ended_at if isinstance(origin, Ancestor) else None,
    )


def _oldest_relation(client: RelationsClient, image_id: str) -> Relation | None:
    """Return the oldest relation of an image with a resource that it was made from."""
    relations = [
        relation
        for kind in model.MADE_FROM
        for relation in client.relations(image_id=image_id, kind=kind)
    ]
    return min(relations, key=lambda relation: relation.created_at, default=None)


def lineage(
    relations: RelationsClient,
    names: Names,
    image_id: str,
    depth: int | None = None,
    limit: int | None = None,
    states: Iterable[bool] = (True, False),
) -> Node:
    """Return the oldest ancestor of an image, with everything down to what depends on the image.

    :param image_id: ID of the image; its node is marked
    :param depth: number of generations of descendants; default: all
    :param limit: maximum number of descendants, of live and of ended dependents; default: all
    :param states: whether to read the live (``True``) and the ended (``False``) dependents
    :raises NotFound: if the image does not exist or the caller may not see it
    :raises GlanceError: if a request fails
    """
    chain = [*names.add_to(ancestry(relations, image_id))]
    between = [ref for named in chain for ref in named.row.via[:-1]]
    names.find_resources(between, {named.row.project_id for named in chain})
    nodes = [_image(named) for named in chain]
    nodes[0].is_asked = True
    below = _Below(names, image_id, nodes[0])
    for live in states:
        found = relations.dependents(
            image_id,
            live=live,
            depth=None if depth is None else depth + 1,
            limit=limit,
            page_size=PAGE,
        )
        below.keep(names.add_to(found))
    descendants = relations.descendants(image_id, depth=depth, limit=limit, page_size=PAGE)
    for made in names.add_to(descendants):
        below.add_image(made)
    below.add_resources()
    for (child, named), parent in zip(zip(nodes, chain, strict=True), nodes[1:], strict=False):
        parent.children = [_sources(names, named.row, child)]
    return _sources(names, chain[-1].row, nodes[-1])


def _image(named: Named[AncestryRow] | Named[Descendant]) -> Node:
    row = named.row
    return Node(
        *(IMAGE, row.image_id, named.image_name, row.kind, format_seconds(row.created_at)),
        ended_at=format_seconds(row.image_deleted_at),
        size=named.image_size,
        project_id=row.project_id,
    )


def _sources(names: Names, row: AncestryRow, image: Node) -> Node:
    """Return the first of the resources that an image was made from, with those below it.

    If they are unknown, return the image.
    """
    node, ended_at = image, format_seconds(row.via_ended_at)
    for index, ref in reversed([*enumerate(row.via)]):
        link, name = ORIGIN if index else BOOT, names.of_resource(ref)
        node = Node(
            *(ref.resource_type, ref.instance_id, name, link), ended_at=ended_at, children=[node]
        )
        ended_at = None  # only the end of the last resource is known
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
        source.ended_at = source.ended_at or format_seconds(row.instance_ended_at)
        source.children.append(node)
        self._images[row.image_id] = node

    def add_resources(self) -> None:
        """Add all resources below their images, or below the resources that they come from.

        With a limit, the image of a resource may be missing.
        """
        for (image_id, _), row in self._rows.items():
            if image_id in self._images:
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
                node.ended_at = format_seconds(row.ended_at or _expired(row))
            above = self._images[image_id] if is_direct else self._resource(image_id, way[:-1])
            self._resources[key] = node
            above.children.append(node)
        return self._resources[key]


def _expired(row: Dependent) -> datetime | None:
    is_past = row.expires_at is not None and row.expires_at <= datetime.now(UTC)
    return row.expires_at if is_past else None
