"""Answering where an image comes from, and what was made from it, one statement a page.

Both walk along :data:`related_images.db.tables.descent` from where the page before ended, so
that a page costs what is on it. Each image descends from one other at most: from the one that the
first recorded of its relations leads to. What descends from an image is thus a tree, walked child
before sibling; a circle can only lead back to where it began.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    ScalarSelect,
    Select,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)

from related_images.db.column_types import KIND_CODES, is_known
from related_images.db.dialects import MYSQL
from related_images.db.row_ids import image_ref, project_ref, shown_id
from related_images.db.tables import (
    children,
    children_of_project,
    descent,
    image,
    installation,
    instance,
    project,
    relation,
)

MOVES: Final = 1000
"""Steps that a page may take besides two for each entry, as it climbs or skips what is not asked.

A page that ends so holds less than it might, and the next one goes on from there.
"""
LINES: Final = 8
"""How far up from where a page ended MariaDB is told how the lines of images go on.

It would count every line from its beginning for each image, as it seeks in an index only what it
knows before it begins. Further up it does so; and so it does at the end of a line.
"""
ANY_DEPTH: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Link:
    """That an image was made of an instance which had been started from its parent.

    ``project_id`` is who sees that it was made. ``key`` and ``parent_key`` name both images also
    where another has the ID by now. ``is_visible`` is whether the one who asks sees the link; if
    not, nothing else may be shown.
    """

    image_id: str
    image_deleted_at: datetime | None
    parent_image_id: str
    parent_deleted_at: datetime | None
    installation_uuid: str
    instance_id: str
    instance_ended_at: datetime | None
    project_id: str | None
    kind: str
    created_at: datetime
    key: str
    parent_key: str
    is_visible: bool


@dataclass(frozen=True, slots=True)
class TreeStep:
    """One step through the tree: at which link, how far below its root, and whether on the way up.

    ``closes`` tells of a circle: the root itself was made from the image, or from the root.
    """

    link: Link
    step: int
    depth: int
    upwards: bool
    closes: bool


@dataclass(frozen=True, slots=True)
class TreePosition:
    """Where in a tree a page ended: at which image, how far below, and whether on the way up."""

    key: str
    depth: int
    upwards: bool = False


_child, _parent = image.alias("child"), image.alias("parent")
_SHOWN: Final = (
    shown_id(_child),
    _child.c.deleted_at,
    shown_id(_parent),
    _parent.c.deleted_at,
    installation.c.uuid,
    instance.c.instance_id,
    instance.c.ended_at,
    project.c.project_id,
    relation.c.kind,
    relation.c.created_at,
    _child.c.uuid,
    _parent.c.uuid,
)


def _shown(walk: FromClause) -> FromClause:
    return (
        walk.join(descent, descent.c.relation_ref == walk.c.ref)
        .join(relation, relation.c.id == descent.c.relation_ref)
        .join(instance, instance.c.id == relation.c.instance_ref)
        .join(installation, installation.c.id == instance.c.installation_ref)
        .join(_child, _child.c.id == descent.c.image_ref)
        .join(_parent, _parent.c.id == descent.c.parent_ref)
        .outerjoin(project, project.c.id == relation.c.project_ref)
    )


def _first_of(image: Any) -> ScalarSelect[Any]:
    """The relation by which an image descends from another."""
    own = descent.alias()
    found = select(own.c.relation_ref).where(own.c.image_ref == image)
    return found.order_by(own.c.relation_ref).limit(1).correlate_except(own).scalar_subquery()


def ancestry(
    connection: Connection, image_id: str, limit: int, visible_to: str | None
) -> list[Link]:
    """At most ``limit`` links upwards from an image, the nearest first; a circle is followed.

    :param image_id: its ID, or the ``key`` of one that had it before another
    """
    walk = _upwards(image_id, limit)
    is_visible = case((_is_seen(visible_to), true()), else_=false())
    asked = select(*_SHOWN, is_visible).select_from(_shown(walk))
    return [Link(*row) for row in connection.execute(asked.order_by(walk.c.step))]


def _upwards(image_id: str, limit: int) -> CTE:
    """At most so many steps from an image upwards: each relation, and what it leads to."""
    start, above = descent.alias(), descent.alias()
    walk = (
        select(literal(1).label("step"), start.c.relation_ref.label("ref"), start.c.parent_ref)
        .where(start.c.relation_ref == _first_of(image_ref(image_id)))
        .cte("walk", recursive=True)
    )
    return walk.union_all(
        select(walk.c.step + 1, above.c.relation_ref, above.c.parent_ref)
        .join_from(walk, above, above.c.relation_ref == _first_of(walk.c.parent_ref))
        .where(walk.c.step < limit)
    )


def _is_seen(visible_to: str | None) -> ColumnElement[bool]:
    """Whether the project sees both that the image was made, and that its instance was started.

    Nobody sees a link of a kind that this version does not know.
    """
    known = is_known(descent.c.kind, KIND_CODES)
    if visible_to is None:
        return known
    return and_(known, descent.c.project_ref == project_ref(visible_to))


def leads_on(connection: Connection, image_id: str, visible_to: str | None) -> bool:
    """Whether the project sees a link that :func:`ancestry` may go up to this image by."""
    seen = (
        select(descent.c.relation_ref)
        .where(descent.c.parent_ref == image_ref(image_id))
        .where(_is_seen(visible_to), _is_first(descent))
    )
    return bool(connection.execute(select(seen.exists())).scalar())


def descendants(
    connection: Connection,
    image_id: str,
    limit: int,
    *,
    after: TreePosition | None = None,
    depth: int = ANY_DEPTH,
    kind: str | None = None,
    visible_to: str | None = None,
) -> list[TreeStep]:
    """The way through the tree below an image from behind ``after``, with at most ``limit`` links.

    Besides those there are steps on the way up, and with a ``kind`` links of others. The first
    step is where ``after`` stands, if it is given; nothing is found where it has gone, or where it
    was made up and lies below nothing that is seen.
    """
    tree = _Tree(image_ref(image_id), depth, kind, visible_to)
    if after is None:
        walk = tree.walk(tree.begin(), limit)
    else:
        lines = _lines(connection, after) if connection.dialect.name in MYSQL else ()
        walk = tree.walk(tree.resume(after), limit, tree.prefetch(lines, limit))
    steps = (literal(True), walk.c.step, walk.c.depth, walk.c.upwards)
    asked = select(*_SHOWN, *steps, tree.closes(descent.c.image_ref)).select_from(_shown(walk))
    return [
        TreeStep(Link(*row[:13]), row.step, row.depth, bool(row.upwards), row[-1])
        for row in connection.execute(asked.order_by(walk.c.step))
    ]


def _lines(connection: Connection, after: TreePosition) -> list[Row[Any]]:
    """Of the images from a place up to its root, each with its parent: where a line goes on."""
    walk = _upwards(after.key, min(after.depth, LINES))
    return list(connection.execute(select(walk.c.ref, walk.c.parent_ref)))


def most_steps(limit: int) -> int:
    """How many steps lead at most to ``limit`` links; the page after goes on from the last."""
    return 2 * limit + MOVES


def root_closes(connection: Connection, image_id: str, visible_to: str | None) -> bool:
    """What :class:`TreeStep` tells of each image below a root, told of the root itself."""
    ref = image_ref(image_id)
    closes = _Tree(ref, ANY_DEPTH, None, visible_to).closes(ref)
    return bool(connection.execute(select(closes)).scalar())


def _exists(table: FromClause, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(*conditions).correlate_except(table)


@dataclass(frozen=True)
class _Tree:
    root: Any
    depth: int
    kind: str | None
    visible_to: str | None

    def begin(self) -> Select[Any]:
        first = self._next(self.root, 0)
        return self._at(first, 1, False, 1).where(first.is_not(None))

    def resume(self, after: TreePosition) -> Select[Any]:
        found = self._passed(image_ref(after.key))
        return self._at(found, after.depth, after.upwards, 0).where(found.is_not(None))

    def _at(self, ref: Any, depth: int, upwards: bool, step: int) -> Select[Any]:
        return select(
            literal(step).label("step"),
            ref.label("ref"),
            literal(depth).label("depth"),
            literal(int(upwards)).label("upwards"),
            literal(0).label("found"),
        )

    def prefetch(self, lines: Sequence[Row[Any]], limit: int) -> FromClause | None:
        """Which image follows which among those that a page may come to in these ``lines``."""
        if not lines:
            return None
        reach = most_steps(limit) if self.kind else limit
        found = [self._line(line.ref, line.parent_ref, reach) for line in lines]
        return union_all(found[0], *found[1:]).cte("ahead")

    def _line(self, ref: int, parent_ref: int, reach: int) -> Select[Any]:
        line = self._following(parent_ref, ref - 1).limit(reach + 1).subquery()
        own = line.c.relation_ref
        return select(own.label("ref"), func.lead(own).over(order_by=own).label("next"))

    def walk(self, begin: Select[Any], limit: int, ahead: FromClause | None = None) -> CTE:
        walk = begin.cte("walk", recursive=True)
        here = descent.alias("here")
        is_asked = here.c.kind == self.kind if self.kind else true()
        # the place itself, at step 0, was on the page before
        is_found = and_(walk.c.step > 0, walk.c.upwards == 0, is_asked)
        found = walk.c.found + case((is_found, 1), else_=0)
        may_descend = and_(walk.c.upwards == 0, walk.c.depth < self.depth)
        child = case((may_descend, self._next(here.c.image_ref, 0)))
        sibling: Any = self._next(here.c.parent_ref, here.c.relation_ref)
        if ahead is not None:
            known = select(ahead.c.next).where(ahead.c.ref == here.c.relation_ref)
            sibling = func.coalesce(known.scalar_subquery(), sibling)
        above = case((walk.c.depth > 1, self._passed(here.c.parent_ref)))
        return walk.union_all(
            select(
                walk.c.step + 1,
                func.coalesce(child, sibling, above),
                walk.c.depth + case((child.is_not(None), 1), (sibling.is_not(None), 0), else_=-1),
                case((or_(child.is_not(None), sibling.is_not(None)), 0), else_=1),
                found,
            )
            .join_from(walk, here, here.c.relation_ref == walk.c.ref)
            .where(found < limit, walk.c.step < most_steps(limit))
        )

    def _passed(self, image: Any) -> ScalarSelect[Any]:
        """The link by which an image descends, if the way down from the root can have led there.

        It leads by links alone that are seen. A made-up place could be beside others whose parent
        is hidden, and they would be shown with it.
        """
        if self.visible_to is None:
            return _first_of(image)
        own, above = descent.alias(), descent.alias()
        is_above_seen = _exists(
            above, above.c.relation_ref == _first_of(own.c.parent_ref), *self._seen(above)
        )
        found = (
            select(own.c.relation_ref)
            .where(own.c.relation_ref == _first_of(image), *self._seen(own))
            .where(or_(own.c.parent_ref == self.root, is_above_seen))
        )
        return found.correlate_except(own).scalar_subquery()

    def _next(self, parent: Any, after: Any) -> ScalarSelect[Any]:
        return self._following(parent, after).limit(1).scalar_subquery()

    def _following(self, parent: Any, after: Any) -> Select[Any]:
        below = descent.alias()
        asked = (
            select(below.c.relation_ref)
            .where(below.c.parent_ref == parent, below.c.relation_ref > after)
            .where(below.c.image_ref != self.root, *self._seen(below), _is_first(below))
            .where(is_known(below.c.kind, KIND_CODES))
        )
        return self._in_order(asked, below).correlate_except(below)

    def _in_order(self, asked: Select[Any], below: Any) -> Select[Any]:
        """MariaDB would sort all that descends from the parent, to find the next of them."""
        index = children if self.visible_to is None else children_of_project
        for dialect in MYSQL:
            asked = asked.with_hint(below, f"FORCE INDEX ({index.name})", dialect)
        return asked.order_by(below.c.relation_ref)

    def _seen(self, below: Any) -> list[ColumnElement[bool]]:
        if self.visible_to is None:
            return []
        return [below.c.project_ref == project_ref(self.visible_to)]

    def closes(self, image: Any) -> ColumnElement[bool]:
        """Whether an image closes a circle."""
        own = descent.alias()
        return _exists(
            own,
            own.c.relation_ref == _first_of(self.root),
            or_(own.c.parent_ref == image, own.c.parent_ref == self.root),
            is_known(own.c.kind, KIND_CODES),
            *self._seen(own),
        )


def _is_first(below: Any) -> ColumnElement[bool]:
    """Whether the image descends by this relation, and not by one that was recorded before."""
    before = descent.alias()
    return ~_exists(
        before,
        before.c.image_ref == below.c.image_ref,
        before.c.relation_ref < below.c.relation_ref,
    )
