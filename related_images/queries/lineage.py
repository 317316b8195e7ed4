"""Where an image comes from, and what was made from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from related_images.errors import MarkerUnknown
from related_images.store import lineage
from related_images.store.database import Database
from related_images.store.lineage import ANY_DEPTH, Link, Place, Visit

__all__ = [
    "Branch",
    "Chain",
    "Climb",
    "Link",
    "Place",
    "Stop",
    "Tree",
    "Wanted",
    "ancestry",
    "descendants",
]


@dataclass(frozen=True)
class Climb:
    """How far upwards a page has come, and one image passed by which a circle is known.

    Each page that is twice as far as the one whose last image that was puts its own in its place:
    so it comes to lie on the circle, and to lie behind long enough.
    """

    image_id: str
    passed: str
    pages: int


@dataclass(frozen=True)
class Chain:
    """A page of a chain; it ends with a link that is not visible, or where a circle would close."""

    links: list[Link]
    next: Climb | None = None
    circular: bool = False


def ancestry(
    database: Database, image_id: str, limit: int, after: Climb | None, visible_to: str | None
) -> Chain:
    """A page of the chain upwards from an image, the nearest link first.

    :raises MarkerUnknown: if ``after`` is no image that the caller can have come to
    """
    begin = after or Climb(image_id, image_id, 0)
    if visible_to is not None and begin.image_id != image_id:
        _must_lead_on(database, begin.image_id, visible_to)
    found = database.explore(lineage.ancestry, begin.image_id, limit + 1, visible_to)
    passed, kept = {image_id, begin.passed}, list[Link]()
    for link in found:
        if link.is_visible and link.parent_image_id in passed:
            return Chain(kept, circular=True)
        kept.append(link)
        if not link.is_visible:
            break
        passed.add(link.parent_image_id)
    return Chain(kept[:limit], _next(begin, kept[limit - 1]) if len(kept) > limit else None)


def _must_lead_on(database: Database, image_id: str, visible_to: str) -> None:
    """Keep a made-up marker from telling where an image comes from that the caller does not see."""
    if not database.explore(lineage.leads_on, image_id, visible_to):
        raise MarkerUnknown(
            "no page ended where the marker says; ask for the first page, without a marker"
        )


def _next(begin: Climb, last: Link) -> Climb:
    pages, here = begin.pages + 1, last.parent_image_id
    return Climb(here, here if pages & begin.pages == 0 else begin.passed, pages)


@dataclass(frozen=True)
class Branch:
    """An image below another, or where ``link`` is ``None``, that others made some from it."""

    depth: int
    parent_image_id: str
    link: Link | None


@dataclass(frozen=True)
class Stop:
    """Where a page of a tree ended, and whether what others made there has been told.

    Without a ``place`` it ended at the root.
    """

    place: Place | None
    told: bool


@dataclass(frozen=True)
class Tree:
    """A page of a tree; it may hold less than was asked for and still be followed by another."""

    branches: list[Branch]
    next: Stop | None
    circular: bool


@dataclass(frozen=True)
class Wanted:
    """What of a tree is asked for, and by whom."""

    image_id: str
    depth: int = ANY_DEPTH
    kind: str | None = None
    visible_to: str | None = None

    def shows(self, step: Visit) -> bool:
        return not step.rising and self.kind in (None, step.link.kind)

    def tells_of_others(self, step: Visit) -> bool:
        is_inside = not step.rising and step.depth < self.depth
        return step.hides and is_inside and self.kind is None


def descendants(database: Database, wanted: Wanted, limit: int, after: Stop | None) -> Tree:
    """A page of what was made from an image, each followed by what was made from it in turn.

    :raises MarkerUnknown: if ``after`` is no image that the caller can have come to
    """
    steps = database.explore(
        lineage.descendants,
        wanted.image_id,
        limit + 1,
        after=after.place if after else None,
        depth=wanted.depth,
        kind=wanted.kind,
        visible_to=wanted.visible_to,
    )
    if after is not None and after.place is not None and not steps:
        raise MarkerUnknown(
            "the image where the last page ended is gone; ask for the first page, without a marker"
        )
    found = list(_branches(wanted, steps, after))
    circular = any(step.closes for step in steps)
    if after is None and (wanted.visible_to is not None or not steps):
        closes, hides = database.explore(lineage.root, wanted.image_id, wanted.visible_to)
        circular = circular or closes
        if hides and wanted.kind is None:
            found.insert(0, (Branch(1, wanted.image_id, None), Stop(None, told=True)))
    return Tree([branch for branch, _ in found[:limit]], _stop(steps, found, limit), circular)


def _branches(
    wanted: Wanted, steps: Sequence[Visit], after: Stop | None
) -> Iterator[tuple[Branch, Stop]]:
    for step in steps:
        link, place = step.link, _place(step)
        is_new = step.step > 0
        if is_new and wanted.shows(step):
            yield Branch(step.depth, link.parent_image_id, link), Stop(place, told=False)
        if wanted.tells_of_others(step) and (is_new or not (after and after.told)):
            yield Branch(step.depth + 1, link.image_id, None), Stop(place, told=True)


def _stop(steps: Sequence[Visit], found: Sequence[tuple[Branch, Stop]], limit: int) -> Stop | None:
    if len(found) > limit:
        return found[limit - 1][1]
    is_cut = bool(steps) and steps[-1].step >= lineage.most_steps(limit + 1)
    return Stop(_place(steps[-1]), told=True) if is_cut else None


def _place(step: Visit) -> Place:
    return Place(step.link.image_id, step.depth, step.rising)
