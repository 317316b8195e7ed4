"""The list of instances, page by page, and single instances.

A page takes two statements: one for the primary keys, one for the rows. If an instance was removed
between them, both run again for the missing rows.
"""

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
)

from related_images.db import listing, relation_queries
from related_images.db.column_types import (
    EPOCH,
    FOREVER,
    KIND_CODES,
    MICROSECOND,
    UtcDateTime,
    is_known,
)
from related_images.db.database import Database
from related_images.db.named_rows import all_rows
from related_images.db.row_ids import (
    IS_NAMED,
    named,
    project_ref,
    shown_id,
    shown_installation,
)
from related_images.db.tables import (
    LATEST,
    image,
    installation,
    instance,
    project,
    rebuild,
    relation,
)
from related_images.errors import InstanceNotFound, MarkerUnknown
from related_images.model import (
    BOOT,
    MADE_FROM,
    Filters,
    Images,
    Instance,
    InstancePosition,
    InstanceRef,
)

OverduePosition = tuple[datetime, int]
"""The time of the latest image of an instance, and the primary key of the instance."""

T = TypeVar("T")


def page(
    database: Database,
    filters: Filters,
    limit: int,
    after: InstancePosition | None,
    latest_before: datetime | None,
    until: datetime = FOREVER,
) -> listing.Page[Instance]:
    """Return a page of instances, in the order in which they were first recorded.

    With ``latest_before``, the list holds the instances without an image of the kind since then.
    Callers who see all projects and give no label get the longest overdue instances first.

    :param filters: conditions that one relation of the instance must fulfil
    :param limit: the size of the page
    :param after: the position of the last instance of the previous page
    :param latest_before: list only instances without an image since this time
    :param until: the latest time of an image that counts for ``latest_before``
    :raises MarkerUnknown: if ``after`` is no instance that the caller sees
    :raises StoreUnavailable: if the database is unavailable
    """
    ref = 0 if after is None else _find_marker(database, after, filters)
    if latest_before is not None and _knows_latest(filters):
        position = ((after and after.latest_at) or EPOCH, ref)
        rows = database.explore(_overdue, filters, limit + 1, latest_before, position, until)
        return listing.Page.of(rows, limit)
    rows = database.explore(_find, filters, limit + 1, ref, latest_before, until)
    return listing.Page.of(rows, limit)


def _find_marker(database: Database, marker: InstancePosition, filters: Filters) -> int:
    ref = InstanceRef(marker.installation_uuid, marker.instance_id, marker.resource_type)
    found = database.read(_visible_ref, ref, filters.visible_to)
    if found is None:
        raise MarkerUnknown(
            "the resource of this marker is unknown; request the first page, without a marker"
        )
    return found


def show(database: Database, ref: InstanceRef, visible_to: str | None) -> Instance:
    """Return one instance.

    :param visible_to: the project of the caller; ``None`` if the caller sees all projects
    :raises InstanceNotFound: if it has no relation that the caller sees
    :raises StoreUnavailable: if the database is unavailable
    """
    for found in database.explore(_show, ref, visible_to):
        return found
    raise InstanceNotFound(f"the {ref} is not recorded")


def _show(connection: Connection, ref: InstanceRef, visible_to: str | None) -> Collection[Instance]:
    found = _visible_ref(connection, ref, visible_to)
    return [] if found is None else _summarize(connection, [found], visible_to).values()


def _visible_ref(connection: Connection, ref: InstanceRef, visible_to: str | None) -> int | None:
    """Return the primary key of the instance, if the project ``visible_to`` sees it."""
    query = select(instance.c.id).where(*IS_NAMED)
    if visible_to is not None:
        query = query.where(
            exists().where(
                relation.c.project_ref == project_ref(visible_to),
                relation.c.instance_ref == instance.c.id,
                is_known(relation.c.kind, KIND_CODES),
            )
        )
    return connection.execute(query, named(ref)).scalar()


def _find(
    connection: Connection,
    filters: Filters,
    limit: int,
    after: int = 0,
    latest_before: datetime | None = None,
    until: datetime = FOREVER,
) -> list[Instance]:
    """Return at most ``limit`` instances after the row ``after``, ordered by primary key.

    The result holds each instance that has a relation which matches the ``filters``. With
    ``latest_before``, the kind and label describe instead which images are missing since that time;
    with a project, images of other projects do not count.

    :param until: the latest time of an image that counts for ``latest_before``
    """
    installation_rows = relation_queries.installation_rows(connection, filters)
    if installation_rows is not None and not installation_rows.refs:
        return []
    query = _refs(filters, installation_rows, latest_before, until)
    ref = query.selected_columns[0]

    def fetch(after: int, limit: int) -> tuple[Sequence[int], Collection[Instance]]:
        page = query.where(ref > after).order_by(ref).limit(limit)
        refs = connection.execute(page).scalars().all()
        return refs, _summarize(connection, refs, filters.visible_to).values()

    return _fill_page(limit, after, fetch)


def _fill_page(
    limit: int, after: T, fetch: Callable[[T, int], tuple[Sequence[T], Collection[Instance]]]
) -> list[Instance]:
    """Return ``limit`` instances or all that follow, without instances that are removed meanwhile.

    :param fetch: takes a position and a limit, returns the next positions and the instances that
        still exist at these
    """
    found: list[Instance] = []
    while missing := limit - len(found):
        positions, existing = fetch(after, missing)
        found += existing
        if len(positions) < missing:
            break
        after = positions[-1]
    return found


def _knows_latest(filters: Filters) -> bool:
    """Return whether :func:`_overdue` supports the filters: one kind, any label, all projects."""
    wanted = replace(_only_names(filters), kind=filters.kind)
    return filters == wanted and filters.kind in LATEST


def _only_names(filters: Filters) -> Filters:
    """Return only the filters for the installation, the ID and the type."""
    return Filters(
        filters.installation_uuid, filters.instance_id, resource_type=filters.resource_type
    )


def _overdue(
    connection: Connection,
    filters: Filters,
    limit: int,
    latest_before: datetime,
    after: OverduePosition = (EPOCH, 0),
    until: datetime = FOREVER,
) -> list[Instance]:
    """Return at most ``limit`` instances without an image since then, the longest overdue first.

    Instances whose latest image is dated after ``until``, and which have no other image since then,
    come last. A second statement finds them: a single one would read all rows between the two
    ranges of the index.

    :param after: the position of the last instance of the previous page
    """
    installation_rows = relation_queries.installation_rows(connection, filters)
    if installation_rows is not None and not installation_rows.refs:
        return []
    kind, wanted = str(filters.kind), relation_queries.given_filters(_only_names(filters))
    values: dict[str, Any] = {**wanted, "latest_before": latest_before, "until": until}
    if installation_rows is not None:
        values["installation_rows"] = installation_rows.refs
    after_until = min(until, FOREVER - MICROSECOND) + MICROSECOND
    ranges = [(EPOCH, False), (max(latest_before, after_until), True)]

    def fetch(
        after: OverduePosition, limit: int
    ) -> tuple[Sequence[OverduePosition], Collection[Instance]]:
        at, ref = after
        positions: list[OverduePosition] = []
        for begin, is_future in ranges:
            query = _overdue_range(
                kind, frozenset(wanted), of_rows=installation_rows is not None, is_future=is_future
            )
            position = {"begin": max(begin, at), "after_at": at, "after_ref": ref}
            more = {"limit": limit - len(positions)}
            rows = connection.execute(query, {**values, **position, **more})
            positions += [(row[0], row[1]) for row in rows]
            if len(positions) == limit:
                break
        found = _summarize(connection, [ref for _, ref in positions], None)
        existing = [replace(found[ref], latest_at=at) for at, ref in positions if ref in found]
        return positions, existing

    return _fill_page(limit, after, fetch)


_LATEST_BEFORE: Final = bindparam("latest_before", type_=UtcDateTime)


@cache
def _overdue_range(
    kind: str, names: frozenset[str], *, of_rows: bool, is_future: bool
) -> Select[Any]:
    """Return the query for the overdue instances in one of the two ranges of the index.

    :param names: the filters that have a value, without the kind
    :param of_rows: whether the parameter ``installation_rows`` restricts the instances
    :param is_future: whether the latest image of the instances is dated after ``until``
    """
    parameters: Any = {name: bindparam(name) for name in names}
    filters = Filters(kind=kind, **parameters)
    rows = relation_queries.installation_rows_parameter(True if of_rows else None)
    latest = LATEST[kind]
    # one lower bound: of several, SQLite uses any one for its search of the index
    is_after = or_(latest > bindparam("after_at"), instance.c.id > bindparam("after_ref"))
    is_in_range = latest < _LATEST_BEFORE
    if is_future:
        until = bindparam("until", type_=UtcDateTime)
        is_in_range = ~_has_since(filters, instance.c.id, _LATEST_BEFORE, until)
    return (
        select(latest, instance.c.id)
        .where(*relation_queries.of_instance(filters, instance.c.id, rows))
        .where(latest >= bindparam("begin"), is_after, is_in_range)
        .order_by(latest, instance.c.id)
        .limit(bindparam("limit"))
    )


def _refs(
    filters: Filters,
    installation_rows: relation_queries.InstallationRows | None,
    latest_before: datetime | None,
    until: datetime,
) -> Select[Any]:
    """Return the query for the primary keys of the instances; see :func:`_find`.

    :param installation_rows: see :func:`related_images.db.relation_queries.installation_rows`
    """
    wanted = replace(filters, kind=None, label=None) if latest_before else filters
    if wanted == _only_names(filters):
        of_instance = relation_queries.of_instance(wanted, instance.c.id, installation_rows)
        query = select(instance.c.id).where(*of_instance)
    else:
        query = (
            select(relation.c.instance_ref)
            .where(*relation_queries.conditions(wanted, installation_rows, of_any_source=True))
            .distinct()
        )
    if latest_before is None:
        return query
    return query.where(~_has_since(filters, query.selected_columns[0], latest_before, until))


def _has_since(
    filters: Filters, ref: ColumnElement[Any], time: Any, until: Any
) -> ColumnElement[bool]:
    """Return the condition that the instance ``ref`` has an image dated in this interval.

    :param time: the beginning of the interval, a time or a parameter; likewise ``until``
    """
    newer = relation.alias()
    kinds = [filters.kind] if filters.kind else MADE_FROM
    conditions = [
        newer.c.instance_ref == ref,
        newer.c.kind.in_(kinds),
        newer.c.created_at.between(time, until),
        newer.c.image_ref == image.c.id,
        image.c.deleted_at.is_(None),
    ]
    if filters.label is not None:
        conditions.append(newer.c.label == filters.label)
    for project_id in (filters.project_id, filters.visible_to):
        if project_id is not None:
            conditions.append(newer.c.project_ref == project_ref(project_id))
    return exists().where(*conditions)


def _summarize(
    connection: Connection, refs: Sequence[int], visible_to: str | None
) -> dict[int, Instance]:
    """Return the instances by primary key, in the order of ``refs``."""
    if not refs:
        return {}
    query = _summaries(of_one_project=visible_to is not None)
    rows = all_rows(connection.execute(query, {"refs": refs, "visible_to": visible_to}))
    by_ref: dict[int, list[Any]] = {ref: [] for ref in refs}
    for row in rows:
        by_ref[row.ref].append(row)
    found = {}
    for ref, its_rows in by_ref.items():
        if its_rows:
            found[ref] = _instance(its_rows, visible_to)
    return found


_REFS: Final[Any] = bindparam("refs", expanding=True)


@cache
def _summaries(*, of_one_project: bool) -> Select[Any]:
    """Return the query for the rows of the instances.

    An instance has one row for the existing images of each kind, and one row for the deleted
    images. An instance without images has one row with nulls.
    """
    ranked = _ranked(of_one_project).subquery()
    return (
        select(
            instance.c.id.label("ref"),
            shown_installation().label("installation_uuid"),
            installation.c.resource_type,
            instance.c.instance_id,
            instance.c.ended_at,
            project.c.project_id,
            ranked.c.kind,
            ranked.c.is_deleted,
            ranked.c.number,
            ranked.c.oldest_at,
            ranked.c.created_at.label("latest_at"),
            ranked.c.uuid.label("latest_image_id"),
        )
        .select_from(
            instance.join(installation, instance.c.installation_ref == installation.c.id)
            .outerjoin(project, instance.c.project_ref == project.c.id)
            .outerjoin(ranked, (ranked.c.instance_ref == instance.c.id) & (ranked.c.rank == 1))
        )
        .where(instance.c.id.in_(_REFS))
    )


def _relation_time(extreme: Any, is_beyond: Callable[[Any, Any], Any]) -> ColumnElement[datetime]:
    """Return the time of a relation; of a ``boot`` relation the first or last start.

    :param extreme: ``func.min`` for the first start, ``func.max`` for the last one
    :param is_beyond: ``operator.lt`` or ``operator.gt``, accordingly
    """
    again = select(extreme(rebuild.c.started_at)).where(rebuild.c.relation_ref == relation.c.id)
    other = again.scalar_subquery()
    started = case((is_beyond(other, relation.c.created_at), other), else_=relation.c.created_at)
    return case((relation.c.kind == BOOT, started), else_=relation.c.created_at)


def _ranked(of_one_project: bool) -> Select[Any]:
    is_deleted = case((image.c.deleted_at.is_(None), 0), else_=1)
    group = [relation.c.instance_ref, relation.c.kind, is_deleted]
    first = _relation_time(func.min, operator.lt)
    last = _relation_time(func.max, operator.gt)
    newest_first = [last.desc(), relation.c.id.desc()]
    ranked = (
        select(
            relation.c.instance_ref,
            relation.c.kind,
            last.label("created_at"),
            shown_id().label("uuid"),
            is_deleted.label("is_deleted"),
            func.count().over(partition_by=group).label("number"),
            func.min(first).over(partition_by=group).label("oldest_at"),
            func.row_number().over(partition_by=group, order_by=newest_first).label("rank"),
        )
        .select_from(relation.join(image, relation.c.image_ref == image.c.id))
        .where(relation.c.instance_ref.in_(_REFS), is_known(relation.c.kind, KIND_CODES))
    )
    if not of_one_project:
        return ranked
    return ranked.where(relation.c.project_ref == project_ref(bindparam("visible_to")))


def _instance(rows: Sequence[Any], visible_to: str | None) -> Instance:
    first = rows[0]
    boots = [row for row in rows if row.kind == BOOT]
    booted = max(boots, key=lambda row: row.latest_at, default=None)
    # a project that owns only an image does not see the owner of the instance, nor its end
    owns = visible_to in (None, first.project_id)
    return Instance(
        installation_uuid=first.installation_uuid,
        resource_type=first.resource_type,
        instance_id=first.instance_id,
        project_id=first.project_id if owns else None,
        boot_image_id=booted.latest_image_id if booted else None,
        ended_at=first.ended_at if owns else None,
        images={
            row.kind: Images(row.number, row.oldest_at, row.latest_at, row.latest_image_id)
            for row in rows
            if row.kind is not None and not row.is_deleted
        },
    )
