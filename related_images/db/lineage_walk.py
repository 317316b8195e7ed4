"""The ancestry and the descendants of an image, with one recursive query for each page.

Both queries follow :data:`related_images.db.tables.descent` from the position where the previous
page ended, so that the cost of a page grows with its own length. An image has at most one parent:
the parent of its first recorded relation. So the descendants of an image form a tree. The walk is
depth-first; the only possible cycle leads back to the root.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Row,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from related_images.db.column_types import KIND_CODES, is_known
from related_images.db.dialects import MYSQL
from related_images.db.index_hints import look_up
from related_images.db.row_ids import image_ref, project_ref, shown_id, shown_installation
from related_images.db.tables import (
    children,
    children_of_project,
    descent,
    image,
    installation,
    instance,
    origin,
    project,
    relation,
)
from related_images.model import ListedImage

MOVES: Final = 1000
"""The number of steps a page may take, in addition to two for each entry, to move up the tree and
to skip images of other kinds.

A page that reaches this number is shorter than its limit; the next page continues there.
"""
LINES: Final = 8
"""The number of levels above the position of a page for which siblings are read in advance.

In a recursive query, MariaDB uses an index range only if its start is known before the query runs.
Otherwise it reads the siblings from the first one for each image. It still does so above these
levels, and after the last sibling that was read in advance.
"""
ANY_DEPTH: Final = 2**31 - 1
"""The depth that means no limit."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link between an image and its parent: the image from which its instance was started.

    :ivar project_id: the project that sees the relation of the image
    :ivar kind: the kind of that relation
    :ivar created_at: when that relation was recorded
    :ivar key: identifies the image, even if another image has its ID now
    :ivar parent_key: identifies the parent in this way
    :ivar instance_ref: the primary key of the instance
    :ivar has_origin: whether the instance comes from another one
    :ivar is_visible: whether the caller sees the link; if not, no other attribute may be shown
    """

    image_id: str
    image_deleted_at: datetime | None
    parent_image_id: str
    parent_deleted_at: datetime | None
    installation_uuid: str
    resource_type: str
    instance_id: str
    instance_ended_at: datetime | None
    project_id: str | None
    kind: str
    created_at: datetime
    key: str
    parent_key: str
    instance_ref: int
    has_origin: bool
    is_visible: bool


@dataclass(frozen=True, slots=True)
class TreeStep:
    """A step of the walk through the tree.

    :ivar step: the number of the step; 0 for the position where the previous page ended
    :ivar depth: the number of links between the root and the image
    :ivar upwards: whether the walk returns to this image after all images below it
    :ivar closes: whether the image is the parent of the root, or the root is its own parent: a
        cycle
    """

    link: Link
    step: int
    depth: int
    upwards: bool
    closes: bool


@dataclass(frozen=True, slots=True)
class TreePosition:
    """The position in a tree where a page ended; the attributes are those of :class:`TreeStep`.

    :ivar key: the ``key`` of the link
    """

    key: str
    depth: int
    upwards: bool = False


_child, _parent = image.alias("child"), image.alias("parent")
_SHOWN: Final = (
    shown_id(_child),
    _child.c.deleted_at,
    shown_id(_parent),
    _parent.c.deleted_at,
    shown_installation(),
    installation.c.resource_type,
    instance.c.instance_id,
    instance.c.ended_at,
    project.c.project_id,
    relation.c.kind,
    relation.c.created_at,
    _child.c.uuid,
    _parent.c.uuid,
    instance.c.id.label("instance_ref"),
    exists().where(origin.c.instance_ref == instance.c.id, origin.c.source_ref.is_not(None)),
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
    """Return the relation that determines the parent of the image."""
    own = descent.alias()
    found = select(own.c.relation_ref).where(own.c.image_ref == image)
    return found.order_by(own.c.relation_ref).limit(1).correlate_except(own).scalar_subquery()


def ancestry(
    connection: Connection, image_id: str, limit: int, visible_to: str | None
) -> list[Link]:
    """Return at most ``limit`` links from an image to its ancestors, its parent first.

    In a cycle, links repeat until the limit.

    :param image_id: the ID of the image, or the ``key`` of a former image with that ID
    """
    walk = _upwards(image_id, limit)
    is_visible = case((_is_seen(visible_to), true()), else_=false())
    query = select(*_SHOWN, is_visible).select_from(_shown(walk))
    return [Link(*row) for row in connection.execute(query.order_by(walk.c.step))]


def _upwards(image_id: Any, limit: int) -> CTE:
    """Return the first ``limit`` ancestors: the relation of each link, and the parent."""
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


def _is_seen(visible_to: Any, links: Any = descent) -> ColumnElement[bool]:
    """Return the condition that the project sees the link.

    Nobody sees a link of a kind that this version does not know.
    """
    known = is_known(links.c.kind, KIND_CODES)
    if visible_to is None:
        return known
    return and_(known, links.c.project_ref == project_ref(visible_to))


def descending(
    connection: Connection, root_id: str, visible_to: str | None, image_ids: Collection[str]
) -> list[ListedImage]:
    """Return those of some images that :func:`descendants` of the root would show.

    It walks from each image towards the root, so that the duration depends on the depth of the
    images, not on the number of descendants.
    """
    root, above, chosen = image_ref(root_id), descent.alias(), image.alias("chosen")
    walk = (
        select(chosen.c.id.label("start"), chosen.c.id.label("here"))
        .where(chosen.c.uuid.in_(image_ids), chosen.c.deleted_at.is_(None), chosen.c.id != root)
        .cte("walk", recursive=True)
    )
    is_next = and_(above.c.relation_ref == _first_of(walk.c.here), _is_seen(visible_to, above))
    links, link = look_up(connection.dialect.name, walk, above, is_next)
    # without duplicates, so that it ends in a cycle
    walk = walk.union(
        select(walk.c.start, link.parent_ref).select_from(links).where(walk.c.here != root)
    )
    found = select(image.c.uuid, image.c.created_at).join_from(
        walk, image, image.c.id == walk.c.start
    )
    rows = connection.execute(found.where(walk.c.here == root))
    return [ListedImage(*row, None) for row in rows]


def leads_on(connection: Connection, image_id: str, visible_to: str | None) -> bool:
    """Return whether the project sees a link whose parent is this image.

    Then a page of :func:`ancestry` for this project can end at the image.
    """
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
    """Return the steps of the walk through the tree below an image, with at most ``limit`` links.

    Steps upwards, and with a ``kind`` links of other kinds, do not count towards the limit.

    :param after: where the previous page ended; the first step is this position. The result is
        empty if its image was removed, or if the caller sees no path to it (a forged marker)
    :param depth: the largest depth
    :param kind: count only links of this kind
    :param visible_to: the project of the caller; ``None`` if the caller sees all projects
    """
    page = TreePage(limit, most_steps(limit), depth, kind, visible_to is not None)
    page, values = page.at(connection, image_id, after, visible_to)
    return [
        TreeStep(Link(*row[: len(_SHOWN) + 1]), row.step, row.depth, bool(row.upwards), row[-1])
        for row in connection.execute(_descendants(page), values)
    ]


# the statements are built once: their parameters are the root, the project and the position
ROOT: Final = image_ref(bindparam("root"))
VISIBLE_TO: Final[Any] = bindparam("visible_to")


@dataclass(frozen=True, slots=True)
class TreePage:
    """What the statement of a page of a tree depends on, besides the values of its parameters.

    Building a statement takes longer than running it. So the last ones are kept.

    :ivar limit: the largest number of links, or the sum of costs at which the walk ends
    :ivar most: the largest number of steps
    :ivar depth: the largest depth
    :ivar kind: count only links of this kind
    :ivar of_project: whether the caller sees only the links of its project
    :ivar resumes: whether the page follows another one
    :ivar lines: the number of :func:`_lines` between the position of the page and the root
    """

    limit: int
    most: int
    depth: int
    kind: str | None
    of_project: bool
    resumes: bool = False
    lines: int = 0

    def at(
        self,
        connection: Connection,
        root_id: str,
        after: TreePosition | None,
        visible_to: str | None,
    ) -> tuple["TreePage", dict[str, Any]]:
        """Return the page after a position, and the values of the parameters."""
        values: dict[str, Any] = {"root": root_id, "visible_to": visible_to}
        if after is None:
            return self, values
        lines = _lines(connection, after) if connection.dialect.name in MYSQL else []
        values |= {"key": after.key, "depth": after.depth, "upwards": int(after.upwards)}
        for number, line in enumerate(lines):
            values |= {f"line_{number}": line.ref, f"parent_{number}": line.parent_ref}
        return replace(self, resumes=True, lines=len(lines)), values

    def steps(
        self,
        cost: Callable[[Any], ColumnElement[int]] | None = None,
        spent: ColumnElement[int] | None = None,
    ) -> CTE:
        """Return the steps of the walk.

        :param cost: takes the primary key of an image, and returns its cost; then the walk ends
            after the image at which the sum of the costs reaches the limit
        :param spent: the sum of the costs before the first step
        :returns: ``step``, ``depth``, ``upwards``; ``ref`` of the link of the image; and ``found``,
            the number of links before, or the sum of the costs of the images before
        """
        return self.tree(cost).steps(self, literal(0) if spent is None else spent)

    def tree(self, cost: Callable[[Any], ColumnElement[int]] | None = None) -> "_Tree":
        """Return the tree below the root."""
        return _Tree(ROOT, self.depth, self.kind, VISIBLE_TO if self.of_project else None, cost)


STATEMENTS: Final = 32
"""The number of statements that are kept."""


@lru_cache(STATEMENTS)
def _descendants(page: TreePage) -> Select[Any]:
    walk = page.steps()
    steps = (literal(True), walk.c.step, walk.c.depth, walk.c.upwards)
    closes = page.tree().closes(descent.c.image_ref)
    query = select(*_SHOWN, *steps, closes).select_from(_shown(walk))
    return query.order_by(walk.c.step)


def passed(root_id: str, image: Any, visible_to: str | None) -> ScalarSelect[Any]:
    """Return the link of an image below the root, if the caller sees the links on the path to it.

    :param image: the primary key of the image
    """
    return _Tree(image_ref(root_id), ANY_DEPTH, None, visible_to)._passed(image)


def children_of(
    connection: Connection,
    images: Collection[int],
    after: tuple[int, int] | None,
    limit: int,
    visible_to: str | None,
) -> Sequence[Any]:
    """Return the images that were made directly from some images.

    :param images: their primary keys
    :param after: the first two columns of the last row that was read before
    :returns: the primary key of the parent, of the relation, and of the image
    """
    query = _children(visible_to is not None, after is not None, limit)
    return connection.execute(query, many_values(images, after, visible_to)).all()


MANY: Final[Any] = bindparam("many", expanding=True)
AFTER: Final[Any] = tuple_(bindparam("after_0", type_=Integer), bindparam("after_1", type_=Integer))


def many_values(
    refs: Collection[int], after: tuple[int, int] | None, visible_to: str | None
) -> dict[str, Any]:
    """Return the values of the parameters :data:`MANY`, :data:`AFTER` and :data:`VISIBLE_TO`."""
    return {"many": list(refs), "visible_to": visible_to} | (
        {"after_0": after[0], "after_1": after[1]} if after else {}
    )


@lru_cache(STATEMENTS)
def _children(of_project: bool, resumes: bool, limit: int) -> Select[Any]:
    order = (descent.c.parent_ref, descent.c.relation_ref)
    is_seen = _is_seen(VISIBLE_TO if of_project else None)
    query = select(*order, descent.c.image_ref).where(descent.c.parent_ref.in_(MANY), is_seen)
    if resumes:
        query = query.where(tuple_(*order) > AFTER)
    return query.where(_is_first(descent)).order_by(*order).limit(limit)


def _lines(connection: Connection, after: TreePosition) -> list[Row[Any]]:
    """Return the links from a position to its ancestors, at most :data:`LINES`."""
    query = _links_upwards(min(after.depth, LINES))
    return list(connection.execute(query, {"key": after.key}))


@lru_cache(STATEMENTS)
def _links_upwards(limit: int) -> Select[Any]:
    walk = _upwards(bindparam("key"), limit)
    return select(walk.c.ref, walk.c.parent_ref)


def most_steps(limit: int) -> int:
    """Return the largest number of steps of a page with ``limit`` links."""
    return 2 * limit + MOVES


def root_closes(connection: Connection, image_id: str, visible_to: str | None) -> bool:
    """Return ``TreeStep.closes`` for the root itself, for a root without descendants."""
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
    visible_to: Any
    cost: Callable[[Any], ColumnElement[int]] | None = None

    def steps(self, page: TreePage, spent: ColumnElement[int]) -> CTE:
        if not page.resumes:
            return self.walk(self.begin(spent), page.limit, page.most)
        reach = page.limit if self.cost is None and self.kind is None else page.most
        siblings = self.siblings(page.lines, reach)
        return self.walk(self.resume(spent), page.limit, page.most, siblings)

    def begin(self, spent: ColumnElement[int]) -> Select[Any]:
        first = self._next(self.root, 0)
        return self._at(first, literal(1), literal(0), 1, spent).where(first.is_not(None))

    def resume(self, spent: ColumnElement[int]) -> Select[Any]:
        found = self._passed(image_ref(bindparam("key")))
        depth, upwards = (bindparam(name, type_=Integer) for name in ("depth", "upwards"))
        return self._at(found, depth, upwards, 0, spent).where(found.is_not(None))

    def _at(
        self, ref: Any, depth: Any, upwards: Any, step: int, spent: ColumnElement[int]
    ) -> Select[Any]:
        return select(
            literal(step).label("step"),
            ref.label("ref"),
            depth.label("depth"),
            upwards.label("upwards"),
            spent.label("found"),
        )

    def siblings(self, lines: int, reach: int) -> FromClause | None:
        """Return the next sibling of each image that a page may reach next to these ``lines``."""
        if not lines:
            return None
        found = [self._line(number, reach) for number in range(lines)]
        return union_all(found[0], *found[1:]).cte("siblings")

    def _line(self, number: int, reach: int) -> Select[Any]:
        ref: Any = bindparam(f"line_{number}")
        parent_ref: Any = bindparam(f"parent_{number}")
        line = self._following(parent_ref, ref, with_it=True).limit(reach + 1).subquery()
        own = line.c.relation_ref
        return select(own.label("ref"), func.lead(own).over(order_by=own).label("next"))

    def walk(
        self, begin: Select[Any], limit: int, most: int, siblings: FromClause | None = None
    ) -> CTE:
        walk = begin.cte("walk", recursive=True)
        here = descent.alias("here")
        is_asked = here.c.kind == self.kind if self.kind else true()
        # step 0 is the last entry of the previous page
        is_found = and_(walk.c.step > 0, walk.c.upwards == 0, is_asked)
        number = literal(1) if self.cost is None else self.cost(here.c.image_ref)
        found = walk.c.found + case((is_found, number), else_=0)
        may_descend = and_(walk.c.upwards == 0, walk.c.depth < self.depth)
        child = case((may_descend, self._next(here.c.image_ref, 0)))
        sibling: Any = self._next(here.c.parent_ref, here.c.relation_ref)
        if siblings is not None:
            known = select(siblings.c.next).where(siblings.c.ref == here.c.relation_ref)
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
            # with a cost, one more image shows the cost of the last one
            .where((found if self.cost is None else walk.c.found) < limit, walk.c.step < most)
        )

    def _passed(self, image: Any) -> ScalarSelect[Any]:
        """Return the link of an image, if the caller sees the links on the path to it.

        A forged position could be next to images whose parent the caller does not see; the page
        would reveal that they have the same parent.
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

    def _following(self, parent: Any, after: Any, *, with_it: bool = False) -> Select[Any]:
        below = descent.alias()
        own = below.c.relation_ref
        query = (
            select(own)
            .where(below.c.parent_ref == parent, own >= after if with_it else own > after)
            .where(below.c.image_ref != self.root, *self._seen(below), _is_first(below))
            .where(is_known(below.c.kind, KIND_CODES))
        )
        return self._in_order(query, below).correlate_except(below)

    def _in_order(self, query: Select[Any], below: Any) -> Select[Any]:
        """Order by relation; without the hint, MariaDB sorts all children to find the next one."""
        index = children if self.visible_to is None else children_of_project
        for dialect in MYSQL:
            query = query.with_hint(below, f"FORCE INDEX ({index.name})", dialect)
        return query.order_by(below.c.relation_ref)

    def _seen(self, below: Any) -> list[ColumnElement[bool]]:
        if self.visible_to is None:
            return []
        return [below.c.project_ref == project_ref(self.visible_to)]

    def closes(self, image: Any) -> ColumnElement[bool]:
        """Return the condition that the image closes a cycle; see :class:`TreeStep`."""
        own = descent.alias()
        return _exists(
            own,
            own.c.relation_ref == _first_of(self.root),
            or_(own.c.parent_ref == image, own.c.parent_ref == self.root),
            is_known(own.c.kind, KIND_CODES),
            *self._seen(own),
        )


def _is_first(below: Any) -> ColumnElement[bool]:
    """Return the condition that no earlier relation determines the parent of the image."""
    before = descent.alias()
    return ~_exists(
        before,
        before.c.image_ref == below.c.image_ref,
        before.c.relation_ref < below.c.relation_ref,
    )
