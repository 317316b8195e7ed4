"""The usage of images: how many servers and volumes were made from each, and leases."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    union,
)

from related_images.db import coverage, index_hints, leases, origin_walk, shelving
from related_images.db.database import Database
from related_images.db.row_ids import project_ref
from related_images.db.tables import (
    HAS_KIND,
    image,
    installation,
    instance,
    lease,
    project,
    relation,
)
from related_images.model import (
    BOOT,
    GAPS_SHOWN,
    MADE_FROM,
    SERVER,
    SHELVED,
    UNKNOWN,
    UNUSED,
    USED,
    USES,
    Gap,
    Leases,
    Usage,
)


def usages(
    database: Database,
    image_ids: Collection[str],
    visible_to: str | None,
    owners: Mapping[str, str | None] | None = None,
    gaps: Sequence[Gap] = (),
    created_at: Mapping[str, datetime] | None = None,
) -> list[Usage]:
    """Return the usage of each image, in the order of ``image_ids``.

    An image that is not recorded counts as never used.

    :param visible_to: the project whose starts are counted; ``None`` for all projects
    :param owners: the owners of those images for which the caller may know whether others use them;
        ``None`` if the owners are unknown
    :param gaps: the result of :func:`open_gaps`, called before this function: then a gap that is
        closed in the meantime is stated, and no gap is left out
    :param created_at: when the images were created, as Glance reports it; the gaps before that do
        not matter
    :raises StoreUnavailable: if the database is unavailable
    """
    ids = list(image_ids)
    return [
        _with_state(usage, coverage.of_image(gaps, (created_at or {}).get(usage.image_id)))
        for start in range(0, len(ids), PART)
        for usage in _part(database, ids[start : start + PART], visible_to, owners)
    ]


def open_gaps(database: Database) -> list[Gap]:
    """Return the gaps of all expected witnesses that no comparison closed, oldest first.

    :raises StoreUnavailable: if the database is unavailable
    """
    return database.explore(coverage.gaps)


def ever_used(database: Database, image_ids: Collection[str]) -> list[str]:
    """Return those of the images that a resource ever used, of any project.

    :raises StoreUnavailable: if the database is unavailable
    """
    ids = list(image_ids)
    return [
        image_id
        for start in range(0, len(ids), PART)
        for image_id in database.explore(_ever_used, ids[start : start + PART])
    ]


def _ever_used(connection: Connection, image_ids: Collection[str]) -> list[str]:
    is_used = exists().where(relation.c.image_ref == image.c.id, relation.c.kind.in_(USES))
    query = select(image.c.uuid).where(image.c.uuid.in_(image_ids), is_used)
    return list(connection.execute(query).scalars())


PART: Final = 500
"""The number of images of one statement.

MariaDB reads a list of 1000 values or more as a table (``in_predicate_conversion_threshold``).
"""


def _part(
    database: Database,
    image_ids: Collection[str],
    visible_to: str | None,
    owners: Mapping[str, str | None] | None,
) -> Iterator[Usage]:
    owned = {id: owners[id] for id in image_ids if id in owners} if owners else {}
    known = {row.image_id: row for row in database.explore(_usages, image_ids, visible_to)}
    leased = database.explore(_leased, image_ids, visible_to, owned)
    sources = database.explore(_sources, image_ids, visible_to)
    others: Mapping[str, bool | None] | None = None
    if owners is not None:
        others = database.explore(_used_by_others, owned)
    for image_id in image_ids:
        yield replace(
            _with_leases(known.get(image_id) or Usage(image_id), leased.get(image_id)),
            used_by_others=None if others is None else others.get(image_id, False),
            made_from=sources.get(image_id, 0),
        )


@dataclass(frozen=True, slots=True)
class _Leased:
    """The leases of an image: the live ones, and the end of the last one that is not live."""

    live: Leases
    ended_at: datetime | None


def _with_leases(usage: Usage, leased: _Leased | None) -> Usage:
    if leased is None:
        return usage
    ends = [end for end in (usage.unused_since, leased.ended_at) if end is not None]
    is_used = usage.live_instances or leased.live.count
    unused_since = None if is_used else max(ends, default=None)
    return replace(usage, unused_since=unused_since, leases=leased.live)


def _leased(
    connection: Connection,
    image_ids: Collection[str],
    visible_to: str | None,
    owners: Mapping[str, str | None],
) -> dict[str, _Leased]:
    """Return the leases of those images that have any.

    A project gets its own leases, and all leases of the images that it owns.

    :param owners: the images that ``visible_to`` owns
    """
    everything = image_ids if visible_to is None else owners
    rest = set(image_ids).difference(everything)
    found: dict[str, _Leased] = {}
    for ids, of_project in ((everything, False), (rest, True)):
        if ids:
            rows = connection.execute(_count_leases(of_project), _values(ids, visible_to))
            found |= {row[0]: _Leased(Leases(row[1], row[2]), row[3]) for row in rows}
    return found


@cache
def _count_leases(of_project: bool) -> Any:
    ref, end = lease.c.image_ref, lease.c.expires_at
    is_live = leases.IS_LIVE
    ended_at = case((instance.c.ended_at < end, instance.c.ended_at), else_=end)
    query = (
        select(
            *(_uuid_of(ref), func.count(case((is_live, 1))), func.max(case((is_live, end)))),
            func.max(case((is_live, None), else_=ended_at)),
        )
        .select_from(leases.WITH_INSTANCES)
        .group_by(ref)
    )
    if not of_project:
        return query.where(ref.in_(_REFS))
    # the sum prevents a search by the index on image_ref, as in the starts of a project
    return query.where(lease.c.project_ref == _OWNER, (ref + 0).in_(_REFS))


def _with_state(usage: Usage, gaps: Sequence[Gap]) -> Usage:
    if usage.is_known_to_be_used:
        state = USED
    else:
        state = UNKNOWN if gaps or usage.used_by_others is None else UNUSED
    shown = tuple(gaps[:GAPS_SHOWN])
    return replace(usage, state=state, gaps=shown, more_gaps=len(gaps) - len(shown))


NOT_KNOWN, NO_OWNER = 0, -1
"""Stand-ins for the primary key of a project, which is at least 1: the project of the instance is
unknown; the image has no owner."""


def _usages(
    connection: Connection, image_ids: Collection[str], visible_to: str | None
) -> list[Usage]:
    """Return the usage of those images that were ever used.

    The cost grows with the number of resources that use these images. For a project, the cost grows
    with the number of its own relations and origins, so that the response time does not reveal the
    resources of other projects. A second statement follows the origins: for all projects, only from
    images from which other resources than servers were made.
    """
    of_project = visible_to is not None
    counts: dict[str, _Uses] = {}
    for row in connection.execute(_count_starts(of_project), _values(image_ids, visible_to)):
        counts[row.uuid] = counts.get(row.uuid, _Uses()).with_starts(row)
    walked = image_ids
    if not of_project:
        walked = [image_id for image_id, uses in counts.items() if uses.others]
    if walked:
        query = _count_dependents(connection.dialect.name, of_project)
        for image_id, *more in connection.execute(query, _values(walked, visible_to)):
            counts[image_id] = counts.get(image_id, _Uses()).with_more(*more)
    return [
        Usage(
            *(image_id, uses.all, uses.live, None if uses.live else uses.ended_at),
            shelved=uses.shelved,
        )
        for image_id, uses in counts.items()
    ]


@dataclass(frozen=True, slots=True)
class _Uses:
    """The number of resources that use an image.

    :ivar ended_at: the latest end of one of them
    :ivar others: the number of those that are not servers and were made from the image
    :ivar shelved: the number of servers that are shelved now and need the image
    """

    all: int = 0
    live: int = 0
    ended_at: datetime | None = None
    others: int = 0
    shelved: int = 0

    def with_starts(self, row: Any) -> "_Uses":
        """Return the sum with a row of :func:`_count_starts`."""
        if row.kind == SHELVED:
            return replace(self, shelved=self.shelved + row.all)
        others = 0 if row.resource_type == SERVER else row.all
        summed = self.with_more(row.all, row.all - row.ended, row.ended_at)
        return replace(summed, others=self.others + others)

    def with_more(self, all_: int, live: int, ended_at: datetime | None) -> "_Uses":
        ends = [end for end in (self.ended_at, ended_at) if end is not None]
        return replace(
            self, all=self.all + all_, live=self.live + live, ended_at=max(ends, default=None)
        )


@cache
def _count_starts(of_project: bool) -> Select[Any]:
    rows = _starts(of_project)
    group = (rows.c.image_ref, rows.c.kind, rows.c.installation_ref)
    numbers = (
        func.count().label("all"),
        func.count(rows.c.ended_at).label("ended"),
        func.max(rows.c.ended_at).label("ended_at"),
    )
    # the names are looked up after the rows are counted
    counted = select(*group, *numbers).group_by(*group).subquery()
    return (
        select(image.c.uuid, installation.c.resource_type, counted)
        .select_from(counted)
        .join(image, image.c.id == counted.c.image_ref)
        .join(installation, installation.c.id == counted.c.installation_ref)
    )


@cache
def _count_dependents(dialect: str, of_project: bool) -> Select[Any]:
    if of_project:
        walk = origin_walk.dependents_of_project(dialect, _OWNER, _REFS)
    else:
        walk = origin_walk.dependents(dialect, relation.c.image_ref.in_(_REFS))
    found, user = index_hints.look_up(dialect, walk, instance, instance.c.id == walk.c.ref)
    is_live = case((user.ended_at.is_(None), 1))
    return (
        select(
            *(_uuid_of(walk.c.image_ref), func.count(), func.count(is_live)),
            func.max(user.ended_at),
        )
        .select_from(found)
        .where(walk.c.step <= origin_walk.STEPS)
        .group_by(walk.c.image_ref)
    )


def _sources(
    connection: Connection, image_ids: Collection[str], visible_to: str | None
) -> dict[str, int]:
    """Return the number of resources that each image was made from, without zeros.

    The cost grows as that of :func:`_usages`.
    """
    query = _count_sources(visible_to is not None)
    return {row[0]: row[1] for row in connection.execute(query, _values(image_ids, visible_to))}


@cache
def _count_sources(of_project: bool) -> Select[Any]:
    query = (
        select(image.c.uuid, func.count(relation.c.instance_ref.distinct()))
        .join_from(relation, image, image.c.id == relation.c.image_ref)
        .where(HAS_KIND, relation.c.kind.in_(MADE_FROM))
        .group_by(image.c.uuid)
    )
    if not of_project:
        return query.where(relation.c.image_ref.in_(_REFS))
    # the sum prevents a search by the index on image_ref, as in the starts of a project
    return query.where(relation.c.project_ref == _OWNER, (relation.c.image_ref + 0).in_(_REFS))


# the statements are built once: their parameters are the images and the project
_REFS: Final = select(image.c.id).where(image.c.uuid.in_(bindparam("image_ids", expanding=True)))
_OWNER: Final = project_ref(bindparam("visible_to"))


def _values(image_ids: Collection[str], visible_to: str | None) -> dict[str, Any]:
    return {"image_ids": list(image_ids), "visible_to": visible_to}


def _uuid_of(image_ref: ColumnElement[int]) -> ColumnElement[str]:
    return select(image.c.uuid).where(image.c.id == image_ref).scalar_subquery()


def _starts(of_project: bool) -> FromClause:
    """Return the starts from these images, and the relations of servers that are shelved in them.

    Both are read together, so that the resources of a project are read only once.

    :returns: the relation, the image, the kind, and of the instance the end and the installation
    """
    found = select(
        *(relation.c.id, relation.c.image_ref, relation.c.kind),
        *(instance.c.ended_at, instance.c.installation_ref),
    ).join(instance, instance.c.id == relation.c.instance_ref)
    is_start = relation.c.kind == BOOT
    is_either = and_(relation.c.kind.in_((BOOT, SHELVED)), or_(is_start, shelving.IS_NEEDED))
    if not of_project:
        return found.where(is_either, relation.c.image_ref.in_(_REFS)).subquery()
    # the sum prevents a search by the index on image_ref, which reads the starts of all projects
    of_images = found.where((relation.c.image_ref + 0).in_(_REFS))
    is_own = (
        and_(HAS_KIND, relation.c.project_ref == _OWNER),
        instance.c.project_ref == _OWNER,
    )
    return union(*(of_images.where(is_either, one) for one in is_own)).subquery()


def _used_by_others(
    connection: Connection, owners: Mapping[str, str | None]
) -> dict[str, bool | None]:
    """Return the images that live instances of projects other than the image's owner use or lease.

    An instance belongs to the owner of the image if that project sees the start, or owns an
    instance that comes from another one. Instances of an unknown project count as those of others.

    :returns: true for each such image; ``None`` for an image of which not all origins were followed
    """
    if not owners:
        return {}
    refs = _projects(connection, {owner for owner in owners.values() if owner is not None})
    owned: dict[int, list[str]] = {}
    for image_id, owner in owners.items():
        owned.setdefault(refs.get(owner or "", NO_OWNER), []).append(image_id)
    used = connection.execute(_used_by_others_than(owned)).scalars()
    found = dict.fromkeys(used, True)
    remaining = {id: ref for ref, ids in owned.items() for id in ids if id not in found}
    return {**found, **_used_through_origins(connection, remaining)} if remaining else {**found}


def _used_through_origins(
    connection: Connection, owners: Mapping[str, int]
) -> dict[str, bool | None]:
    """Do as :func:`_used_by_others` for the instances that use an image through origins.

    :param owners: the primary keys of the owners by image ID
    """
    refs = select(image.c.id).where(image.c.uuid.in_(owners))
    dialect = connection.dialect.name
    walk = origin_walk.dependents(dialect, relation.c.image_ref.in_(refs))
    rows, user = index_hints.look_up(dialect, walk, instance, instance.c.id == walk.c.ref)
    is_live = case((user.ended_at.is_(None), 1))
    query = (
        select(
            _uuid_of(walk.c.image_ref), user.project_ref, func.count(is_live), func.max(walk.c.step)
        )
        .select_from(rows)
        .group_by(walk.c.image_ref, user.project_ref)
    )
    found: dict[str, bool | None] = {}
    for image_id, ref, live, steps in connection.execute(query):
        if live and (ref or NOT_KNOWN) != owners[image_id]:
            found[image_id] = True
        elif steps == origin_walk.BEYOND:
            found.setdefault(image_id, None)
    return found


def _projects(connection: Connection, project_ids: Collection[str]) -> dict[str, int]:
    if not project_ids:
        return {}
    query = select(project.c.project_id, project.c.id).where(project.c.project_id.in_(project_ids))
    return {row[0]: row[1] for row in connection.execute(query)}


def _used_by_others_than(owned: Mapping[int, Sequence[str]]) -> Select[Any]:
    """Return the query for images that live instances of others than the owner use or lease.

    The limits keep PostgreSQL from reading the uses of all images at once, for each owner, and
    from determining the owner again for each use.

    :param owned: the IDs of the images of each owner
    """
    owner = case(*((image.c.uuid.in_(ids), ref) for ref, ids in owned.items()), else_=NO_OWNER)
    ids = [id for of_one in owned.values() for id in of_one]
    asked = select(image.c.id, image.c.uuid, owner.label("owner")).where(image.c.uuid.in_(ids))
    images = asked.limit(len(ids)).subquery()
    leased = (
        select(lease.c.relation_ref)
        .select_from(leases.WITH_INSTANCES)
        .where(leases.IS_LIVE, lease.c.image_ref == images.c.id)
        .where(lease.c.project_ref != images.c.owner)
    )
    started = (
        select(relation.c.id)
        .join(instance, instance.c.id == relation.c.instance_ref)
        .where(relation.c.image_ref == images.c.id, relation.c.kind == BOOT)
        .where(instance.c.ended_at.is_(None))
        .where(func.coalesce(relation.c.project_ref, NOT_KNOWN) != images.c.owner)
        .where(func.coalesce(instance.c.project_ref, NOT_KNOWN) != images.c.owner)
    )
    first = [query.limit(1).correlate(images).scalar_subquery() for query in (leased, started)]
    return select(images.c.uuid).where(or_(*(one.is_not(None) for one in first)))
