"""Where an image comes from, and what was made from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from related_images.db import lineage_walk
from related_images.db.database import Database
from related_images.db.lineage_walk import (
    ANY_DEPTH,
    Link,
    TreePosition,
    TreeStep,
)
from related_images.errors import MarkerUnknown

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
]


@dataclass(frozen=True)
class ChainPosition:
    """How far upwards a page has come, and one image passed by which a circle is known.

    Each page that is twice as far as the one whose last image that was puts its own in its place:
    so it comes to lie on the circle, and to lie behind long enough.
    """

    key: str
    passed: str
    pages: int


@dataclass(frozen=True)
class Chain:
    """A page of a chain; it ends before a link that is not seen, or where a circle would close."""

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
    """A page of the chain upwards from an image, the nearest link first.

    :raises MarkerUnknown: if ``after`` is no image that the caller can have come to
    """
    begin = after or ChainPosition(image_id, image_id, 0)
    if visible_to is not None and begin.key != image_id:
        _must_lead_on(database, begin.key, visible_to)
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


def _must_lead_on(database: Database, image_id: str, visible_to: str) -> None:
    """Keep a made-up marker from telling where an image comes from that the caller does not see."""
    if not database.explore(lineage_walk.leads_on, image_id, visible_to):
        raise MarkerUnknown(
            "no page ended where the marker says; ask for the first page, without a marker"
        )


def _next(begin: ChainPosition, last: Link) -> ChainPosition:
    pages, here = begin.pages + 1, last.parent_key
    return ChainPosition(here, here if pages & begin.pages == 0 else begin.passed, pages)


@dataclass(frozen=True)
class Tree:
    """A page of a tree; it may hold less than was asked for and still be followed by another."""

    branches: list[TreeStep]
    next: TreePosition | None
    circular: bool


@dataclass(frozen=True)
class Wanted:
    """What of a tree is asked for, and by whom."""

    image_id: str
    depth: int = ANY_DEPTH
    kind: str | None = None
    visible_to: str | None = None

    def shows(self, step: TreeStep) -> bool:
        return not step.upwards and self.kind in (None, step.link.kind)


def descendants(database: Database, wanted: Wanted, limit: int, after: TreePosition | None) -> Tree:
    """A page of what was made from an image, each followed by what was made from it in turn.

    :raises MarkerUnknown: if ``after`` is no image that the caller can have come to
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
            "the image where the last page ended is gone; ask for the first page, without a marker"
        )
    found = [step for step in steps if step.step > 0 and wanted.shows(step)]
    circular = any(step.closes for step in steps)
    if after is None and not steps:
        circular = database.explore(lineage_walk.root_closes, wanted.image_id, wanted.visible_to)
    return Tree(found[:limit], _end(steps, found, limit), circular)


def _end(steps: Sequence[TreeStep], found: Sequence[TreeStep], limit: int) -> TreePosition | None:
    """Where the next page begins, if more follows."""
    if len(found) > limit:
        return _place(found[limit - 1])
    is_cut = bool(steps) and steps[-1].step >= lineage_walk.most_steps(limit + 1)
    return _place(steps[-1]) if is_cut else None


def _place(step: TreeStep) -> TreePosition:
    return TreePosition(step.link.key, step.depth, step.upwards)
