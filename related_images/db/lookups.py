"""Answering: the images of an instance, relations page by page, instances page by page.

Each function takes a connection and runs one statement (for instances two, and again where one has
gone between them). A condition on something that bears a name outside is put as a subquery for its
row number, so that the index of the relations is used whatever the database makes of joins.
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
    Subquery,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)

from related_images.db.column_types import EPOCH, FOREVER, KIND_CODES, SOURCE_CODES, is_known
from related_images.db.row_ids import (
    former_images,
    installation_ref,
    instance_ref,
    is_instance,
    project_ref,
    shown_id,
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
from related_images.model import (
    BOOT,
    MADE_FROM,
    Filters,
    Images,
    Instance,
    ListedImage,
    Position,
    Relation,
)

FIRST_RECORDED: Final = func.min(case((relation.c.claimed != 1, relation.c.created_at)))
"""When the oldest relation of an image was recorded.

One with a single claim was announced again for an image that may have been made only then.
"""

T = TypeVar("T")
Overdue = tuple[datetime, int]
"""When the latest image of an instance was made, and the number of the instance."""


@cache
def _listed(
    kinds: tuple[str, ...], *, labelled: bool, or_unlabelled: bool, seen_by: str | None
) -> Select[Any]:
    asked = (
        select(image.c.uuid, image.c.created_at, FIRST_RECORDED)
        .select_from(relation.join(image, relation.c.image_ref == image.c.id))
        .where(
            relation.c.instance_ref
            == instance_ref(bindparam("installation_uuid"), bindparam("instance_id"))
        )
        # each spelled out: a list of values is put into the statement anew at each execution
        .where(relation.c.kind.in_([literal(kind, relation.c.kind.type) for kind in kinds]))
        .where(image.c.deleted_at.is_(None))
    )
    if labelled:
        has_label = relation.c.label == bindparam("label")
        asked = asked.where(
            or_(has_label, relation.c.label.is_(None)) if or_unlabelled else has_label
        )
    if seen_by is not None:
        asked = asked.where(_SEEN_BY[seen_by])
    return asked.group_by(image.c.uuid, image.c.created_at).limit(bindparam("limit"))


_VISIBLE_TO: Final = project_ref(bindparam("visible_to"))
OWNER: Final = "owner"
OWNER_OF_EITHER: Final = "owner of either"
_SEEN_BY: Final = {
    OWNER: relation.c.project_ref == _VISIBLE_TO,
    # the instance is one row, which is asked once
    OWNER_OF_EITHER: or_(
        relation.c.project_ref == _VISIBLE_TO,
        exists().where(
            *is_instance(bindparam("installation_uuid"), bindparam("instance_id")),
            instance.c.project_ref == _VISIBLE_TO,
        ),
    ),
}
"""Which relations a project sees: its own, or besides all those of an instance that it owns."""


def image_ids(
    connection: Connection,
    installation_uuid: str,
    instance_id: str,
    kinds: Collection[str],
    label: str | None,
    limit: int,
    *,
    or_unlabelled: bool = False,
    visible_to: str | None = None,
    seen_by: str = OWNER,
) -> list[ListedImage]:
    """The images of the instance, of one of the ``kinds`` and not deleted, ``limit`` at most.

    :param or_unlabelled: whether those without a label count as if they had the ``label``
    :param visible_to: the project by whose relations alone images are found; ``None`` takes all
    :param seen_by: which relations these are: :data:`OWNER` or :data:`OWNER_OF_EITHER`
    """
    values = {
        "installation_uuid": installation_uuid,
        "instance_id": instance_id,
        "label": label,
        "limit": limit,
        "visible_to": visible_to,
    }
    asked = _listed(
        tuple(kinds),
        labelled=label is not None,
        or_unlabelled=or_unlabelled,
        seen_by=None if visible_to is None else seen_by,
    )
    return [ListedImage(*row) for row in connection.execute(asked, values)]


def relations(
    connection: Connection,
    filters: Filters,
    limit: int,
    after: Position | None = None,
    *,
    of_any_source: bool = False,
) -> list[Relation]:
    """At most ``limit`` relations, newest first, from behind the position ``after``.

    :param of_any_source: give those too whose source this version does not know; it is then
        :data:`related_images.db.column_types.UNKNOWN`
    """
    asked = select(relation).where(*_conditions(filters, of_any_source))
    if after is not None:
        asked = asked.where(_behind(after, filters.visible_to))
    page = asked.order_by(*_newest_first(relation.c)).limit(limit).subquery()
    return [_relation(row) for row in connection.execute(_named(page))]


def relation_at(connection: Connection, ref: int) -> Relation:
    """The relation that has this row."""
    page = select(relation).where(relation.c.id == ref).subquery()
    return _relation(connection.execute(_named(page)).one())


def _relation(row: Any) -> Relation:
    found = Relation(*row)
    return replace(found, image_created_at=None) if found.image_created_at == EPOCH else found


def _newest_first(columns: Any) -> tuple[Any, ...]:
    return columns.created_at.desc(), columns.id.desc()


def _named(page: Subquery) -> Select[Any]:
    """The relations of a page with the names of what they refer to.

    A page is made before it is joined, or MariaDB begins with the installations, which are few.
    """
    return (
        select(
            installation.c.uuid,
            instance.c.instance_id,
            shown_id(),
            page.c.kind,
            page.c.label,
            page.c.source,
            project.c.project_id,
            page.c.created_at,
            image.c.created_at,
            image.c.deleted_at,
        )
        .select_from(
            page.join(instance, page.c.instance_ref == instance.c.id)
            .join(installation, instance.c.installation_ref == installation.c.id)
            .join(image, page.c.image_ref == image.c.id)
            .outerjoin(project, page.c.project_ref == project.c.id)
        )
        .order_by(*_newest_first(page.c))
    )


_made: Final = _named(
    select(relation)
    .where(
        relation.c.image_ref.in_(
            select(image.c.id).where(image.c.uuid.in_(bindparam("image_ids", expanding=True)))
        )
    )
    .where(relation.c.kind.in_(MADE_FROM))
    .subquery()
)


def made(connection: Connection, image_ids: Collection[str]) -> list[Relation]:
    """From which instances the images were made, the newest relation first."""
    found = connection.execute(_made, {"image_ids": list(image_ids)})
    return [_relation(row) for row in found]


def _behind(last: Position, visible_to: str | None) -> ColumnElement[bool]:
    """Older than the ``last``, or as old and numbered before it.

    If that relation is gone by now, all that are as old come again: rather twice than never. One
    that ``visible_to`` may not see is as good as gone, or a made-up position would tell of it.
    """
    ref = (
        select(func.max(relation.c.id))
        .where(_is_of_image(last.image_id))
        .where(relation.c.instance_ref == instance_ref(last.installation_uuid, last.instance_id))
        .where(relation.c.kind == last.kind, relation.c.created_at == last.created_at)
    )
    if visible_to is not None:
        ref = ref.where(relation.c.project_ref == project_ref(visible_to))
    at, beyond_all = relation.c.created_at, 2**62
    return (at <= last.created_at) & or_(
        at < last.created_at, relation.c.id < func.coalesce(ref.scalar_subquery(), beyond_all)
    )


def _conditions(filters: Filters, of_any_source: bool = False) -> list[ColumnElement[bool]]:
    """What a relation must fulfil, among that to be of a kind and source that are known here."""
    at = relation.c.created_at
    given: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
        (filters.image_id, _is_of_image),
        (filters.label, lambda label: relation.c.label == label),
        (filters.project_id, lambda id: relation.c.project_ref == project_ref(id)),
        (filters.visible_to, lambda id: relation.c.project_ref == project_ref(id)),
        (filters.created_after, lambda time: at > time),
        (filters.created_before, lambda time: at < time),
        (filters.in_use, lambda wanted: _is_use() if wanted else ~_is_use()),
    ]
    conditions = [condition(value) for value, condition in given if value is not None]
    conditions.append(_is(filters.kind, relation.c.kind, KIND_CODES))
    if not of_any_source:
        conditions.append(_is(filters.source, relation.c.source, SOURCE_CODES))
    return conditions + _of_instance(filters, relation.c.instance_ref)


def _is(word: str | None, column: ColumnElement[str], codes: dict[str, int]) -> ColumnElement[bool]:
    """Whether the column holds the word; any known word if ``word`` is ``None``."""
    return is_known(column, codes) if word is None else column == word


def _is_of_image(image_id: str) -> ColumnElement[bool]:
    """Whether a relation is of an image that has the ID, or had it before."""
    has_it = select(image.c.id).where(image.c.uuid == image_id)
    return relation.c.image_ref.in_(union_all(has_it, former_images(image_id)))


def _is_use() -> ColumnElement[bool]:
    """Whether a live instance was started from the image.

    The instance is asked for one by one, or MariaDB begins with all that live.
    """
    ended_at = select(instance.c.ended_at).where(instance.c.id == relation.c.instance_ref)
    return and_(relation.c.kind == BOOT, ended_at.scalar_subquery().is_(None))


def _of_instance(filters: Filters, ref: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """What the instance that ``ref`` numbers must fulfil."""
    uuid, id = filters.installation_uuid, filters.instance_id
    if uuid is not None and id is not None:
        return [ref == instance_ref(uuid, id)]
    if id is not None:
        return [ref.in_(select(instance.c.id).where(instance.c.instance_id == id))]
    if uuid is not None:
        ours = select(instance.c.id).where(instance.c.installation_ref == installation_ref(uuid))
        return [ref.in_(ours)]
    return []


def count_since(connection: Connection, since: datetime | None, limit: int) -> int:
    """How many relations were recorded after ``since``; counting stops at ``limit``."""
    newer = select(relation.c.id).where(is_known(relation.c.kind, KIND_CODES)).limit(limit)
    if since is not None:
        newer = newer.where(relation.c.created_at > since)
    return connection.execute(select(func.count()).select_from(newer.subquery())).scalar_one()


def instance_number(
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


_oldest_owner: Final = (
    select(project.c.project_id)
    .select_from(relation.join(project, relation.c.project_ref == project.c.id))
    .where(relation.c.instance_ref == instance.c.id, relation.c.kind.in_(MADE_FROM))
    .order_by(relation.c.created_at, relation.c.id)
    .limit(1)
    .correlate(instance)
    .scalar_subquery()
)
_owners: Final = (
    select(instance.c.instance_id, func.coalesce(project.c.project_id, _oldest_owner))
    .select_from(instance.outerjoin(project, instance.c.project_ref == project.c.id))
    .where(instance.c.installation_ref == installation_ref(bindparam("installation_uuid")))
    .where(instance.c.instance_id.in_(bindparam("instance_ids", expanding=True)))
)


def owners(
    connection: Connection, installation_uuid: str, instance_ids: Collection[str]
) -> dict[str, str | None]:
    """Whose each known instance is, else whose the oldest image is that was made from it."""
    named = {"installation_uuid": installation_uuid, "instance_ids": list(instance_ids)}
    return {row[0]: row[1] for row in connection.execute(_owners, named)}


def instances(
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
    asked = _numbers(filters, latest_before, until)
    number = asked.selected_columns[0]

    def look(behind: int, most: int) -> tuple[Sequence[int], Collection[Instance]]:
        page = asked.where(number > behind).order_by(number).limit(most)
        refs = connection.execute(page).scalars().all()
        return refs, _instances(connection, refs, filters.visible_to).values()

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


def knows_latest(filters: Filters) -> bool:
    """Whether :func:`overdue` can answer: of one kind, whatever its label, for who sees all."""
    wanted = Filters(filters.installation_uuid, filters.instance_id, kind=filters.kind)
    return filters == wanted and filters.kind in LATEST


def overdue(
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
        .where(*_of_instance(filters, instance.c.id))
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
        found = _instances(connection, [ref for _, ref in places], None)
        return places, [replace(found[ref], latest_at=at) for at, ref in places if ref in found]

    return _filled(limit, after, look)


def _numbers(filters: Filters, latest_before: datetime | None, until: datetime) -> Select[Any]:
    wanted = replace(filters, kind=None, label=None) if latest_before else filters
    bare = Filters(installation_uuid=filters.installation_uuid, instance_id=filters.instance_id)
    if wanted == bare:
        asked = select(instance.c.id).where(*_of_instance(wanted, instance.c.id))
    else:
        asked = select(relation.c.instance_ref).where(*_conditions(wanted)).distinct()
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


def _instances(
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
