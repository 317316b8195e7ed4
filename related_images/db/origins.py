"""Origins: from which other resource a resource comes, since a time.

The stored origins do not depend on the order of the reports, nor on repeated ones. The row of a
resource is created with its first report, in whatever role it appears there. The source of an
origin is never changed; a report of another source for the same time is refused. A wrong origin is
removed.

A live resource uses an image if it was made from the image, or if it comes, through origins, from a
resource that was made from the image: see :mod:`.origin_walk`. The links between images follow the
origins too: see :mod:`.parent_links`.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    case,
    func,
    literal,
    or_,
    select,
    true,
)

from related_images.db import installations, origin_records, relation_queries
from related_images.db.column_types import SOURCE_CODES, UNKNOWN, is_known
from related_images.db.database import Database
from related_images.db.listing import Page
from related_images.db.row_ids import (
    instance_refs,
    project_ref,
    shown_installation,
)
from related_images.db.tables import installation, instance, origin, project
from related_images.errors import OriginNotFound
from related_images.model import (
    Filters,
    InstanceRef,
    NewOrigin,
    Origin,
    OriginPosition,
    Reporter,
)
from related_images.validation import format_time


def record(database: Database, new: NewOrigin, reporter: Reporter) -> tuple[Origin, bool]:
    """Record an origin, and the rows of both resources if they are not recorded.

    It is recorded even while the deletion of an image is pending: the report says what happened,
    and refusing it would not undo that.

    :returns: the origin, and whether it is new. A source that this version does not know is
        replaced with that of this report
    :raises InstallationUnregistered: if the installation must be registered and is not
    :raises InstallationBound: if the installation belongs to another service user
    :raises OriginConflict: if another source is recorded with the same time
    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(_record, new, reporter)


def _record(connection: Connection, new: NewOrigin, reporter: Reporter) -> tuple[Origin, bool]:
    installations.check_reporter(connection, new.instance, reporter)
    ref, since, is_new = origin_records.record(connection, new)
    found = _at(connection, origin.c.instance_ref == ref, origin.c.since == since)
    if found.reported_by == UNKNOWN:
        found = replace(found, reported_by=new.reported_by)
    return found, is_new


def remove(database: Database, resource: InstanceRef, since: datetime, reporter: Reporter) -> None:
    """Remove an origin that was reported wrongly.

    Without another origin, the source of the resource is unknown again.

    :param since: the time of the origin, which names it
    :raises InstallationUnregistered: if the installation must be registered and is not
    :raises InstallationBound: if the installation belongs to another service user
    :raises OriginNotFound: if it is not recorded
    :raises StoreUnavailable: if it could not be committed
    """
    if not database.write(_remove, resource, since, reporter):
        raise OriginNotFound(
            f"the {resource} has no origin since {format_time(since)}; GET /v2/origins lists the "
            "recorded ones"
        )


def _remove(
    connection: Connection, resource: InstanceRef, since: datetime, reporter: Reporter
) -> bool:
    installations.check_reporter(connection, resource, reporter)
    return origin_records.remove(connection, resource, since)


def page(
    database: Database, filters: Filters, limit: int, after: OriginPosition | None
) -> Page[Origin]:
    """Return a page of the origins that match the filters, newest first.

    A project sees the origins of the resources that it owns. It sees the source of an origin if it
    owns that resource too.

    :param filters: those for the resource and its project; ``created_after`` and
        ``created_before`` restrict ``since``
    :param limit: the size of the page
    :param after: the position of the last origin of the previous page
    :raises StoreUnavailable: if the database is unavailable
    """
    return Page.of(database.explore(_find, filters, limit + 1, after), limit)


def _find(
    connection: Connection, filters: Filters, limit: int, after: OriginPosition | None = None
) -> list[Origin]:
    installation_rows = relation_queries.installation_rows(connection, filters)
    if installation_rows is not None and not installation_rows.refs:
        return []
    query = select(origin).where(*_conditions(filters, installation_rows))
    if after is not None:
        query = query.where(_follows(after, filters.visible_to))
    newest_first = query.order_by(*_newest_first(origin.c)).limit(limit)
    named = _with_names(newest_first.subquery(), filters.visible_to)
    return [_origin(row) for row in connection.execute(named)]


def _at(connection: Connection, *same: ColumnElement[bool]) -> Origin:
    query = _with_names(select(origin).where(*same).subquery(), None)
    return _origin(connection.execute(query).one())


def _newest_first(columns: Any) -> tuple[Any, ...]:
    return columns.since.desc(), columns.instance_ref.desc()


def _conditions(
    filters: Filters, installation_rows: relation_queries.InstallationRows | None
) -> list[ColumnElement[bool]]:
    conditions = [is_known(origin.c.source, SOURCE_CODES)]
    conditions += relation_queries.of_instance(filters, origin.c.instance_ref, installation_rows)
    conditions += [
        origin.c.project_ref == project_ref(project_id)
        for project_id in (filters.project_id, filters.visible_to)
        if project_id is not None
    ]
    if filters.created_after is not None:
        conditions.append(origin.c.since > filters.created_after)
    if filters.created_before is not None:
        conditions.append(origin.c.since < filters.created_before)
    return conditions


def _follows(last: OriginPosition, visible_to: str | None) -> ColumnElement[bool]:
    """Return the condition that an origin follows ``last`` in the list.

    If ``last`` was removed, or ``visible_to`` does not see it, all origins with its time are listed
    again, as in the list of relations.
    """
    refs = instance_refs(last.installation_uuid, last.instance_id, last.resource_type)
    ref = select(func.max(origin.c.instance_ref)).where(
        origin.c.instance_ref == refs.scalar_subquery(), origin.c.since == last.since
    )
    if visible_to is not None:
        ref = ref.where(origin.c.project_ref == project_ref(visible_to))
    since, above_all = origin.c.since, 2**62
    return (since <= last.since) & or_(
        since < last.since, origin.c.instance_ref < func.coalesce(ref.scalar_subquery(), above_all)
    )


_source: Final = instance.alias("source")
_home: Final = installation.alias("source_installation")


def _with_names(page: Subquery, visible_to: str | None) -> Select[Any]:
    """Return the query for the origins of a page with the IDs to which they refer.

    :param visible_to: the project that must own a source to see it; ``None`` for all projects
    """
    is_seen = true() if visible_to is None else _source.c.project_ref == project_ref(visible_to)
    return (
        select(
            shown_installation().label("installation_uuid"),
            instance.c.instance_id,
            installation.c.resource_type,
            page.c.source_ref,
            case((is_seen, literal(1)), else_=0).label("is_source_seen"),
            shown_installation(_home).label("source_installation"),
            _source.c.instance_id.label("source_id"),
            _home.c.resource_type.label("source_type"),
            page.c.since,
            project.c.project_id,
            page.c.source.label("reported_by"),
        )
        .select_from(
            page.join(instance, page.c.instance_ref == instance.c.id)
            .join(installation, instance.c.installation_ref == installation.c.id)
            .outerjoin(_source, page.c.source_ref == _source.c.id)
            .outerjoin(_home, _source.c.installation_ref == _home.c.id)
            .outerjoin(project, page.c.project_ref == project.c.id)
        )
        .order_by(*_newest_first(page.c))
    )


def _origin(row: Any) -> Origin:
    has_source = row.source_ref is not None
    source = None
    if has_source and row.is_source_seen:
        source = InstanceRef.unchecked(row.source_installation, row.source_id, row.source_type)
    return Origin(
        installation_uuid=row.installation_uuid,
        instance_id=row.instance_id,
        has_source=has_source,
        source=source,
        since=row.since,
        project_id=row.project_id,
        reported_by=row.reported_by,
        resource_type=row.resource_type,
    )
