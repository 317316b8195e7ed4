"""The dependents of an image: the resources made from it, or from anything made from it.

The images are in the order of their :func:`related_images.db.lineage.descendants`, the image itself
first. Each image is followed by the resources below it, and each resource by those that come from
it: see :mod:`.dependent_walk`. A page reads at most about three rows for each of its entries, and
visits at most :func:`most_steps` images, about as many as a page of descendants lists. If few of
them match, the page is shorter, or empty, although another one follows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from related_images.db import dependent_walk
from related_images.db.database import Database
from related_images.db.dependent_walk import Node, WalkStep
from related_images.db.lineage_walk import ANY_DEPTH, TreePosition
from related_images.db.origin_walk import STEPS
from related_images.errors import MarkerUnknown
from related_images.model import SHELVED, Dependent, InstanceRef

__all__ = ["Dependents", "PagePosition", "Wanted", "dependents", "most_steps"]

FEW_STEPS: Final = 20


def most_steps(limit: int) -> int:
    """Return the largest number of steps of a page through the images."""
    return limit + FEW_STEPS


@dataclass(frozen=True)
class PagePosition:
    """Where a page begins: after a resource, or after the resources of an image.

    :ivar key: the ``key`` of the image
    :ivar depth: the number of links between the root and the image
    :ivar upwards: whether the images below it were visited too
    :ivar inside: the way from the image to the resource below which the page begins; ``None`` after
        all resources of the image
    :ivar after: the last one of these on the page before
    """

    key: str
    depth: int
    upwards: bool = False
    inside: tuple[InstanceRef, ...] | None = ()
    after: InstanceRef | None = None


@dataclass(frozen=True)
class Wanted:
    """A query for dependents.

    :ivar image_id: the root
    :ivar is_live: whether the resources depend on the image now, or did before
    :ivar depth: the number of generations of images, the root included
    :ivar visible_to: the project of the caller; ``None`` if the caller sees all projects
    """

    image_id: str
    is_live: bool = True
    depth: int = ANY_DEPTH
    resource_type: str | None = None
    project_id: str | None = None
    visible_to: str | None = None

    def matches(self, one: Dependent, *, is_live: bool) -> bool:
        """Return whether the resource belongs to the result."""
        if one.kind == SHELVED and not is_live:  # the server no longer needs the image
            return False
        return (
            is_live == self.is_live
            and self.resource_type in (None, one.resource_type)
            and self.project_id in (None, one.project_id)
        )


@dataclass(frozen=True)
class Dependents:
    """A page of dependents; it may be shorter than the limit although another page follows."""

    items: list[Dependent]
    next: PagePosition | None


def dependents(
    database: Database, wanted: Wanted, limit: int, after: PagePosition | None
) -> Dependents:
    """Return a page of the dependents of an image, with at most two round trips.

    :param limit: the largest size of the page
    :param after: where the previous page ended
    :raises MarkerUnknown: if no page for this caller can have ended at ``after``, or if the image
        or a resource has been removed since
    :raises StoreUnavailable: if the database is unavailable
    """
    page, is_first = _Page(wanted, limit), after is None
    at = after or PagePosition(wanted.image_id, 0)
    if wanted.depth > 1 and (is_first or at.inside is None):
        _walk(database, page, at, with_root=is_first)
    elif at.inside is not None:
        # after a place in the middle, the walk would need more round trips
        page.next = _read_block(database, page, at, is_first=is_first)
    if wanted.depth == 1 and page.next is not None and page.next.inside is None:
        page.next = None
    return Dependents(page.items, page.next)


def _read_block(
    database: Database, page: "_Page", at: PagePosition, *, is_first: bool
) -> PagePosition:
    """Add the resources below an image or a resource, and return where the next page begins."""
    inside = at.inside or ()
    refs = [] if is_first else _find(database, page, at)
    way = refs[: len(inside)]
    nodes, is_more = database.explore(
        dependent_walk.block,
        *(at.key, way[-1] if way else None, refs[-1] if at.after else 0),
        *(page.limit, page.wanted.visible_to),
    )
    place = page.add(nodes, at, frozenset(way))
    if place is not None:
        return place
    if is_more:
        return _inside(at, inside, [*nodes.values()][-1].resource)
    if inside:
        return _inside(at, inside[:-1], inside[-1])
    return PagePosition(at.key, at.depth, inside=None)


def _find(database: Database, page: "_Page", at: PagePosition) -> list[int]:
    """Find the image of a place and return the primary keys of its resources."""
    wanted, names = page.wanted, [*(at.inside or ()), *([at.after] if at.after else ())]
    key = at.key if at.depth else None
    image_id, refs = database.explore(
        dependent_walk.find, wanted.image_id, key, names, wanted.visible_to
    )
    known = [ref for ref in refs if ref is not None]
    is_root = at.depth or at.key == wanted.image_id
    if not is_root or image_id is None or len(known) < len(names):
        raise MarkerUnknown(
            "the image or a resource of this marker no longer exists; request the first page, "
            "without a marker"
        )
    page.image_id = image_id
    return known


def _inside(
    at: PagePosition, inside: tuple[InstanceRef, ...], after: InstanceRef | None
) -> PagePosition:
    return PagePosition(at.key, at.depth, inside=inside, after=after)


def _walk(database: Database, page: "_Page", at: PagePosition, *, with_root: bool) -> None:
    """Add the resources of the images after a place.

    :param with_root: whether to begin with those of the root
    """
    wanted = page.wanted
    visits = database.explore(
        dependent_walk.visits,
        wanted.image_id,
        TreePosition(at.key, at.depth, at.upwards) if at.depth else None,
        page.limit,
        most_steps(page.limit),
        wanted.depth - 1,
        wanted.visible_to,
        with_root=with_root,
    )
    if at.depth and not visits:
        raise MarkerUnknown(
            "the image of this marker no longer exists; request the first page, without a marker"
        )
    for visit in visits:
        page.next = _visited(page, visit)
        if page.next is not None:
            return


def _visited(page: "_Page", visit: WalkStep) -> PagePosition | None:
    here = PagePosition(visit.key, visit.depth)
    if visit.nodes is None:
        return here
    page.image_id = visit.image_id
    place = page.add(visit.nodes, here, frozenset())
    if place is None and visit.is_more:
        return _inside(here, (), [*visit.nodes.values()][-1].resource)
    if place is None and visit.is_last:
        return PagePosition(visit.key, visit.depth, visit.upwards, inside=None)
    return place


@dataclass
class _Page:
    """The entries of a page, added in order."""

    wanted: Wanted
    limit: int
    items: list[Dependent] = field(default_factory=list)
    next: PagePosition | None = None
    image_id: str = ""

    def __post_init__(self) -> None:
        self.image_id = self.wanted.image_id

    def add(
        self, nodes: Mapping[int, Node], at: PagePosition, way: frozenset[int]
    ) -> PagePosition | None:
        """Add resources with those below them.

        A resource and those below it are on one page if they have room there.

        :param way: the resources between the image and these
        :returns: where the page ends, if it ends among them
        """
        inside, before, number = at.inside or (), at.after, len(self.items)
        for index, node in enumerate(nodes.values()):
            if index and not node.is_whole:
                return _inside(at, inside, before)
            place = self._add([node], at, inside, way, before)
            if place is not None:
                if number and place.inside is not None and len(self.items) == self.limit:
                    del self.items[number:]
                    return _inside(at, inside, before)
                return place
            before, number = node.resource, len(self.items)
        return None

    def _add(
        self,
        nodes: Iterable[Node],
        at: PagePosition,
        inside: tuple[InstanceRef, ...],
        way: frozenset[int],
        before: InstanceRef | None,
    ) -> PagePosition | None:
        for node in nodes:
            if node.ref in way or len(inside) > STEPS or (inside and node.is_elsewhere):
                continue
            shown = self._shown(node, at, inside)
            if self.wanted.matches(shown, is_live=node.is_live):
                if len(self.items) == self.limit:
                    return _inside(at, inside, before)
                self.items.append(shown)
            deeper = (*inside, node.resource)
            if not node.is_whole:
                return _inside(at, deeper, None)
            if node.below:
                place = self._add(node.below.values(), at, deeper, way | {node.ref}, None)
                if place is not None:
                    return place
            before = node.resource
        return None

    def _shown(self, node: Node, at: PagePosition, inside: tuple[InstanceRef, ...]) -> Dependent:
        visible_to, owner = self.wanted.visible_to, node.project_id
        return Dependent(
            node.resource.installation_uuid,
            node.resource.instance_id,
            self.image_id,
            node.kind,
            at.depth + 1,
            inside,
            owner if visible_to in (None, owner) else None,
            node.ended_at,
            node.expires_at,
            resource_type=node.resource.resource_type,
        )
