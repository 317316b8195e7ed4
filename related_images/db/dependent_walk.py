"""The resources that were made from an image or use it, with one query for each part of a page.

A resource is below an image if it was made from the image, has a lease of it, or is shelved in it.
A resource is below another one if it comes from it: see :mod:`related_images.db.origins`. Each
query reads this forest :data:`LEVELS` levels down, and stops before a resource or an image with
more below it than a page has room for. Such a resource or image is read by :func:`block`, page by
page.

So the rows that a query reads are at most a few for each row of a page, whatever the size of the
cloud.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from related_images.db import lineage_walk
from related_images.db.clock import Now
from related_images.db.dialects import MYSQL
from related_images.db.index_hints import WithoutIndex
from related_images.db.lineage_walk import (
    AFTER,
    MANY,
    ROOT,
    STATEMENTS,
    VISIBLE_TO,
    TreePage,
    TreePosition,
    many_values,
)
from related_images.db.named_rows import all_rows
from related_images.db.row_ids import image_ref, project_ref, shown_id, shown_installation
from related_images.db.tables import (
    HAS_KIND,
    descent,
    image,
    installation,
    instance,
    lease,
    origin,
    project,
    relation,
    relation_end,
)
from related_images.model import BOOT, SHELVED, USE, InstanceRef

LEVELS: Final = 3
"""The number of origins that a query follows from each resource."""

_ORIGINS: Final = tuple(origin.alias(f"origin_{level}") for level in range(LEVELS + 1))
_COUNTED: Final = tuple(origin.alias(f"counted_{level}") for level in range(LEVELS))
_INSTANCES: Final = tuple(instance.alias(f"instance_{level}") for level in range(LEVELS + 1))
_HOME, _OWNER, _MADE, _IMAGE = (
    table.alias(name)
    for table, name in (
        (installation, "home"),
        (project, "owner"),
        (relation, "made"),
        (image, "shown"),
    )
)

KINDS: Final = (BOOT, SHELVED, USE)
"""The kinds of relation because of which a resource depends on an image."""


@dataclass(slots=True)
class Node:
    """A resource.

    :ivar kind: the kind of the relation of the first resource on the way from the image
    :ivar is_live: whether it depends on the image now
    :ivar expires_at: the end of its lease
    :ivar is_elsewhere: whether it was made from the image itself too, and so is listed there
    :ivar is_whole: whether :attr:`below` has all resources that come from it
    """

    ref: int
    resource: InstanceRef
    project_id: str | None
    ended_at: datetime | None
    kind: str
    is_live: bool
    expires_at: datetime | None = None
    is_elsewhere: bool = False
    is_whole: bool = True
    below: dict[int, "Node"] = field(default_factory=dict)


@dataclass(slots=True)
class WalkStep:
    """A step of the walk through the images.

    :ivar key: identifies the image, even if another image has its ID now
    :ivar is_last: whether the walk ends here although it could continue
    :ivar nodes: the resources below the image; ``None`` if they are too many to read them here
    :ivar is_more: whether others follow these
    """

    image_id: str
    key: str
    depth: int
    upwards: bool
    is_last: bool
    nodes: dict[int, Node] | None
    is_more: bool = False


def find(
    connection: Connection,
    root_id: str,
    image_key: str | None,
    names: Sequence[InstanceRef],
    visible_to: str | None,
) -> tuple[str | None, list[int | None]]:
    """Find an image below the root, and some resources.

    :param image_key: the ``key`` of the image; ``None`` for the root itself
    :returns: the ID of the image, and the primary keys of the resources; ``None`` for what does not
        exist, or the caller does not see
    """
    image_id: Any = null()
    if image_key is not None:
        link = lineage_walk.passed(root_id, image_ref(image_key), visible_to)
        below = select(descent.c.image_ref).where(descent.c.relation_ref == link)
        image_id = select(shown_id(_IMAGE)).where(_IMAGE.c.id == below.scalar_subquery())
        image_id = image_id.correlate(None).scalar_subquery()
    is_named: ColumnElement[bool] = instance.c.instance_id.in_(
        {one.instance_id for one in names} or {""}  # which is no ID
    )
    if visible_to is not None:
        own = project_ref(visible_to)
        related = relation.c.instance_ref == instance.c.id, relation.c.project_ref == own
        is_seen = exists().where(*related).correlate_except(relation)
        is_named = and_(is_named, or_(instance.c.project_ref == own, is_seen))
    one_row = select(literal(1).label("one")).subquery("one_row")
    query = select(
        *(image_id.label("image_id"), instance.c.id, shown_installation().label("installation")),
        *(instance.c.instance_id, installation.c.resource_type),
    ).select_from(
        one_row.outerjoin(instance, is_named).outerjoin(
            installation, installation.c.id == instance.c.installation_ref
        )
    )
    rows = connection.execute(query).all()
    refs = {
        InstanceRef.unchecked(row.installation, row.instance_id, row.resource_type): row.id
        for row in rows
        if row.id is not None
    }
    # not as a parameter: some drivers read a binary one of MariaDB as text
    image_id = root_id if image_key is None else rows[0].image_id
    return image_id, [refs.get(one) for one in names]


def block(
    connection: Connection,
    image_key: Any,
    container: int | None,
    after: int,
    limit: int,
    visible_to: str | None,
) -> tuple[dict[int, Node], bool]:
    """Return resources directly below an image or a resource, with what is below them.

    :param image_key: the ``key`` of the image
    :param container: the resource; ``None`` for the image itself
    :param after: the primary key of the last resource that was read before
    :param limit: the largest number of resources directly below
    :returns: the resources, and whether others follow
    """
    shape = (connection.dialect.name, visible_to is not None, limit, container is not None)
    values = {"key": image_key, "container": container, "after": after, "visible_to": visible_to}
    rows = all_rows(connection.execute(_block(*shape), values))
    nodes: dict[int, Node] = {}
    for row in rows:
        _add(nodes, row)
    return nodes, rows[-1].number >= limit if rows else False


@lru_cache(STATEMENTS)
def _block(dialect: str, of_project: bool, limit: int, is_below: bool) -> Select[Any]:
    forest = _Forest(dialect, VISIBLE_TO if of_project else None, limit)
    ref = image_ref(bindparam("key"))
    after: Any = bindparam("after")
    first = forest.below(bindparam("container"), after) if is_below else forest.starts(ref, after)
    return forest.nodes(forest.bounded(first), ref, is_below=is_below)


def visits(
    connection: Connection,
    root_id: str,
    after: TreePosition | None,
    limit: int,
    most: int,
    depth: int,
    visible_to: str | None,
    *,
    with_root: bool,
) -> list[WalkStep]:
    """Walk through the images that were made from the root, with the resources below each.

    :param after: where the last page ended; the first visit is then this position, without nodes.
        The result is empty if its image was removed, or if the caller sees no path to it
    :param with_root: begin with the root itself; without ``after``
    :param limit: the number of rows that are read below all images
    :param most: the largest number of steps
    """
    page = TreePage(limit, most, depth, None, visible_to is not None)
    page, values = page.at(connection, root_id, after, visible_to)
    query = _visits(connection.dialect.name, page, with_root)
    rows = all_rows(connection.execute(query, values))
    found: list[WalkStep] = []
    last = None
    for row in rows:
        if row.step != last:
            last = row.step
            is_listed = (with_root or row.step > 0) and not row.upwards
            nodes: dict[int, Node] | None = {} if row.is_read or not is_listed else None
            visit = WalkStep(
                row.image_id, row.key, row.depth, bool(row.upwards), row.is_last, nodes
            )
            found.append(visit)
        if row.ref is not None and nodes is not None:
            _add(nodes, row)
            visit.is_more = row.number >= limit
    return found


@lru_cache(STATEMENTS)
def _visits(dialect: str, page: TreePage, with_root: bool) -> Select[Any]:
    forest = _Forest(dialect, VISIBLE_TO if page.of_project else None, page.limit)
    spent = forest.cost(ROOT) if with_root else None
    return forest.walked(page.steps(forest.cost, spent), with_root=with_root)


def starts_of(
    connection: Connection,
    images: Collection[int],
    after: tuple[int, int] | None,
    limit: int,
    visible_to: str | None,
) -> Sequence[Any]:
    """Return the resources directly below some images.

    :param images: their primary keys
    :param after: the first two columns of the last row that was read before
    :returns: the primary keys of the image, and of the resource twice; whether it depends on the
        image now; the primary keys of its installation and of its project; and the kind
    """
    query = _starts(connection.dialect.name, visible_to is not None, after is not None, limit)
    return connection.execute(query, many_values(images, after, visible_to)).all()


@lru_cache(STATEMENTS)
def _starts(dialect: str, of_project: bool, resumes: bool, limit: int) -> Select[Any]:
    forest = _Forest(dialect, VISIBLE_TO if of_project else None, limit)
    first = forest.relations(relation.c.image_ref.in_(MANY))
    # the order of an index: a resource with two relations is read with the first one
    order = (relation.c.image_ref, relation.c.instance_ref)
    if resumes:
        first = first.where(tuple_(*order) > AFTER)
    in_order = first.add_columns(relation.c.image_ref).order_by(*order, relation.c.kind)
    rows, own = in_order.limit(limit).subquery("first"), instance.c
    query = select(
        *(rows.c.image_ref, rows.c.ref, rows.c.ref, forest.is_live(rows.c, own)),
        *(own.installation_ref, own.project_ref, rows.c.kind),
    ).join_from(rows, instance, own.id == rows.c.ref)
    return query.order_by(rows.c.image_ref, rows.c.ref, rows.c.kind)


def origins_of(
    connection: Connection,
    sources: Collection[int],
    after: tuple[int, int] | None,
    limit: int,
    visible_to: str | None,
) -> Sequence[Any]:
    """Return the resources that come directly from some resources.

    :param sources: their primary keys
    :returns: the primary keys of the source, and of the resource twice; whether it is live; the
        primary keys of its installation and of its project
    """
    query = _origins(connection.dialect.name, visible_to is not None, after is not None, limit)
    return connection.execute(query, many_values(sources, after, visible_to)).all()


@lru_cache(STATEMENTS)
def _origins(dialect: str, of_project: bool, resumes: bool, limit: int) -> Select[Any]:
    forest, own = _Forest(dialect, VISIBLE_TO if of_project else None, limit), instance.c
    order = (origin.c.source_ref, origin.c.instance_ref)
    below = select(*order).where(origin.c.source_ref.in_(MANY), *forest.own(origin))
    if resumes:
        below = below.where(tuple_(*order) > AFTER)
    rows = below.distinct().order_by(*order).limit(limit).subquery("below")
    query = select(
        *(rows.c.source_ref, rows.c.instance_ref, rows.c.instance_ref, own.ended_at.is_(None)),
        *(own.installation_ref, own.project_ref),
    ).join_from(rows, instance, own.id == rows.c.instance_ref)
    return query.order_by(rows.c.source_ref, rows.c.instance_ref)


def _add(nodes: dict[int, Node], row: Any) -> None:
    """Add the resources of a row to those below an image or a resource."""
    at: dict[int, Node] = nodes
    for level in range(LEVELS + 1):
        ref = _REF_OF[level](row)
        if ref is None:
            return
        if ref not in at:
            at[ref] = _node(row, level, ref)
        at = at[ref].below


def _node(row: Any, level: int, ref: int) -> Node:
    installation_uuid, instance_id, resource_type, project_id, ended_at, is_elsewhere = _NAMES_OF[
        level
    ](row)
    is_first = level == 0
    return Node(
        ref,
        InstanceRef.unchecked(installation_uuid, instance_id, resource_type),
        project_id,
        ended_at,
        row.kind,
        bool(row.is_live) if is_first else ended_at is None,
        row.expires_at if is_first else None,
        bool(is_elsewhere),
        is_whole=bool(row.is_whole) if is_first else level < LEVELS or not row.goes_on,
    )


def _is_whole(rows: FromClause) -> ColumnElement[bool]:
    """Return whether everything below a row of :meth:`_Forest.bounded` is read with it."""
    return or_(rows.c.is_read, rows.c.cost == 1).label("is_whole")


_COLUMNS: Final = ("installation", "id", "type", "project", "ended_at", "elsewhere")


def _name(column: str, level: int) -> str:
    return f"{column}_{level}" if level else column


_REF_OF: Final = tuple(attrgetter(_name("ref", level)) for level in range(LEVELS + 1))
_NAMES_OF: Final = tuple(
    attrgetter(*(_name(column, level) for column in _COLUMNS)) for level in range(LEVELS + 1)
)
"""The functions that take the columns of each level from a row."""


@dataclass(frozen=True)
class _Forest:
    """The resources below images, as one caller sees them.

    :ivar visible_to: the project of the caller; ``None`` if the caller sees all projects
    :ivar limit: the largest number of rows to read below an image or a resource
    """

    dialect: str
    visible_to: Any
    limit: int

    def own(self, table: Any) -> list[ColumnElement[bool]]:
        """Return the conditions for the relations or origins that the caller sees."""
        if self.visible_to is None:
            return []
        return [table.c.project_ref == project_ref(self.visible_to)]

    def _kinds(self) -> list[Any]:
        """Return the conditions for the relations because of which resources depend on images."""
        kinds = [literal(kind, relation.c.kind.type) for kind in KINDS]
        if self.visible_to is None:  # the index for a kind does not have the order of a block
            return [WithoutIndex(relation.c.kind).in_(kinds)]
        return [relation.c.kind.in_(kinds), HAS_KIND, *self.own(relation)]

    def _is_start(self, image_ref: Any) -> ColumnElement[bool]:
        return and_(relation.c.image_ref == image_ref, *self._kinds())

    def cost(self, image_ref: Any) -> ColumnElement[int]:
        """Return the number of rows below an image, at most one more than the limit."""
        rows = self._joined(relation, relation.c.instance_ref, _COUNTED)
        query = select(relation.c.id).select_from(rows).where(self._is_start(image_ref))
        return self._bounded_count(query, relation, *_COUNTED)

    def _cost_of(self, instance_ref: Any) -> ColumnElement[int]:
        """Return the number of rows below a resource, at most one more than the limit."""
        first, *others = _COUNTED
        rows = self._joined(first, first.c.instance_ref, others)
        query = select(first.c.instance_ref).select_from(rows)
        query = query.where(first.c.source_ref == instance_ref, *self.own(first))
        return self._bounded_count(query, *_COUNTED)

    def _joined(self, rows: Any, ref: Any, origins: Iterable[Any]) -> Any:
        for below in origins:
            rows = rows.outerjoin(below, and_(below.c.source_ref == ref, *self.own(below)))
            ref = below.c.instance_ref
        return rows

    def _bounded_count(self, query: Select[Any], *tables: FromClause) -> ColumnElement[int]:
        own = query.correlate_except(*tables)
        is_more = own.limit(1).offset(self.limit).scalar_subquery().is_not(None)
        number = own.with_only_columns(func.count(), maintain_column_froms=True)
        counted = cast(number.scalar_subquery(), Integer)
        return case((is_more, literal_column(str(self.limit + 1))), else_=counted)

    def relations(self, *which: ColumnElement[bool]) -> Select[Any]:
        """Return the query for the relations of the resources directly below images."""
        return select(
            relation.c.instance_ref.label("ref"),
            relation.c.id.label("relation_ref"),
            relation.c.kind.label("kind"),
        ).where(*which, *self._kinds())

    def starts(self, image_ref: Any, after: Any) -> Select[Any]:
        """Return the query for the resources directly below an image."""
        order = (relation.c.instance_ref, relation.c.kind)
        is_next = relation.c.instance_ref > after
        query = self.relations(relation.c.image_ref == image_ref, is_next)
        if self.visible_to is None:
            # another index would need a sort of all rows
            name = "uq_related_relation_image_ref_instance_ref_kind"
            for dialect in MYSQL:
                query = query.with_hint(relation, f"FORCE INDEX ({name})", dialect)
        return query.order_by(*order).limit(self.limit)

    def below(self, container: Any, after: Any) -> Select[Any]:
        """Return the query for the resources that come directly from a resource."""
        boot = literal(BOOT, relation.c.kind.type)
        nothing: Any = cast(null(), relation.c.id.type)
        return (
            select(
                origin.c.instance_ref.label("ref"),
                nothing.label("relation_ref"),
                boot.label("kind"),
            )
            .where(origin.c.source_ref == container, origin.c.instance_ref > after)
            .where(*self.own(origin))
            .order_by(origin.c.instance_ref)
            .limit(self.limit)
        )

    def bounded(self, first: Select[Any]) -> FromClause:
        """Add ``is_read``: whether everything below, and below those before, is read with it."""
        rows = first.subquery("first")
        columns: list[Any] = [*rows.c]
        priced = select(*columns, (1 + self._cost_of(rows.c.ref)).label("cost")).subquery("priced")
        order = (priced.c.ref, priced.c.kind)
        window = {"order_by": order, "rows": (None, 0)}
        return select(
            *priced.c,
            func.row_number().over(order_by=order).label("number"),
            (func.sum(priced.c.cost).over(**window) <= 2 * self.limit).label("is_read"),  # type: ignore[arg-type]
        ).subquery("bounded")

    def nodes(self, rows: FromClause, image_ref: Any, *, is_below: bool) -> Select[Any]:
        """Return the query for the resources of ``rows``, and those below them.

        :param is_below: whether the rows come from another resource
        """
        named = self._below(rows, rows.c, image_ref, rows.c.is_read, is_below=is_below)
        return named.add_columns(rows.c.number, _is_whole(rows))

    def walked(self, walk: FromClause, *, with_root: bool) -> Select[Any]:
        """Return the query for the steps of a walk, with the resources below the images.

        :param with_root: read those of the root too, as :func:`block` does
        """
        total = func.lead(walk.c.found).over(order_by=walk.c.step)
        steps = select(walk, total.label("total")).subquery("steps")
        is_read = and_(steps.c.total <= self.limit, steps.c.step > 0, steps.c.upwards == 0)
        images = (
            select(
                *(steps.c.step, steps.c.depth, steps.c.upwards, steps.c.total),
                *(descent.c.image_ref, case((is_read, true()), else_=false()).label("is_read")),
            )
            .join_from(steps, descent, descent.c.relation_ref == steps.c.ref)
            .subquery("images")
        )
        # a condition on is_read beside the image would be checked for each resource of the image
        read_ref = case((images.c.is_read == true(), images.c.image_ref))
        rows, start = self._left_join(images, relation, self._is_start(read_ref))
        first = select(
            images,
            start.instance_ref.label("ref"),
            start.id.label("relation_ref"),
            start.kind.label("kind"),
            literal_column("0").label("number"),
            true().label("is_followed"),
            true().label("is_whole"),
        ).select_from(rows)
        named = (union_all(self._root(), first) if with_root else first).subquery("visited")
        joined = self._below(named, named.c, named.c.image_ref, named.c.is_followed, named.c.step)
        return joined.add_columns(
            *(named.c.step, named.c.depth, named.c.upwards, named.c.is_read),
            *self._names_of_image(named.c.image_ref),
            named.c.total.is_(None).label("is_last"),
            *(named.c.number, named.c.is_whole),
        )

    def _root(self) -> Select[Any]:
        """Return the query for the resources of the root, as a step before the first one."""
        rows = self.bounded(self.starts(ROOT, literal_column("0")))
        names = ("step", "depth", "upwards", "total")
        zeros: list[Any] = [literal_column("0").label(name) for name in names]
        return select(
            *(*zeros, ROOT.label("image_ref"), true().label("is_read")),
            *(rows.c.ref, rows.c.relation_ref, rows.c.kind, rows.c.number),
            *(rows.c.is_read.label("is_followed"), _is_whole(rows)),
        )

    def _names_of_image(self, image_ref: Any) -> Iterator[Any]:
        for name, value in (("image_id", shown_id(_IMAGE)), ("key", _IMAGE.c.uuid)):
            yield select(value).where(_IMAGE.c.id == image_ref).scalar_subquery().label(name)

    def _left_join(
        self, rows: FromClause, table: Any, condition: ColumnElement[bool]
    ) -> tuple[FromClause, Any]:
        """Join as :func:`related_images.db.index_hints.look_up` does; all rows stay."""
        if self.dialect != "postgresql":
            return rows.outerjoin(table, condition), table.c
        found = select(table).where(condition).correlate_except(table).offset(0).lateral()
        return rows.outerjoin(found, true()), found.c

    def _below(
        self,
        first: FromClause,
        at: Any,
        image_ref: Any,
        is_read: Any,
        *order: Any,
        is_below: bool = False,
    ) -> Select[Any]:
        columns: list[Any] = [at.ref, at.kind]
        ordered: list[Any] = [*order, at.ref, at.kind]
        rows, ref = first, at.ref
        for level in range(LEVELS + 1):
            if level:
                table = _ORIGINS[level]
                condition = and_(table.c.source_ref == ref, *self.own(table))
                condition = and_(is_read, condition) if level == 1 else condition
                rows, found = self._left_join(rows, table, condition)
                ref = found.instance_ref
                columns.append(ref.label(_name("ref", level)))
                ordered.append(ref)
            named = _INSTANCES[level]
            rows, own = self._left_join(rows, named, named.c.id == ref)
            if level == 0:
                columns += [
                    self.is_live(at, own).label("is_live"),
                    self.end_of_lease(at).label("expires_at"),
                ]
            columns += self._names(own, ref, level, image_ref if level or is_below else None)
        deeper = exists().where(origin.c.source_ref == ref, *self.own(origin))
        columns.append(deeper.correlate_except(origin).label("goes_on"))
        return select(*columns).select_from(rows).order_by(*ordered)

    def is_live(self, at: Any, own: Any) -> ColumnElement[bool]:
        """Return whether a resource directly below an image depends on it now.

        :param at: the columns of :meth:`relations`
        :param own: the columns of the resource
        """
        stored = exists().where(relation_end.c.relation_ref == at.relation_ref)
        kept = select(relation.c.id).join(image, image.c.id == relation.c.image_ref)
        kept = kept.where(relation.c.id == at.relation_ref, image.c.deleted_at.is_(None))
        is_shelved = and_(
            ~stored.correlate_except(relation_end),
            kept.correlate_except(relation, image).scalar_subquery().is_not(None),
        )
        holds = case(
            (at.kind == USE, self.end_of_lease(at) > Now()),
            (at.kind == SHELVED, is_shelved),
            else_=true(),
        )
        return case((and_(own.ended_at.is_(None), holds), true()), else_=false())

    def end_of_lease(self, at: Any) -> Any:
        """Return the end of a lease, null for other relations."""
        end = select(lease.c.expires_at).where(lease.c.relation_ref == at.relation_ref)
        return end.correlate_except(lease).scalar_subquery()

    def _names(self, own: Any, ref: Any, level: int, image_ref: Any) -> Iterable[Any]:
        of_home = _HOME.c.id == own.installation_ref
        uuid = select(shown_installation(_HOME)).where(of_home).correlate_except(_HOME)
        type_ = select(_HOME.c.resource_type).where(of_home).correlate_except(_HOME)
        owned = select(_OWNER.c.project_id).where(_OWNER.c.id == own.project_ref)
        values = {
            "installation": uuid.scalar_subquery(),
            "id": own.instance_id,
            "type": type_.scalar_subquery(),
            "project": owned.correlate_except(_OWNER).scalar_subquery(),
            "ended_at": own.ended_at,
            "elsewhere": false() if image_ref is None else self._is_made_from(image_ref, ref),
        }
        return [value.label(_name(name, level)) for name, value in values.items()]

    def _is_made_from(self, image_ref: Any, instance_ref: Any) -> ColumnElement[bool]:
        same = and_(_MADE.c.image_ref == image_ref, _MADE.c.instance_ref == instance_ref)
        is_start = WithoutIndex(_MADE.c.kind) == BOOT
        is_seen = exists().where(same, is_start, *self.own(_MADE))
        return is_seen.correlate_except(_MADE)
