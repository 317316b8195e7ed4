"""Answering: which instances, page by page.

A page takes two statements, and again where an instance has gone between them.
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
    and_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
)

from related_images.db import listing, relation_queries
from related_images.db.column_types import EPOCH, FOREVER, KIND_CODES, is_known
from related_images.db.database import Database
from related_images.db.row_ids import is_instance, project_ref, shown_id
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
)

Overdue = tuple[datetime, int]
"""When the latest image of an instance was made, and the number of the instance."""

T = TypeVar("T")


def page(
    database: Database,
    filters: Filters,
    limit: int,
    after: InstancePosition | None,
    latest_before: datetime | None,
    until: datetime = FOREVER,
) -> listing.Page[Instance]:
    """A page of instances in the order in which they became known.

    Those without an image of a kind since ``latest_before`` come the longest overdue first, to who
    sees all of them and asks for no label.

    :param after: the last one of the page before
    :param until: an image that is dated later does not count as one since ``latest_before``
    :raises MarkerUnknown: if there is no such instance for this caller
    """
    number = 0 if after is None else _place(database, after, filters)
    if latest_before is not None and _knows_latest(filters):
        place = ((after and after.latest_at) or EPOCH, number)
        rows = database.explore(_overdue, filters, limit + 1, latest_before, place, until)
        return listing.Page.of(rows, limit)
    rows = database.explore(_find, filters, limit + 1, number, latest_before, until)
    return listing.Page.of(rows, limit)


def _place(database: Database, place: InstancePosition, filters: Filters) -> int:
    named = (place.installation_uuid, place.instance_id)
    found = database.read(_number_of, *named, filters.visible_to)
    if found is None:
        raise MarkerUnknown(
            "the marker names no instance; ask for the first page, without a marker"
        )
    return found


def show(
    database: Database, installation_uuid: str, instance_id: str, visible_to: str | None
) -> Instance:
    """One instance.

    :raises InstanceNotFound: if it is not there for this caller
    """
    asked = Filters(installation_uuid, instance_id, visible_to=visible_to)
    for found in database.explore(_find, asked, 1):
        return found
    raise InstanceNotFound(f"no instance {instance_id} of {installation_uuid} is known here")


def _number_of(
    connection: Connection, installation_uuid: str, instance_id: str, visible_to: str | None
) -> int | None:
    """Where the instance stands among the others, if it is there for the project ``visible_to``."""
    asked = select(instance.c.id).where(*is_instance(installation_uuid, instance_id))
    if visible_to is not None:
        asked = asked.where(
            exists().where(
                relation.c.project_ref == project_ref(visible_to),
                relation.c.instance_ref == instance.c.id,
                is_known(relation.c.kind, KIND_CODES),
            )
        )
    return connection.execute(asked).scalar()


def _find(
    connection: Connection,
    filters: Filters,
    limit: int,
    after: int = 0,
    latest_before: datetime | None = None,
    until: datetime = FOREVER,
) -> list[Instance]:
    """At most ``limit`` instances that are numbered behind ``after``, in the order of numbers.

    An instance is in it if one of its relations fulfils the ``filters``. With ``latest_before``,
    the kind and label say instead what it has none of since that time, of the project if given.

    :param until: an image that is dated later does not count as one since ``latest_before``
    """
    asked = _refs(filters, latest_before, until)
    number = asked.selected_columns[0]

    def look(behind: int, most: int) -> tuple[Sequence[int], Collection[Instance]]:
        page = asked.where(number > behind).order_by(number).limit(most)
        refs = connection.execute(page).scalars().all()
        return refs, _summed(connection, refs, filters.visible_to).values()

    return _filled(limit, after, look)


def _filled(
    limit: int, after: T, look: Callable[[T, int], tuple[Sequence[T], Collection[Instance]]]
) -> list[Instance]:
    """``limit`` instances, or fewer where no more follow; that one has gone meanwhile ends nothing.

    :param look: gives the next places behind one, so many at most, and what still stands there
    """
    found: list[Instance] = []
    while missing := limit - len(found):
        places, there = look(after, missing)
        found += there
        if len(places) < missing:
            break
        after = places[-1]
    return found


def _knows_latest(filters: Filters) -> bool:
    """Whether :func:`_overdue` can answer: of one kind, whatever its label, for who sees all."""
    wanted = Filters(filters.installation_uuid, filters.instance_id, kind=filters.kind)
    return filters == wanted and filters.kind in LATEST


def _overdue(
    connection: Connection,
    filters: Filters,
    limit: int,
    latest_before: datetime,
    after: Overdue = (EPOCH, 0),
    until: datetime = FOREVER,
) -> list[Instance]:
    """At most ``limit`` instances without an image of the kind since then, the longest first.

    Those whose latest image is dated later than ``until`` come last, if they have no other one
    since then. They are asked for apart: one statement for both would read what lies between.

    :param after: ``latest_at`` and number of the last one of the page before
    """
    latest = LATEST[str(filters.kind)]
    asked = (
        select(latest, instance.c.id)
        .where(*relation_queries.of_instance(filters, instance.c.id))
        .order_by(latest, instance.c.id)
    )
    dated_later = and_(latest >= latest_before, latest > until)
    parts = (
        asked.where(latest < latest_before),
        asked.where(dated_later, ~_has_since(filters, instance.c.id, latest_before, until)),
    )

    def look(behind: Overdue, most: int) -> tuple[Sequence[Overdue], Collection[Instance]]:
        at, number = behind
        places: list[Overdue] = []
        for part in parts:
            page = part.where(latest >= at, or_(latest > at, instance.c.id > number))
            rows = connection.execute(page.limit(most - len(places)))
            places += [(row[0], row[1]) for row in rows]
            if len(places) == most:
                break
        found = _summed(connection, [ref for _, ref in places], None)
        return places, [replace(found[ref], latest_at=at) for at, ref in places if ref in found]

    return _filled(limit, after, look)


def _refs(filters: Filters, latest_before: datetime | None, until: datetime) -> Select[Any]:
    wanted = replace(filters, kind=None, label=None) if latest_before else filters
    bare = Filters(installation_uuid=filters.installation_uuid, instance_id=filters.instance_id)
    if wanted == bare:
        asked = select(instance.c.id).where(*relation_queries.of_instance(wanted, instance.c.id))
    else:
        asked = (
            select(relation.c.instance_ref)
            .where(*relation_queries.conditions(wanted, of_any_source=True))
            .distinct()
        )
    if latest_before is None:
        return asked
    return asked.where(~_has_since(filters, asked.selected_columns[0], latest_before, until))


def _has_since(
    filters: Filters, ref: ColumnElement[Any], time: datetime, until: datetime
) -> ColumnElement[bool]:
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


def _summed(
    connection: Connection, refs: Sequence[int], visible_to: str | None
) -> dict[int, Instance]:
    """The instances with these numbers, in their order."""
    if not refs:
        return {}
    asked = _summaries(of_one_project=visible_to is not None)
    rows = connection.execute(asked, {"refs": refs, "visible_to": visible_to}).all()
    by_ref: dict[int, list[Any]] = {ref: [] for ref in refs}
    for row in rows:
        by_ref[row.ref].append(row)
    return {ref: _instance(by_ref[ref], visible_to) for ref in refs if by_ref[ref]}


_REFS: Final[Any] = bindparam("refs", expanding=True)


@cache
def _summaries(*, of_one_project: bool) -> Select[Any]:
    """One row for each instance, kind, and whether the images are deleted; at least one each."""
    ranked = _ranked(of_one_project).subquery()
    return (
        select(
            instance.c.id.label("ref"),
            installation.c.uuid.label("installation_uuid"),
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


def _told(extreme: Any, is_beyond: Callable[[Any, Any], Any]) -> ColumnElement[datetime]:
    """When a relation was recorded, or if it is a start, when it first or last was one."""
    again = select(extreme(rebuild.c.started_at)).where(rebuild.c.relation_ref == relation.c.id)
    other = again.scalar_subquery()
    started = case((is_beyond(other, relation.c.created_at), other), else_=relation.c.created_at)
    return case((relation.c.kind == BOOT, started), else_=relation.c.created_at)


def _ranked(of_one_project: bool) -> Select[Any]:
    is_deleted = case((image.c.deleted_at.is_(None), 0), else_=1)
    group = [relation.c.instance_ref, relation.c.kind, is_deleted]
    first, last = _told(func.min, operator.lt), _told(func.max, operator.gt)
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
    # who owns an image of the instance alone is not told whose that is, nor what became of it
    owns = visible_to in (None, first.project_id)
    return Instance(
        installation_uuid=first.installation_uuid,
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
