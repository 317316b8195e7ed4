"""The lineage of images: ancestry and descendants, page by page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from related_images.db import lineage_walk, resources_between
from related_images.db.database import Database
from related_images.db.lineage_walk import (
    ANY_DEPTH,
    Link,
    TreePosition,
    TreeStep,
)
from related_images.db.resources_between import Via
from related_images.errors import MarkerUnknown
from related_images.model import InstanceRef

__all__ = [
    "Chain",
    "ChainPosition",
    "Link",
    "Tree",
    "TreePosition",
    "TreeStep",
    "Wanted",
    "ancestry",
    "descendants",
    "via",
]


@dataclass(frozen=True)
class ChainPosition:
    """The position where a page of ancestry ended, with a checkpoint for cycle detection.

    This is Brent's algorithm ("An improved Monte Carlo factorization algorithm", 1980), with pages
    as steps: the checkpoint moves to the current image whenever the number of pages is a power of
    two. After enough pages, the checkpoint is on the cycle and stays there for a complete cycle.

    :ivar key: the image at which the next page begins
    :ivar passed: the checkpoint: an image on an earlier page
    :ivar pages: the number of pages before the next one
    """

    key: str
    passed: str
    pages: int


@dataclass(frozen=True)
class Chain:
    """A page of ancestry.

    It ends before a link that the caller cannot see, and before a link that closes a cycle.

    :ivar next: the position of the next page, if there is one
    :ivar circular: whether the page ends at a cycle
    """

    links: list[Link]
    next: ChainPosition | None = None
    circular: bool = False


def ancestry(
    database: Database,
    image_id: str,
    limit: int,
    after: ChainPosition | None,
    visible_to: str | None,
) -> Chain:
    """Return a page of the ancestors of an image, its parent first.

    :param limit: the size of the page
    :param after: the position where the previous page ended
    :param visible_to: the project of the caller; ``None`` if the caller sees all projects
    :raises MarkerUnknown: if no page for this caller can have ended at ``after``
    :raises StoreUnavailable: if the database is unavailable
    """
    begin = after or ChainPosition(image_id, image_id, 0)
    if visible_to is not None and begin.key != image_id:
        _check_position(database, begin.key, visible_to)
    found = database.explore(lineage_walk.ancestry, begin.key, limit + 1, visible_to)
    passed, kept = {image_id, begin.passed}, list[Link]()
    for link in found:
        if not link.is_visible:
            break
        if link.parent_key in passed:
            return Chain(kept, circular=True)
        kept.append(link)
        passed.add(link.parent_key)
    return Chain(kept[:limit], _next(begin, kept[limit - 1]) if len(kept) > limit else None)


def _check_position(database: Database, image_id: str, visible_to: str) -> None:
    """Refuse a forged marker, which could reveal the ancestors of an image of another project."""
    if not database.explore(lineage_walk.leads_on, image_id, visible_to):
        raise MarkerUnknown(
            "no page ended at this marker; request the first page, without a marker"
        )


def _next(begin: ChainPosition, last: Link) -> ChainPosition:
    pages, here = begin.pages + 1, last.parent_key
    return ChainPosition(here, here if pages & begin.pages == 0 else begin.passed, pages)


@dataclass(frozen=True)
class Tree:
    """A page of descendants; it may be shorter than the limit although another page follows."""

    branches: list[TreeStep]
    next: TreePosition | None
    circular: bool


@dataclass(frozen=True)
class Wanted:
    """A query for descendants.

    :ivar image_id: the root
    :ivar depth: the largest number of steps below the root
    :ivar kind: only images of this kind; the tree below other images is searched too
    :ivar visible_to: the project of the caller; ``None`` if the caller sees all projects
    """

    image_id: str
    depth: int = ANY_DEPTH
    kind: str | None = None
    visible_to: str | None = None

    def matches(self, step: TreeStep) -> bool:
        """Return whether the step belongs to the result."""
        return not step.upwards and self.kind in (None, step.link.kind)


def descendants(database: Database, wanted: Wanted, limit: int, after: TreePosition | None) -> Tree:
    """Return a page of the descendants of an image; each one precedes its own descendants.

    :param limit: the largest size of the page
    :param after: the position where the previous page ended
    :raises MarkerUnknown: if no page for this caller can have ended at ``after``, or if that image
        has been removed since
    :raises StoreUnavailable: if the database is unavailable
    """
    steps = database.explore(
        lineage_walk.descendants,
        wanted.image_id,
        limit + 1,
        after=after,
        depth=wanted.depth,
        kind=wanted.kind,
        visible_to=wanted.visible_to,
    )
    if after is not None and not steps:
        raise MarkerUnknown(
            "the image of this marker no longer exists; request the first page, without a marker"
        )
    found = [step for step in steps if step.step > 0 and wanted.matches(step)]
    circular = any(step.closes for step in steps)
    if after is None and not steps:
        circular = database.explore(lineage_walk.root_closes, wanted.image_id, wanted.visible_to)
    return Tree(found[:limit], _end(steps, found, limit), circular)


def _end(steps: Sequence[TreeStep], found: Sequence[TreeStep], limit: int) -> TreePosition | None:
    """Return the position of the next page, if there is one."""
    if len(found) > limit:
        return _position(found[limit - 1])
    is_cut = bool(steps) and steps[-1].step >= lineage_walk.most_steps(limit + 1)
    return _position(steps[-1]) if is_cut else None


def _position(step: TreeStep) -> TreePosition:
    return TreePosition(step.link.key, step.depth, step.upwards)


def via(database: Database, links: Sequence[Link]) -> Mapping[Link, Via]:
    """Return the resources between the parent and the image of each link of a page.

    :returns: at least one resource; the first was made from the parent, the image from the last
    :raises StoreUnavailable: if the database is unavailable
    """
    direct = {
        link: (InstanceRef.unchecked(link.installation_uuid, link.instance_id, link.resource_type),)
        for link in links
        if not link.has_origin
    }
    others = [link for link in links if link.has_origin]
    return direct | (database.explore(resources_between.between, others) if others else {})
