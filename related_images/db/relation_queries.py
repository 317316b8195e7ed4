"""Queries for relations and images, shared by the use cases.

Each function takes a connection inside a transaction of its caller and runs one statement. A
condition on an installation, instance, image or project is a subquery for its primary key. So every
database uses an index of the relations instead of a join order of its own choice.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
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
    type_coerce,
    union_all,
)

from related_images.db import image_identity, shelving
from related_images.db.clock import Now
from related_images.db.column_types import (
    EPOCH,
    KIND_CODES,
    SOURCE_CODES,
    UtcDateTime,
    is_known,
)
from related_images.db.row_ids import (
    former_images,
    installation_refs,
    instance_refs,
    project_ref,
    shown_id,
    shown_installation,
)
from related_images.db.tables import (
    HAS_KIND,
    image,
    installation,
    instance,
    lease,
    project,
    relation,
    relation_end,
    volume_snapshots,
)
from related_images.model import (
    BOOT,
    MADE_FROM,
    SHELVED,
    USE,
    Filters,
    ListedImage,
    Relation,
    RelationPosition,
)

OWNER: Final = "owner"
OWNER_OF_EITHER: Final = "owner of either"
"""Which relations a project sees: those whose image it owns, or also those whose resource it owns.
"""


def images(
    connection: Connection,
    filters: Filters,
    kinds: Collection[str],
    limit: int,
    *,
    seen_by: str = OWNER,
    or_unlabelled: bool = False,
) -> tuple[list[ListedImage], bool]:
    """Return images with a relation of one of the ``kinds`` that matches, not deleted ones.

    :param filters: the conditions on the relation, without ``kind``, ``image_id`` and ``in_use``
    :param limit: the largest number of relations that are read
    :param seen_by: which relations the project of ``filters.visible_to`` sees: :data:`OWNER` or,
        for the relations of one resource, :data:`OWNER_OF_EITHER`
    :param or_unlabelled: relations without a label match every label
    :returns: the images, and whether more than ``limit`` relations match
    """
    found = installation_rows(connection, filters)
    if found is not None and not found.refs:
        return [], False
    few = None if found is None else found.have_few_instances
    used = given_filters(filters)
    query = _images(frozenset(used), tuple(kinds), seen_by, or_unlabelled, few)
    values = {**used, "limit": limit + 1, "installation_rows": found and found.refs}
    rows = connection.execute(query, values).all()
    return [ListedImage(*row[:3]) for row in rows], sum(row[3] for row in rows) > limit


@lru_cache(maxsize=256)
def _images(
    names: frozenset[str],
    kinds: tuple[str, ...],
    seen_by: str,
    or_unlabelled: bool,
    have_few_instances: bool | None,
) -> Select[Any]:
    matches = _matches(names, seen_by, have_few_instances, or_unlabelled=or_unlabelled)
    # subqueries: no database may begin with all images that are not deleted, or read more relations
    deleted_at = select(image.c.deleted_at).where(image.c.id == relation.c.image_ref)
    found = (
        select(relation.c.image_ref, image_identity.RECORDED_AT.label("recorded_at"))
        .where(*matches, _is_one_of(kinds), deleted_at.scalar_subquery().is_(None))
        .limit(bindparam("limit"))
        .subquery()
    )
    return (
        select(image.c.uuid, image.c.created_at, func.min(found.c.recorded_at), func.count())
        .select_from(found.join(image, image.c.id == found.c.image_ref))
        .group_by(image.c.uuid, image.c.created_at)
    )


def matching_images(
    connection: Connection,
    filters: Filters,
    kinds: Collection[str],
    image_ids: Collection[str],
    *,
    seen_by: str = OWNER,
) -> list[ListedImage]:
    """Return those of some images that :func:`images` finds without a limit.

    Each image is looked up by an index, so that the duration depends neither on the number of
    images that match, nor on relations of these images with other kinds or of other projects.
    """
    refs = _installation_refs(connection, filters)
    if refs is not None and not refs:
        return []
    # whether the installations have few instances does not matter: relations are looked up
    few = None if refs is None else False
    used = given_filters(filters)
    query = _matching_images(frozenset(used), tuple(kinds), seen_by, few)
    values = {**used, "image_ids": list(image_ids), "installation_rows": refs}
    return [ListedImage(*row) for row in connection.execute(query, values)]


@lru_cache(maxsize=256)
def _matching_images(
    names: frozenset[str], kinds: tuple[str, ...], seen_by: str, have_few_instances: bool | None
) -> Select[Any]:
    matches = (
        relation.c.image_ref == image.c.id,
        *_matches(names, seen_by, have_few_instances),
    )
    # one subquery for each kind, for the indexes that end in the image
    first = [
        select(relation.c.id).where(*matches, _is_one_of((kind,))).limit(1).scalar_subquery()
        for kind in kinds
    ]
    recorded_at = select(image_identity.FIRST_RECORDED).where(*matches, _is_one_of(kinds))
    return (
        select(
            image.c.uuid,
            image.c.created_at,
            case((image.c.created_at == EPOCH, recorded_at.scalar_subquery())),
        )
        .where(image.c.uuid.in_(bindparam("image_ids", expanding=True)))
        .where(image.c.deleted_at.is_(None), or_(*(one.is_not(None) for one in first)))
    )


def given_filters(filters: Filters) -> dict[str, Any]:
    """Return the filters that have a value, by name."""
    return {
        it.name: value for it in fields(filters) if (value := getattr(filters, it.name)) is not None
    }


def _is_one_of(kinds: Collection[str]) -> ColumnElement[bool]:
    # one parameter for each kind: SQLAlchemy expands a list parameter at each execution
    wanted = [literal(kind, relation.c.kind.type) for kind in kinds]
    return and_(HAS_KIND, relation.c.kind.in_(wanted))


def _matches(
    names: frozenset[str],
    seen_by: str,
    have_few_instances: bool | None,
    *,
    or_unlabelled: bool = False,
) -> list[ColumnElement[bool]]:
    """Return the conditions for a relation of :func:`images`, except the kind."""
    parameters: Any = {name: bindparam(name) for name in names}
    filters = Filters(**parameters)
    matches = []
    if or_unlabelled and filters.label is not None:
        matches.append(or_(relation.c.label == filters.label, relation.c.label.is_(None)))
        filters = replace(filters, label=None)
    if seen_by == OWNER_OF_EITHER and filters.visible_to is not None:
        matches.append(_is_of_either(filters))
        filters = replace(filters, visible_to=None)
    return matches + conditions(
        filters,
        installation_rows_parameter(have_few_instances),
        of_any_source=True,
        of_any_kind=True,
    )


def _is_of_either(filters: Filters) -> ColumnElement[bool]:
    """Return the condition that the project owns the image or the resource of the filters."""
    owner = project_ref(filters.visible_to)
    ref = instance_refs(filters.installation_uuid, filters.instance_id, filters.resource_type)
    # the subquery does not depend on the relation: it runs once
    return or_(relation.c.project_ref == owner, exists(ref.where(instance.c.project_ref == owner)))


def installation_rows_parameter(have_few_instances: bool | None) -> "InstallationRows | None":
    if have_few_instances is None:
        return None
    return InstallationRows(bindparam("installation_rows", expanding=True), have_few_instances)


def find(
    connection: Connection,
    filters: Filters,
    limit: int,
    after: RelationPosition | None = None,
    *,
    of_any_source: bool = False,
) -> list[Relation]:
    """Return at most ``limit`` relations that match the filters, newest first.

    :param after: the position of the last relation of the previous page
    :param of_any_source: include relations with a source that this version does not know: it is
        :data:`related_images.db.column_types.UNKNOWN`
    """
    used = {name: value for name, value in given_filters(filters).items() if name not in _FLAGS}
    found = installation_rows(connection, filters)
    if found is not None and not found.refs:
        return []
    few = None if found is None else found.have_few_instances
    flags = tuple(getattr(filters, name) for name in _FLAGS)
    position = {_AFTER + it.name: getattr(after, it.name) for it in fields(after)} if after else {}
    if after is not None and after.kind not in KIND_CODES:
        del position[_AFTER + "kind"]  # a newer version wrote the marker; here the kind has no code
    query = _page(frozenset(used), flags, few, of_any_source, frozenset(position))
    values = {**used, **position, "limit": limit, "installation_rows": found and found.refs}
    return [_relation(row) for row in connection.execute(query, values).all()]


_FLAGS: Final = ("in_use", "leftover")
"""The filters that change the statement; the others are its parameters."""

_AFTER: Final = "after_"
"""The prefix of the parameters for the position of a page."""


@lru_cache(maxsize=256)
def _page(
    names: frozenset[str],
    flags: tuple[bool | None, ...],
    have_few_instances: bool | None,
    of_any_source: bool,
    bound: frozenset[str],
) -> Select[Any]:
    """Return the statement for a page.

    :param names: the filters that have a value, without :data:`_FLAGS`
    :param flags: the values of :data:`_FLAGS`
    :param have_few_instances: the attribute of :class:`InstallationRows`; ``None`` without them
    :param bound: the parameters of the position; none for the first page
    """
    parameters: Any = {name: bindparam(name) for name in names}
    parameters |= zip(_FLAGS, flags, strict=True)
    filters = Filters(**parameters)
    of_installation_rows = installation_rows_parameter(have_few_instances)
    query = select(relation).where(
        *conditions(filters, of_installation_rows, of_any_source=of_any_source)
    )
    if bound:
        position: Any = {
            it.name: bindparam(_AFTER + it.name) if _AFTER + it.name in bound else None
            for it in fields(RelationPosition)
        }
        query = query.where(_follows(RelationPosition(**position), filters.visible_to))
    at: Any = relation.c.created_at
    if have_few_instances or filters.leftover:
        # the sum prevents a search by the index on created_at, which reads all relations
        at = type_coerce(at, BigInteger) + 0
    newest_first = query.order_by(at.desc(), relation.c.id.desc())
    return _with_names(newest_first.limit(bindparam("limit")).subquery())


def at(connection: Connection, ref: int) -> Relation:
    """Return the relation with the primary key ``ref``."""
    page = select(relation).where(relation.c.id == ref).subquery()
    return _relation(connection.execute(_with_names(page)).one())


def _relation(row: Any) -> Relation:
    *columns, instance_ended_at = row
    found = Relation(*columns)
    if found.kind != SHELVED:
        return found
    ends = (found.ended_at, instance_ended_at, found.image_deleted_at)
    return replace(found, ended_at=min((end for end in ends if end is not None), default=None))


def _with_names(page: Subquery) -> Select[Any]:
    """Return the query for the relations of a page with the UUIDs and IDs to which they refer.

    The page is a subquery: in a plain join, MariaDB would start with the small table of
    installations.
    """
    return (
        select(
            shown_installation(),
            instance.c.instance_id,
            shown_id(),
            page.c.kind,
            page.c.label,
            page.c.source,
            project.c.project_id,
            page.c.created_at,
            func.nullif(image.c.created_at, literal(EPOCH, UtcDateTime), type_=UtcDateTime),
            image.c.deleted_at,
            installation.c.resource_type,
            lease.c.expires_at,
            relation_end.c.ended_at,
            volume_snapshots.c.snapshot_ids,
            instance.c.ended_at,
        )
        .select_from(
            page.join(instance, page.c.instance_ref == instance.c.id)
            .join(installation, instance.c.installation_ref == installation.c.id)
            .join(image, page.c.image_ref == image.c.id)
            .outerjoin(project, page.c.project_ref == project.c.id)
            .outerjoin(lease, page.c.id == lease.c.relation_ref)
            .outerjoin(relation_end, page.c.id == relation_end.c.relation_ref)
            .outerjoin(volume_snapshots, page.c.id == volume_snapshots.c.relation_ref)
        )
        .order_by(page.c.created_at.desc(), page.c.id.desc())
    )


_made: Final = _with_names(
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
    """Return the relations of these images with the instances from which they were made.

    :returns: all images together, the newest relation first
    """
    found = connection.execute(_made, {"image_ids": list(image_ids)})
    return [_relation(row) for row in found]


def _follows(last: RelationPosition, visible_to: str | None) -> ColumnElement[bool]:
    """Return the condition that a relation follows ``last`` in the list.

    It is older, or it has the same time and a lower primary key. If ``last`` was removed, all
    relations with its time are listed again, so that none is left out. A relation that
    ``visible_to`` does not see counts as removed, so that a forged position does not reveal it.

    :param last: the position, whose kind is ``None`` if this version does not know it. If the
        resource and the image then have several relations of unknown kinds with the same time, some
        relations may be listed again
    """
    is_of_kind = relation.c.kind == last.kind
    if last.kind is None:
        is_of_kind = ~is_known(relation.c.kind, KIND_CODES)
    ref = (
        select(func.max(relation.c.id))
        .where(_is_of_image(last.image_id))
        .where(
            relation.c.instance_ref
            == instance_refs(
                last.installation_uuid, last.instance_id, last.resource_type
            ).scalar_subquery()
        )
        .where(is_of_kind, relation.c.created_at == last.created_at)
    )
    if visible_to is not None:
        ref = ref.where(relation.c.project_ref == project_ref(visible_to))
    at, above_all = relation.c.created_at, 2**62
    return (at <= last.created_at) & or_(
        at < last.created_at, relation.c.id < func.coalesce(ref.scalar_subquery(), above_all)
    )


FEW_INSTANCES: Final = 2_000
"""The number of instances up to which a list is read instance by instance and then sorted."""


@dataclass(frozen=True)
class InstallationRows:
    """The rows of the installations that the filters name, if they name no instance.

    :ivar refs: their primary keys, or a parameter for them
    :ivar have_few_instances: whether they have at most :data:`FEW_INSTANCES` instances. Then these
        instances are the start of the query. Otherwise the list is read in its order, and the
        installation of each relation is looked up. No database makes this choice well: MariaDB
        starts with the instances even if these are all instances of the cloud, and PostgreSQL and
        SQLite do not start with them even if they are few.
    """

    refs: Any
    have_few_instances: bool


def installation_rows(connection: Connection, filters: Filters) -> InstallationRows | None:
    """Return the rows of the installations that the filters name; ``None`` if they name none."""
    refs = _installation_refs(connection, filters)
    if not refs:
        return None if refs is None else InstallationRows(refs, have_few_instances=True)
    own = select(instance.c.id).where(instance.c.installation_ref.in_(refs))
    one_more = connection.execute(own.offset(FEW_INSTANCES).limit(1)).first()
    return InstallationRows(refs, one_more is None)


def _installation_refs(connection: Connection, filters: Filters) -> Sequence[int] | None:
    uuid, resource_type = filters.installation_uuid, filters.resource_type
    if filters.instance_id is not None or (uuid is None and resource_type is None):
        return None
    return connection.execute(installation_refs(uuid, resource_type)).scalars().all()


def conditions(
    filters: Filters,
    installation_rows: InstallationRows | None,
    *,
    of_any_source: bool,
    of_any_kind: bool = False,
) -> list[ColumnElement[bool]]:
    """Return the conditions for the filters; relations of unknown kinds never match.

    :param installation_rows: the result of :func:`installation_rows`
    :param of_any_source: whether relations of an unknown source match
    :param of_any_kind: leave out the condition for the kind
    :returns: conditions on the columns of :data:`related_images.db.tables.relation`
    """
    at = relation.c.created_at
    by_filter: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
        (filters.image_id, _is_of_image),
        (filters.label, lambda label: relation.c.label == label),
        (filters.project_id, lambda id: relation.c.project_ref == project_ref(id)),
        (filters.visible_to, lambda id: relation.c.project_ref == project_ref(id)),
        (filters.created_after, lambda time: at > time),
        (filters.created_before, lambda time: at < time),
        (filters.in_use, lambda wanted: _is_use() if wanted else ~_is_use()),
        (filters.leftover, _is_leftover),
    ]
    conditions = [condition(value) for value, condition in by_filter if value is not None]
    if not of_any_kind:
        conditions.append(_is(filters.kind, relation.c.kind, KIND_CODES))
    if filters.source is not None or not of_any_source:
        conditions.append(_is(filters.source, relation.c.source, SOURCE_CODES))
    return conditions + of_instance(filters, relation.c.instance_ref, installation_rows)


def _is(word: str | None, column: ColumnElement[str], codes: dict[str, int]) -> ColumnElement[bool]:
    """Return the condition that the column holds ``word``, or any known word for ``None``."""
    return is_known(column, codes) if word is None else column == word


def _is_of_image(image_id: str) -> ColumnElement[bool]:
    """Return the condition that the image of a relation has this ID or had it before."""
    current = select(image.c.id).where(image.c.uuid == image_id)
    return relation.c.image_ref.in_(union_all(current, former_images(image_id)))


def _is_leftover(wanted: bool) -> ColumnElement[bool]:
    return shelving.is_leftover() if wanted else ~shelving.is_leftover()


def _is_use() -> ColumnElement[bool]:
    """Return the condition that a live instance was started from the image, or has a live lease.

    The subqueries are correlated: in a join, MariaDB would start with all live instances.
    """
    ended_at = select(instance.c.ended_at).where(instance.c.id == relation.c.instance_ref)
    expires_at = select(lease.c.expires_at).where(lease.c.relation_ref == relation.c.id)
    ends = func.coalesce(expires_at.scalar_subquery(), literal(EPOCH, UtcDateTime))
    has_lease = and_(relation.c.kind == USE, ends > Now())
    return and_(or_(relation.c.kind == BOOT, has_lease), ended_at.scalar_subquery().is_(None))


def of_instance(
    filters: Filters, ref: ColumnElement[Any], installation_rows: InstallationRows | None
) -> list[ColumnElement[bool]]:
    """Return the conditions for the installation, the ID and the type of the filters.

    :param ref: the column with the primary key of the instance
    :param installation_rows: the result of :func:`installation_rows`
    """
    names = (filters.installation_uuid, filters.instance_id, filters.resource_type)
    given = [name for name in names if name is not None]
    if not given:
        return []
    if installation_rows is not None:
        is_of_installation = instance.c.installation_ref.in_(installation_rows.refs)
        if ref is instance.c.id:
            return [is_of_installation]
        if installation_rows.have_few_instances:
            return [ref.in_(select(instance.c.id).where(is_of_installation))]
        # a correlated subquery, since MariaDB turns a join or EXISTS into a list of all instances
        its_installation = (
            select(instance.c.installation_ref)
            .where(instance.c.id == ref)
            .correlate_except(instance)
        )
        return [its_installation.scalar_subquery().in_(installation_rows.refs)]
    found = instance_refs(*names)
    is_one = len(given) == len(names)
    return [ref == found.scalar_subquery() if is_one else ref.in_(found)]
